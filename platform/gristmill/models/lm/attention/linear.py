"""The scores themselves as weights."""

from torch import Tensor

from gristmill.models.lm.attention.base import Attention


class Linear(Attention):
    """q k / sqrt(d_head), of any sign (arXiv:2410.10781, table 6): no sink with normalizer unit."""

    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """Of any sign."""
        return self.scores(q_BHTD, k_BHSD, bias_HTS)
