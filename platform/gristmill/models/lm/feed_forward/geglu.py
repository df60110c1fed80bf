"""GeGlu feed-forward."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.feed_forward.base import FeedForward


class GeGlu(FeedForward):
    """down(gelu(gate x) * up x) (Shazeer 2020, arXiv:2002.05202, eq. 6)."""

    gated: ClassVar[bool] = True

    def activate(self, x: Tensor) -> Tensor:
        """GELU, with the error function."""
        return F.gelu(x)
