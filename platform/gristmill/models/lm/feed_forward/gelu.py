"""Gelu feed-forward."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.feed_forward.base import FeedForward


class Gelu(FeedForward):
    """down(gelu(up x)) (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""

    gated: ClassVar[bool] = False

    def activate(self, x: Tensor) -> Tensor:
        """GELU, with the error function."""
        return F.gelu(x)
