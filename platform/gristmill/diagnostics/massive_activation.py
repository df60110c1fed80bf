"""Massive activations."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from gristmill.diagnostics._average import Average
from gristmill.diagnostics.base import Probe, Shown
from gristmill.models.lm.config import ModelConfig


class MassiveActivation(Probe):
    """||h_1||_2 over the mean of ||h_t||_2, t > 1, of each layer (arXiv:2410.10781).

    The same of keys and of values, whose norms are small where a token is a sink; a mean over
    heads. A sink token or learned key has a ratio of its own, `star`, over the same mean. The mean
    over sequences of each sequence's ratio; on the sequences of the attention sink.
    """

    shows: ClassVar[frozenset[Shown]] = frozenset({"hidden", "keys", "values"})
    seq_len: ClassVar[int] = 64
    num_sequences: ClassVar[int] = 100

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._ratios: dict[tuple[str, int], Average] = {}
        self._count = 0

    def see(self, layer: int, what: Shown, shown: Tensor) -> None:
        """The ratios of a layer."""
        before = self.sink_token if what == "hidden" else self.extra_key
        norms = torch.linalg.vector_norm(shown.float(), dim=-1)  # [B, T] or [B, K, S]
        text = norms[..., before:]
        rest = text[..., 1:].mean(-1)
        self._add(what, layer, text[..., 0] / rest)
        if before:
            self._add(f"{what}_star", layer, norms[..., 0] / rest)

    def _add(self, name: str, layer: int, ratio: Tensor) -> None:
        by_sequence = ratio if ratio.ndim == 1 else ratio.mean(1)
        self._ratios.setdefault((name, layer), Average()).add(by_sequence)

    def end_batch(self, losses_BT: Tensor) -> None:
        """Counts the sequences."""
        self._count += len(losses_BT)

    def result(self) -> dict[str, Any]:
        """Lists by layer: hidden (from the first block's input on), keys, values, and _star."""
        names = sorted({name for name, _ in self._ratios})
        by_layer = {
            name: [a.mean for (other, _), a in sorted(self._ratios.items()) if other == name]
            for name in names
        }
        return {"sequences": self._count, **by_layer, "largest_hidden": max(by_layer["hidden"])}
