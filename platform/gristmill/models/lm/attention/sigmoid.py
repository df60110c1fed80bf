"""Sigmoid attention."""

from torch import Tensor

from gristmill.models.lm.attention.base import Attention


class Sigmoid(Attention):
    """sigmoid(q k / sqrt(d_head)) (arXiv:2410.10781, section 7.3 and table 6).

    With normalizer unit there is no competition between keys, and no sink arises; with sum there
    is.
    """

    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """Each in (0, 1)."""
        return self.scores(q_BHTD, k_BHSD, bias_HTS).sigmoid()
