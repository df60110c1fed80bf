"""Weights over their p-norm."""

from torch import Tensor

from gristmill.models.lm.normalizers.base import EPSILON, Normalizer

TINY = 1e-30


class PNorm(Normalizer):
    """Z_i = (sum_j |sim(q_i, k_j)|^p)^(1/p) + 1e-8 (arXiv:2410.10781, p-normalised attention).

    Row by row divided by the largest first, so that no power overflows. p = 1 is the sum, for
    similarities over 0.
    """

    def __call__(self, sim_BHTS: Tensor) -> Tensor:
        """Rows whose p-norm is 1."""
        size_BHTS = sim_BHTS.abs()
        most_BHT1 = size_BHTS.amax(-1, keepdim=True).detach().clamp(min=TINY)
        # A power below 1 has no finite gradient at 0, which keys that are not seen are.
        seen_BHTS = size_BHTS > 0
        parts_BHTS = (size_BHTS / most_BHT1).where(seen_BHTS, 1).pow(self.p).where(seen_BHTS, 0)
        total_BHT1 = parts_BHTS.sum(-1, keepdim=True)
        total_BHT1 = total_BHT1 + (total_BHT1 == 0)  # a row of zeros; clamp has no gradient at 1
        return sim_BHTS / (most_BHT1 * total_BHT1.pow(1 / self.p) + EPSILON)
