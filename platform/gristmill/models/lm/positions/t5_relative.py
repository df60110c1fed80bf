"""T5's relative positions."""

import math

import torch
from torch import Tensor, nn

from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.positions.base import Position

NUM_BUCKETS = 32
MAX_DISTANCE = 128


class T5Relative(Position):
    """Adds a learned number for the head and the bucket of i - j (T5, arXiv:1910.10683, 2.1).

    32 buckets, the first 16 of one distance each, the others of distances growing by a factor up to
    128; shared by all layers. The code of arXiv:2410.10781 adds the bucket's index itself.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(NUM_BUCKETS, config.num_heads)

    def score_bias(self, queries_T: Tensor, keys_S: Tensor) -> Tensor:
        """By bucket and head; keys after the query, as a prefix has, count as distance 0."""
        distance_TS = (queries_T[:, None] - keys_S[None, :]).clamp(min=0)
        return self.table(_buckets(distance_TS)).permute(2, 0, 1)


def _buckets(distance_TS: Tensor) -> Tensor:
    exact = NUM_BUCKETS // 2
    ratio = (distance_TS.clamp(min=1).to(torch.float64) / exact).log() / math.log(
        MAX_DISTANCE / exact
    )
    far_TS = (exact + (ratio * (NUM_BUCKETS - exact)).long()).clamp(max=NUM_BUCKETS - 1)
    return torch.where(distance_TS < exact, distance_TS, far_TS)
