"""The linear transformer's kernel."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gristmill.models.lm.attention.base import Attention


class EluKernel(Attention):
    """(elu(q) + 1) (elu(k) + 1) / sqrt(d_head) (Katharopoulos et al. 2020, arXiv:2006.16236, eq. 7;
    arXiv:2410.10781, table 6). Computed with all T x S weights, as the probes of it need.
    """

    takes_score_bias: ClassVar[bool] = False

    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """Each over 0; there is no score that a bias could be added to."""
        assert bias_HTS is None
        return self.scores(F.elu(q_BHTD) + 1, F.elu(k_BHSD) + 1, None)
