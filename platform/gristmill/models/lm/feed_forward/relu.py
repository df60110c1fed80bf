"""Relu feed-forward."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.feed_forward.base import FeedForward


class Relu(FeedForward):
    """down(relu(up x)) (Vaswani et al. 2017, arXiv:1706.03762, eq. 2)."""

    gated: ClassVar[bool] = False

    def activate(self, x: Tensor) -> Tensor:
        """ReLU."""
        return F.relu(x)
