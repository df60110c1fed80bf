"""The contract of a normaliser: masked similarities in, similarities over Z_i out."""

from abc import ABC, abstractmethod

from torch import Tensor

from gristmill.models.lm.config import ModelConfig

EPSILON = 1e-8
"""Added to sums, as the released code of arXiv:2410.10781 does."""


class Normalizer(ABC):
    """Divides each row of similarities, 0 where a key is not seen, by its Z. Has no parameters."""

    def __init__(self, config: ModelConfig) -> None:
        self.p = config.normalizer_p

    @abstractmethod
    def __call__(self, sim_BHTS: Tensor) -> Tensor:
        """The rows over their Z."""
