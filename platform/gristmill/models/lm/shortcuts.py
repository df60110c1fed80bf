"""Augmented shortcuts: cheap learned paths beside attention and the identity."""

import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.models.lm.config import ModelConfig


class AugmentedShortcuts(nn.Module):
    """sum_i GELU(Z D_i) U_i (PanGu-pi, arXiv:2312.17276, eq. 4 with its bottleneck form).

    The T paths lie side by side in one pair of matrices, which gives the same sum in two products.
    Not stated in the paper, so chosen: Z is what attention reads (normalised under pre-norm), there
    are no biases, and U starts at 0, so that training starts as a plain transformer.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.shortcuts * (config.width // config.shortcut_reduction)
        self.down = nn.Linear(config.width, inner, bias=False)
        self.up = nn.Linear(inner, config.width, bias=False)

    def forward(self, z_BTM: Tensor) -> Tensor:
        """The sum of all paths, [B, T, M]."""
        return self.up(F.gelu(self.down(z_BTM)))
