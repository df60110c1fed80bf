"""Sinusoidal absolute positions."""

import torch
from torch import Tensor

from gristmill.models.lm.positions.base import Position


class Sinusoidal(Position):
    """Adds sines and cosines to embeddings (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    Channel 2i is sin(t / 10000^(2i/d)), channel 2i + 1 its cosine.
    """

    def embed(self, x_BTM: Tensor, at_T: Tensor) -> Tensor:
        """Sum of both."""
        width = x_BTM.shape[-1]
        channel = torch.arange(width, device=at_T.device)
        rate = 10_000.0 ** (-(channel - channel % 2).to(torch.float64) / width)
        angle_TM = at_T.to(torch.float64)[:, None] * rate
        table_TM = torch.where(channel % 2 == 0, angle_TM.sin(), angle_TM.cos())
        return x_BTM + table_TM.to(x_BTM.dtype)
