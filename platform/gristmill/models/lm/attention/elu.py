"""ELU plus one of the scores."""

import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.attention.base import Attention


class Elu(Attention):
    """elu(q k / sqrt(d_head)) + 1 (arXiv:2410.10781, table 6). With sum, training fails there."""

    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """Each over 0."""
        return F.elu(self.scores(q_BHTD, k_BHSD, bias_HTS)) + 1
