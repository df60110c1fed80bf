"""The contract of an attention operation (When Attention Sink Emerges, arXiv:2410.10781, eq. 7).

    o_i = a / Z_i sum_j sim(q_i, k_j) v_j

A child gives `sim`; the normaliser gives Z_i, the view which j query i sees. Softmax, which has
fused kernels, overrides the rest.

Shapes: B batch, H query heads, T queries, S keys, D head size.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from gristmill.core.errors import BadInputError
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.normalizers.base import Normalizer


@dataclass(frozen=True)
class View:
    """What queries see of the keys, the same for every layer and sequence of a forward pass."""

    causal: bool
    """Queries and keys are the same tokens, each seeing itself and all before; `mask_TS` would say
    no more. Lets a fused kernel go without a mask."""
    mask_TS: Tensor | None
    """True where a query sees a key; None while `causal` says it all, or every key is seen."""
    bias_HTS: Tensor | None
    """Added to the scores before the similarity, such as ALiBi's."""
    block_mask: Any = None
    """The same for FlexAttention, where softmax should use it."""


class Attention(nn.Module, ABC):
    """Base of attention operations. Keys and values come with as many heads as queries or fewer."""

    takes_score_bias: ClassVar[bool] = True
    """Whether q k^T exists before the similarity, so that a position may add to it."""

    def __init__(self, config: ModelConfig, normalizer: Normalizer) -> None:
        super().__init__()
        self.row_sum = config.attention_row_sum
        self.scale = 1 / math.sqrt(config.head_size)
        self.normalizer = normalizer
        if not self.takes_score_bias and config.positions in ("alibi", "t5_relative"):
            raise BadInputError(
                f"positions {config.positions} add to attention scores, and attention "
                f"{config.attention} has none before its product; choose rope, learned, "
                "sinusoidal or none"
            )

    @abstractmethod
    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """sim(q_i, k_j) for all i and j, [B, H, T, S], neither masked nor normalised."""

    def weights(self, q_BHTD: Tensor, k_BHSD: Tensor, view: View) -> Tensor:
        """What values are summed with, [B, H, T, S]; exactly 0 where a query does not see."""
        k_BHSD = repeat_heads(k_BHSD, q_BHTD.shape[1])
        sim_BHTS = self.similarity(q_BHTD, k_BHSD, view.bias_HTS)
        mask_TS = mask_of(view, sim_BHTS)
        if mask_TS is not None:
            sim_BHTS = sim_BHTS.masked_fill(~mask_TS, 0)
        return self.row_sum * self.normalizer(sim_BHTS)

    def forward(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, view: View) -> Tensor:
        """The outputs o, [B, H, T, D]."""
        return self.weights(q_BHTD, k_BHSD, view) @ repeat_heads(v_BHSD, q_BHTD.shape[1])

    def scores(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """q k^T / sqrt(d_head), plus what positions add."""
        scores_BHTS = (q_BHTD * self.scale) @ k_BHSD.transpose(-1, -2)
        return scores_BHTS if bias_HTS is None else scores_BHTS + bias_HTS


def repeat_heads(x_BKSD: Tensor, num_heads: int) -> Tensor:
    """Key or value heads, each repeated for the queries that share it."""
    times = num_heads // x_BKSD.shape[1]
    return x_BKSD if times == 1 else x_BKSD.repeat_interleave(times, dim=1)


def mask_of(view: View, like_BHTS: Tensor) -> Tensor | None:
    """The view's mask as a tensor, made where `causal` stands for it."""
    if not view.causal:
        return view.mask_TS
    size = like_BHTS.shape[-2:]
    return like_BHTS.new_ones(size).tril().bool()
