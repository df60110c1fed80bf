"""Feature diversity."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from gristmill.diagnostics._average import Average
from gristmill.diagnostics.base import Probe, Shown
from gristmill.models.lm.config import ModelConfig


class FeatureDiversity(Probe):
    """d_M(H) = ||(I - e e^T) H||_F with e = 1 / sqrt(N) (PanGu-pi, arXiv:2312.17276).

    How far the N token features of a sequence are from all being equal: subtract their mean, take
    the Frobenius norm. `share` is d_M(H) / ||H||_F, which a growing norm does not raise. Means over
    sequences, from the first block's input on.
    """

    shows: ClassVar[frozenset[Shown]] = frozenset({"hidden"})

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._diversity: dict[int, Average] = {}
        self._share: dict[int, Average] = {}
        self._count = 0

    def see(self, layer: int, what: Shown, shown: Tensor) -> None:
        """Each sequence's value at a layer."""
        del what
        features_BTM = shown[:, self.sink_token :].float()
        apart_BTM = features_BTM - features_BTM.mean(1, keepdim=True)
        diversity_B = torch.linalg.vector_norm(apart_BTM, dim=(1, 2))
        whole_B = torch.linalg.vector_norm(features_BTM, dim=(1, 2))
        self._diversity.setdefault(layer, Average()).add(diversity_B)
        self._share.setdefault(layer, Average()).add(diversity_B / whole_B)

    def end_batch(self, losses_BT: Tensor) -> None:
        """Counts the sequences."""
        self._count += len(losses_BT)

    def result(self) -> dict[str, Any]:
        """diversity and share by layer."""
        return {
            "sequences": self._count,
            "diversity": [self._diversity[layer].mean for layer in sorted(self._diversity)],
            "share": [self._share[layer].mean for layer in sorted(self._share)],
        }
