"""Effective dimension."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from gristmill.diagnostics.base import Probe, Shown
from gristmill.models.lm.config import ModelConfig

SHARE = 0.8
SKIPPED = 1
"""First tokens left out: one massive activation would be most of the variance."""


class EffectiveDimension(Probe):
    """d(0.8): the fewest principal components that explain 0.8 of the variance of token features.

    PanGu-pi (arXiv:2312.17276), of each layer's output, over all
    tokens of all sequences but each one's first, which the paper's pictures leave out too. Keeps
    an M x M sum for each layer in float64 and no features. It cannot exceed the tokens less one.
    """

    shows: ClassVar[frozenset[Shown]] = frozenset({"hidden"})

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._sums: dict[int, Tensor] = {}
        self._products: dict[int, Tensor] = {}
        self._tokens = 0

    def see(self, layer: int, what: Shown, shown: Tensor) -> None:
        """Adds a layer's features and their products."""
        del what
        if layer == 0:  # the embedding is no layer's output
            return
        features_NM = shown[:, self.sink_token + SKIPPED :].double().flatten(0, 1)
        if layer not in self._sums:
            size = features_NM.shape[1]
            self._sums[layer] = features_NM.new_zeros(size)
            self._products[layer] = features_NM.new_zeros(size, size)
        self._sums[layer] += features_NM.sum(0)
        self._products[layer].addmm_(features_NM.T, features_NM)

    def end_batch(self, losses_BT: Tensor) -> None:
        """Counts the tokens."""
        self._tokens += losses_BT[:, SKIPPED:].numel()

    def result(self) -> dict[str, Any]:
        """d_0.8 by layer, and the tokens it rests on."""
        found = [self._dimension(layer) for layer in sorted(self._sums)]
        return {
            "tokens": self._tokens,
            "width": self.config.width,
            f"d_{SHARE}": found,
            "mean": sum(found) / len(found),
        }

    def _dimension(self, layer: int) -> int:
        mean = self._sums[layer] / self._tokens
        covariance = self._products[layer] / self._tokens - torch.outer(mean, mean)
        spread = torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0)
        explained = spread.cumsum(0) / spread.sum()
        return int((explained < SHARE).sum()) + 1
