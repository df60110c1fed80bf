"""A Gristmill decoder as a model of transformers. Needs: pip install 'gristmill[lm]'."""

from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from gristmill.core.config import from_dict

from .configuration_gristmill import GristmillConfig


class GristmillForCausalLM(PreTrainedModel, GenerationMixin):
    """Logits, and the mean cross entropy of `labels` shifted by one. Generates without a cache.

    Texts of a batch must be of one length: there is no padding mask.
    """

    config_class = GristmillConfig
    base_model_prefix = "decoder"
    _supports_cache_class = False

    def __init__(self, config: GristmillConfig) -> None:
        super().__init__(config)
        from gristmill.models.lm.decoder import Decoder

        model_config = from_dict(config.gristmill)
        self.decoder = Decoder(model_config)
        if model_config.tied:
            self._tied_weights_keys = {"decoder.head.weight": "decoder.embedding.weight"}
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Weights always come from the file."""

    def get_input_embeddings(self) -> torch.nn.Module:
        """The embedding."""
        return self.decoder.embedding

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_kwargs: Any
    ) -> dict[str, Any]:
        """The whole text so far, at each step; the mask, so that a padded one is refused."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_kwargs: Any,
    ) -> CausalLMOutput:
        """Logits of every token."""
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("padding is not supported; give texts of one length")
        logits = self.decoder(input_ids)
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
            )
        return CausalLMOutput(loss=loss, logits=logits)
