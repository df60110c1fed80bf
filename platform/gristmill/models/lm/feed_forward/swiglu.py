"""SwiGlu feed-forward."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.feed_forward.base import FeedForward


class SwiGlu(FeedForward):
    """down(silu(gate x) * up x) (Shazeer 2020, arXiv:2002.05202, eq. 6), LLaMA's kind."""

    gated: ClassVar[bool] = True

    def activate(self, x: Tensor) -> Tensor:
        """SiLU."""
        return F.silu(x)

    def activate_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """In one pass over memory."""
        return torch.ops.aten.silu_backward(grad, x)
