"""The attention layer: projections, rotation, cache and learned columns around an operation.

Shapes: B batch, T new tokens, S keys, M width, H query heads, K key-value heads, D head size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gristmill.core import plugins
from gristmill.models.lm.attention.base import Attention, View
from gristmill.models.lm.cache import KvCache
from gristmill.models.lm.config import PACKAGE, ModelConfig
from gristmill.models.lm.normalizers.base import Normalizer
from gristmill.models.lm.positions.base import Rotation, rotate

Watch = Callable[[int, str, Tensor], None]
"""Called with a layer's index, what is shown, and it. Costs the fused kernels; for probes."""


@dataclass(frozen=True)
class Pass:
    """What all layers share in one forward pass."""

    view: View
    rotation: Rotation | None
    cache: KvCache | None = None
    watch: Watch | None = None


class SelfAttention(nn.Module):
    """Concat_h(o_h) W_o, with o of the configured operation."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_size = layer, config.head_size
        inner, kv_inner = config.num_heads * self.head_size, config.kv_heads * self.head_size
        self.q = nn.Linear(config.width, inner, bias=False)
        self.k = nn.Linear(config.width, kv_inner, bias=False)
        self.v = nn.Linear(config.width, kv_inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)
        normalizer = plugins.find(f"{PACKAGE}.normalizers", config.normalizer, Normalizer)(config)
        operation = plugins.find(f"{PACKAGE}.attention", config.attention, Attention)
        self.operation: Attention = operation(config, normalizer)
        learned = config.attention_bias in ("k", "v", "kv")
        self.bias = AttentionBias(config) if learned else None

    def forward(self, x_BTM: Tensor, now: Pass) -> Tensor:
        """The layer's output, [B, T, M]."""
        q_BHTD, k_BKTD, v_BKTD = (
            part(x_BTM).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        if now.rotation is not None:
            q_BHTD, k_BKTD = rotate(q_BHTD, now.rotation), rotate(k_BKTD, now.rotation)
        k_BKSD, v_BKSD = k_BKTD, v_BKTD
        if now.cache is not None:
            k_BKSD, v_BKSD = now.cache.append(self.layer, k_BKTD, v_BKTD)
        if self.bias is not None:
            k_BKSD, v_BKSD = self.bias.columns(k_BKSD, v_BKSD)
        if now.watch is not None:
            now.watch(self.layer, "keys", k_BKSD)
            now.watch(self.layer, "values", v_BKSD)
            now.watch(self.layer, "attention", self.operation.weights(q_BHTD, k_BKSD, now.view))
        out_BHTD = self.operation(q_BHTD, k_BKSD, v_BKSD, now.view)
        if self.bias is not None:
            out_BHTD = self.bias.add(out_BHTD)
        return self.out(out_BHTD.transpose(1, 2).flatten(2))


class AttentionBias(nn.Module):
    """A learned key, value or both before every text (arXiv:2410.10781, section 7.1).

    kv: softmax(q [k*, K]) [v*, V]; k: the same with v* = 0; v: v* is added to the output. Every
    query sees it, and it is not rotated. By head of keys and values, or one for all heads.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.attention_bias
        self.num_heads, self.kv_heads = config.num_heads, config.kv_heads
        rows = config.kv_heads if config.attention_bias_by == "head" else 1
        if "k" in self.kind:
            self.key_KD = nn.Parameter(torch.empty(rows, config.head_size))
        if "v" in self.kind:
            self.value_KD = nn.Parameter(torch.empty(rows, config.head_size))

    def columns(self, k_BKSD: Tensor, v_BKSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with the learned column before them, where there is a learned key."""
        if self.kind == "v":
            return k_BKSD, v_BKSD
        key = _column(self.key_KD, k_BKSD)
        value = _column(self.value_KD, v_BKSD) if self.kind == "kv" else torch.zeros_like(key)
        return torch.cat((key, k_BKSD), dim=2), torch.cat((value, v_BKSD), dim=2)

    def add(self, out_BHTD: Tensor) -> Tensor:
        """The output with a learned value that has no key added to it."""
        if self.kind != "v":
            return out_BHTD
        value_KD = self.value_KD.expand(self.kv_heads, -1)
        value_HD = value_KD.repeat_interleave(self.num_heads // self.kv_heads, dim=0)
        return out_BHTD + value_HD[:, None, :].to(out_BHTD.dtype)


def _column(row_KD: Tensor, like_BKSD: Tensor) -> Tensor:
    batch, heads, _, size = like_BKSD.shape
    return row_KD.to(like_BKSD.dtype)[None, :, None, :].expand(batch, heads, 1, size)
