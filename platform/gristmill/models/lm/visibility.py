"""Which keys a query sees: causal, sliding window, prefix, and learned columns before the text.

A place is a token's position in its text from 0, or BEFORE for what stands before every text: a
sink token or a learned key, which everything sees and no position touches.
"""

import functools
from typing import Literal

import torch
from torch import Tensor

from gristmill.models.lm.attention import _flex
from gristmill.models.lm.attention.base import View
from gristmill.models.lm.config import AttentionKernel, ModelConfig
from gristmill.models.lm.positions.base import Position

BEFORE = -1
Kernel = Literal["sdpa", "flex"]
FLEX_LEAST_HEAD = 16
"""Its products are of tiles that large."""


def places(start: int, stop: int, *, before: bool, device: torch.device) -> Tensor:
    """Positions start .. stop - 1, after one BEFORE if asked."""
    if not before:
        return torch.arange(start, stop, device=device)
    text = torch.arange(start - 1, stop, device=device)
    return torch.where(text < start, BEFORE, text)


def sees(config: ModelConfig, query: Tensor, key: Tensor) -> Tensor:
    """Whether the query at a place sees the key at another; broadcasts."""
    seen = key <= query
    if config.window:
        seen = seen & (key > query - config.window)
    if config.prefix:
        seen = seen | (key < config.prefix) & (query != BEFORE)
    return seen | (key == BEFORE)


def kernel_for(
    config: ModelConfig, wanted: AttentionKernel, *, device: str, cached: bool
) -> Kernel:
    """What computes softmax attention with a window, a prefix, a learned column or ALiBi.

    By itself FlexAttention on GPUs, which skips the blocks of scores that a mask leaves out, where
    the fused kernel works on all T x S. Not for a cache, whose every new length it would compile
    anew; not for T5's scores, whose table learns; nor for heads too small for it.

    Args:
        config: The model.
        wanted: auto, or what to use wherever the operation knows it.
        device: Where the tokens are.
        cached: Whether keys of earlier tokens are kept.
    """
    if wanted != "auto":
        return wanted
    plain = config.attention == "softmax" and config.normalizer == "sum"
    fits = plain and config.positions != "t5_relative" and config.head_size >= FLEX_LEAST_HEAD
    return "flex" if device == "cuda" and fits and not cached else "sdpa"


def view_of(
    config: ModelConfig,
    position: Position,
    queries_T: Tensor,
    keys_S: Tensor,
    *,
    same: bool,
    dtype: torch.dtype,
    kernel: Kernel = "sdpa",
) -> View:
    """The view of a forward pass.

    Args:
        config: Window and prefix.
        position: Adds to scores, or not.
        queries_T: Places of the queries.
        keys_S: Places of the keys.
        same: Whether queries and keys are the same tokens.
        dtype: Of the scores.
        kernel: What computes a softmax that is not plainly causal.
    """
    bias_HTS = position.score_bias(queries_T.clamp(min=0), keys_S.clamp(min=0))
    if bias_HTS is not None:
        outside_TS = (queries_T == BEFORE)[:, None] | (keys_S == BEFORE)[None, :]
        bias_HTS = bias_HTS.masked_fill(outside_TS, 0).to(dtype)
    windowed = 0 < config.window < keys_S.shape[0]
    plain = not windowed and config.prefix <= 1
    if plain and queries_T.shape[0] == 1 and keys_S.shape[0] > 1:  # it sees all before it
        return View(causal=False, mask_TS=None, bias_HTS=bias_HTS)
    causal = plain and same
    if causal and bias_HTS is None:
        return View(causal=True, mask_TS=None, bias_HTS=None)
    blocks = None
    if kernel == "flex":
        blocks = _flex.block_mask(functools.partial(sees, config), queries_T, keys_S)
    mask_TS = None if causal else sees(config, queries_T[:, None], keys_S[None, :])
    return View(causal=causal, mask_TS=mask_TS, bias_HTS=bias_HTS, block_mask=blocks)
