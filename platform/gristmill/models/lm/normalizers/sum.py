"""Weights over their sum."""

from torch import Tensor

from gristmill.models.lm.normalizers.base import EPSILON, Normalizer


class Sum(Normalizer):
    """Z_i = sum_j sim(q_i, k_j) (arXiv:2410.10781, eq. 7), plus 1e-8 as in the released code."""

    def __call__(self, sim_BHTS: Tensor) -> Tensor:
        """Rows that sum to 1, for similarities over 0."""
        return sim_BHTS / (sim_BHTS.sum(-1, keepdim=True) + EPSILON)
