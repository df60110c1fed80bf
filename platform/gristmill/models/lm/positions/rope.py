"""Rotary positions."""

import torch
from torch import Tensor

from gristmill.models.lm.positions.base import Position, Rotation


class Rope(Position):
    """Turns channel pairs of queries and keys by m theta^(-2i/d) (arXiv:2104.09864, eq. 15).

    Pairs are (i, i + d/2), not (2i, 2i + 1): the same up to an order of channels.
    """

    def rotation(self, at_T: Tensor) -> Rotation:
        """Tables in float64; the decoder rounds them once, to float32 unless it is wider itself."""
        size = self.config.head_size
        exponent = torch.arange(0, size, 2, device=at_T.device, dtype=torch.float64) / size
        angle = at_T.to(torch.float64)[:, None] * self.config.rope_theta**-exponent
        angle_TD = torch.cat((angle, angle), dim=-1)
        return angle_TD.cos(), angle_TD.sin()
