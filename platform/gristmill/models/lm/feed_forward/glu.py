"""Glu feed-forward."""

from typing import ClassVar

from torch import Tensor

from gristmill.models.lm.feed_forward.base import FeedForward


class Glu(FeedForward):
    """down(sigmoid(gate x) * up x) (Shazeer 2020, arXiv:2002.05202, eq. 5)."""

    gated: ClassVar[bool] = True

    def activate(self, x: Tensor) -> Tensor:
        """Sigmoid."""
        return x.sigmoid()
