"""A learned kernel."""

from typing import ClassVar

from torch import Tensor, nn

from gristmill.models.lm.attention.base import Attention
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.normalizers.base import Normalizer


class Mlp(Attention):
    """mlp(q) mlp(k) / sqrt(d_head) (arXiv:2410.10781, table 6).

    mlp is Linear, ReLU, Linear at head size without biases, the same for queries, keys and all
    heads of a layer, after RoPE as in the released code.
    """

    takes_score_bias: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        size = config.head_size
        self.kernel = nn.Sequential(
            nn.Linear(size, size, bias=False), nn.ReLU(), nn.Linear(size, size, bias=False)
        )

    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """Of any sign; there is no score that a bias could be added to."""
        assert bias_HTS is None
        return self.scores(self.kernel(q_BHTD), self.kernel(k_BHSD), None)
