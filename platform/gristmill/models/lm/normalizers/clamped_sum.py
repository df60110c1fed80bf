"""A sum of any sign, kept from 0."""

from torch import Tensor

from gristmill.models.lm.normalizers.base import Normalizer


class ClampedSum(Normalizer):
    """Z_i = max(|sum_j sim(q_i, k_j)|, 1) (arXiv:2410.10781, table 6)."""

    def __call__(self, sim_BHTS: Tensor) -> Tensor:
        """Rows whose sum lies within [-1, 1]."""
        return sim_BHTS / sim_BHTS.sum(-1, keepdim=True).abs().clamp(min=1)
