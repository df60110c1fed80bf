"""Swish feed-forward."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.feed_forward.base import FeedForward


class Swish(FeedForward):
    """down(silu(up x)) (Ramachandran et al. 2017, arXiv:1710.05941)."""

    gated: ClassVar[bool] = False

    def activate(self, x: Tensor) -> Tensor:
        """SiLU."""
        return F.silu(x)

    def activate_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """In one pass over memory."""
        return torch.ops.aten.silu_backward(grad, x)
