"""Softmax attention, with the fused kernels."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.core.errors import BadInputError
from gristmill.models.lm.attention import _flex
from gristmill.models.lm.attention.base import Attention, View, mask_of, repeat_heads
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.normalizers.base import Normalizer


class Softmax(Attention):
    """exp(q k / sqrt(d_head)) over its sum (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    Scaled softmax is attention_row_sum != 1 (arXiv:2410.10781, section 7.2). Under p_norm
    Z_i = (sum_j exp(p s_ij))^(1/p), computed in logarithms. The released code of that paper keeps
    RoPE's tables in bfloat16; ours are float32.
    """

    normalizers: ClassVar[tuple[str, ...]] = ("sum", "p_norm")

    def __init__(self, config: ModelConfig, normalizer: Normalizer) -> None:
        super().__init__(config, normalizer)
        if config.normalizer not in self.normalizers:
            raise BadInputError(
                f"softmax is not bounded under normalizer {config.normalizer}; "
                f"choose one of {', '.join(self.normalizers)}"
            )
        self.p = config.normalizer_p if config.normalizer == "p_norm" else 1.0

    def similarity(self, q_BHTD: Tensor, k_BHSD: Tensor, bias_HTS: Tensor | None) -> Tensor:
        """Exp of the scores; the paths below never form it, since it overflows."""
        return self.scores(q_BHTD, k_BHSD, bias_HTS).exp()

    def weights(self, q_BHTD: Tensor, k_BHSD: Tensor, view: View) -> Tensor:
        """Rows over the keys; they sum to a where p is 1."""
        k_BHSD = repeat_heads(k_BHSD, q_BHTD.shape[1])
        scores_BHTS = self.scores(q_BHTD, k_BHSD, view.bias_HTS)
        mask_TS = mask_of(view, scores_BHTS)
        if mask_TS is not None:
            scores_BHTS = scores_BHTS.masked_fill(~mask_TS, float("-inf"))
        log_z_BHT1 = (self.p * scores_BHTS).logsumexp(-1, keepdim=True) / self.p
        return self.row_sum * (scores_BHTS - log_z_BHT1).exp()

    def forward(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, view: View) -> Tensor:
        """The fused kernel, except under p_norm."""
        if self.p != 1:
            return super().forward(q_BHTD, k_BHSD, v_BHSD, view)
        if view.block_mask is not None:
            mask, bias_HTS = view.block_mask, view.bias_HTS
            out_BHTD = _flex.attend(
                q_BHTD, k_BHSD, v_BHSD, mask=mask, bias_HTS=bias_HTS, scale=self.scale
            )
        else:
            out_BHTD = F.scaled_dot_product_attention(
                q_BHTD,
                k_BHSD,
                v_BHSD,
                attn_mask=_kernel_mask(view, q_BHTD.dtype),
                is_causal=view.causal and view.bias_HTS is None,
                scale=self.scale,
                enable_gqa=k_BHSD.shape[1] != q_BHTD.shape[1],
            )
        return out_BHTD if self.row_sum == 1 else self.row_sum * out_BHTD


def _kernel_mask(view: View, dtype: torch.dtype) -> Tensor | None:
    if view.bias_HTS is None:
        return view.mask_TS
    mask_TS = mask_of(view, view.bias_HTS)
    bias_HTS = view.bias_HTS.to(dtype)
    return bias_HTS if mask_TS is None else bias_HTS.masked_fill(~mask_TS, float("-inf"))
