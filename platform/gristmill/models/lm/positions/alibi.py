"""ALiBi."""

import torch
from torch import Tensor

from gristmill.models.lm.positions.base import Position


class Alibi(Position):
    """Adds -slope_h (i - j) to scores (Press et al. 2021, arXiv:2108.12409, section 3).

    slope_h = 2^(-8 h / H) for heads h = 1 .. H: 2^-h for 8 heads, the one case of arXiv:2410.10781.
    That paper's code for other H interpolates between powers of two; ours needs no such case.
    """

    def score_bias(self, queries_T: Tensor, keys_S: Tensor) -> Tensor:
        """At most 0 for keys before the query; a prefix's keys after it get 0."""
        num = self.config.num_heads
        heads_H = torch.arange(1, num + 1, device=queries_T.device, dtype=torch.float64)
        slopes_H11 = 2.0 ** (-8 * heads_H / num)[:, None, None]
        distance_TS = (queries_T[:, None] - keys_S[None, :]).clamp(min=0)
        return -slopes_H11 * distance_TS
