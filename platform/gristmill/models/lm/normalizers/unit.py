"""No normalisation."""

from torch import Tensor

from gristmill.models.lm.normalizers.base import Normalizer


class Unit(Normalizer):
    """Z_i = 1 (arXiv:2410.10781, section 7.3)."""

    def __call__(self, sim_BHTS: Tensor) -> Tensor:
        """The rows as they are."""
        return sim_BHTS
