"""Learned absolute positions."""

from torch import Tensor, nn

from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.positions.base import Position


class Learned(Position):
    """Adds a learned vector a position to embeddings (GPT-2; arXiv:2410.10781, table 5)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.context_length, config.width)

    def embed(self, x_BTM: Tensor, at_T: Tensor) -> Tensor:
        """Sum of both."""
        return x_BTM + self.table(at_T)
