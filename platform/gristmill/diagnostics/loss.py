"""The loss, and where in a sequence it falls."""

from typing import Any

import torch
from torch import Tensor

from gristmill.diagnostics._average import Average
from gristmill.diagnostics.base import Probe
from gristmill.models.lm.config import ModelConfig


class Loss(Probe):
    """Nats a token, -log p(x_t | x_<t), and the same by place in the sequence.

    The curve over places (Kaplan et al. 2020, arXiv:2001.08361, its context dependence): the mean
    at places 1, 2, 3-4, 5-8 and so on. Standard errors are over sequences. A prefix LM is
    scored from the first token that its prefix does not show.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._whole, self._places = Average(), Average()
        self._edges: list[int] = []

    def end_batch(self, losses_BT: Tensor) -> None:
        """Adds each sequence's mean, and its mean over each span of places."""
        losses_BT = losses_BT[:, self.config.hidden_targets :].double()
        length, self._edges = losses_BT.shape[1], [0]
        while (last := self._edges[-1]) < length:
            self._edges.append(min(max(2 * last, 1), length))
        spans = zip(self._edges[:-1], self._edges[1:], strict=True)
        self._whole.add(losses_BT.mean(1))
        self._places.add(torch.stack([losses_BT[:, a:b].mean(1) for a, b in spans], dim=1))

    def result(self) -> dict[str, Any]:
        """nats_per_token, its standard_error, and the curve: last place of each span, nats."""
        return {
            "sequences": self._whole.count,
            "nats_per_token": self._whole.mean,
            "standard_error": self._whole.standard_error,
            "up_to_place": self._edges[1:],
            "nats_by_place": self._places.mean,
        }
