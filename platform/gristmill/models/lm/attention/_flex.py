"""FlexAttention: softmax over a sparse mask without the T x S matrix, compiled for a GPU.

For windows, prefixes, learned columns and score biases at lengths where the other kernels, given a
mask, hold all T x S scores' worth of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def block_mask(rule: Callable[[Tensor, Tensor], Tensor], queries_T: Tensor, keys_S: Tensor) -> Any:
    """Which blocks of keys each block of queries needs; made once a forward pass.

    Args:
        rule: Whether a query at a place sees a key at another.
        queries_T: Places of the queries.
        keys_S: Places of the keys.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return rule(queries_T[query], keys_S[key])

    return create_block_mask(
        sees, None, None, len(queries_T), len(keys_S), device=str(queries_T.device)
    )


def attend(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    *,
    mask: Any,
    bias_HTS: Tensor | None,
    scale: float,
) -> Tensor:
    """Softmax attention, [B, H, T, D]. Without a GPU it runs uncompiled and has no backward."""
    score = None
    if bias_HTS is not None:

        def score(
            value: Tensor, _batch: Tensor, head: Tensor, query: Tensor, key: Tensor
        ) -> Tensor:
            return value + bias_HTS[head, query, key]

    return _kernel(q_BHTD.device.type)(
        q_BHTD,
        k_BKSD,
        v_BKSD,
        score_mod=score,
        block_mask=mask,
        scale=scale,
        enable_gqa=k_BKSD.shape[1] != q_BHTD.shape[1],
    )


@functools.cache
def _kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if device == "cuda" else flex_attention
