"""The attention sink."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from gristmill.diagnostics._average import Average
from gristmill.diagnostics.base import Probe, Shown
from gristmill.models.lm.config import ModelConfig

EPSILON = 0.3
FIRST = 4
"""Tokens k = 1 .. 4 are reported."""
TINY = 1e-8


class AttentionSink(Probe):
    """Sink_k, the share of heads that lean on token k (arXiv:2410.10781).

    alpha_k = 1 / (T - k + 1) sum_{t = k .. T} A_{t,k} of each layer and head; Sink_k is 100 times
    the mean over layers and heads of 1[alpha_k > 0.3], averaged over 100 sequences of T = 64 tokens
    without a begin token. A sink token or learned key is one more column, `*`, which every query of
    the text sees: alpha_* is the mean over those T, and Sink_1 remains the first token's. Where
    rows of A do not sum to 1 (no softmax, or a scaled or p-normed one), A is the proxy
    |w| / (sum |w| + 1e-8).
    """

    shows: ClassVar[frozenset[Shown]] = frozenset({"attention"})
    seq_len: ClassVar[int] = 64
    num_sequences: ClassVar[int] = 100

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.exact = (config.attention, config.normalizer) == ("softmax", "sum") and (
            config.attention_row_sum == 1
        )
        self._alpha: dict[int, Average] = {}
        self._sink = Average()
        self._batch: list[Tensor] = []

    def see(self, layer: int, what: Shown, shown: Tensor) -> None:
        """Reduces a layer's matrix to a mean for each column of interest."""
        del what
        weights = shown[:, :, self.sink_token :].float()  # a sink token's own query is no text
        if not self.exact:
            weights = weights.abs()
            weights = weights / (weights.sum(-1, keepdim=True) + TINY)
        extra, length = self.extra_key, weights.shape[2]
        columns = [weights[..., 0].mean(-1)] if extra else []
        columns += [weights[:, :, k:, extra + k].mean(-1) for k in range(min(FIRST, length))]
        alpha_BHC = torch.stack(columns, dim=-1)
        self._alpha.setdefault(layer, Average()).add(alpha_BHC)
        self._batch.append((alpha_BHC > EPSILON).double().mean(1))

    def end_batch(self, losses_BT: Tensor) -> None:
        """A sequence's shares of heads, over all layers."""
        del losses_BT
        self._sink.add(100 * torch.stack(self._batch).mean(0))
        self._batch.clear()

    def result(self) -> dict[str, Any]:
        """sink_star (where there is one), sink_1 .. sink_4, standard errors, alpha_1 by head."""
        count = len(self._sink.mean)
        tokens = range(1, count + 1 - self.extra_key)
        names = ["star"] * self.extra_key + [str(k) for k in tokens]
        errors = self._sink.standard_error or [None] * count
        layers = [self._alpha[layer].mean for layer in sorted(self._alpha)]
        by_head = {"star": 0, "1": self.extra_key} if self.extra_key else {"1": 0}
        return {
            "sequences": self._sink.count,
            "proxy_scores": not self.exact,
            **{f"sink_{n}": x for n, x in zip(names, self._sink.mean, strict=True)},
            **{f"sink_{n}_standard_error": e for n, e in zip(names, errors, strict=True)},
            **{
                f"alpha_{name}": [[head[i] for head in layer] for layer in layers]
                for name, i in by_head.items()
            },
        }
