"""The contract of positions: add to embeddings, rotate queries and keys, or add to scores.

Positions count the tokens of a text from 0. Learned keys and the sink token have none.
Shapes: T tokens, S keys, M width, D head size, H heads.
"""

import torch
from torch import Tensor, nn

from gristmill.models.lm.config import ModelConfig

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each [T, D]."""


class Position(nn.Module):
    """Base of positions: does nothing. A child overrides one of the three."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def embed(self, x_BTM: Tensor, at_T: Tensor) -> Tensor:
        """Embeddings with positions in them."""
        del at_T
        return x_BTM

    def rotation(self, at_T: Tensor) -> Rotation | None:
        """What turns queries and keys."""
        del at_T
        return None

    def score_bias(self, queries_T: Tensor, keys_S: Tensor) -> Tensor | None:
        """What is added to scores, [H, T, S], from the positions of queries and keys."""
        del queries_T, keys_S
        return None


def rotate(x_BHTD: Tensor, rotation: Rotation) -> Tensor:
    """Turn pairs (x_i, x_{i + D/2}), the layout of LLaMA's weights in Hugging Face's format."""
    cos_TD, sin_TD = rotation
    first, second = x_BHTD.chunk(2, dim=-1)
    across_BHTD = torch.cat((-second, first), dim=-1)
    return (x_BHTD * cos_TD + across_BHTD * sin_TD).to(x_BHTD.dtype)
