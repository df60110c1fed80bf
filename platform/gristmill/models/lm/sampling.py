"""Text from a model, one token after another, with a cache of keys and values.

Shapes: B texts, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gristmill.core.errors import BadInputError
from gristmill.models.lm.cache import KvCache
from gristmill.models.lm.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int = 0
    """Choose among the k likeliest; 0: all."""
    top_p: float = 1.0
    """Choose among the fewest likeliest that together reach this probability."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise BadInputError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k < 0:
            raise BadInputError(f"top_k must be 0 or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise BadInputError(f"top_p must lie in (0, 1], not {self.top_p}")


@torch.no_grad()
def generate(
    model: Decoder,
    prompt_BT: Tensor,
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    stop_token: int = -1,
) -> Tensor:
    """Continue prompts of one length.

    Args:
        model: In eval mode.
        prompt_BT: Token ids, at least one each.
        max_new_tokens: Most tokens to add.
        sampling: How to choose; by default from the model's distribution as it is.
        seed: Of the choice; the same on every device up to its rounding.
        stop_token: A text ends with this token and repeats it to the end; -1 for none.

    Returns:
        Prompt and continuation, [B, T + up to max_new_tokens].

    Raises:
        BadInputError: The prompt is empty, or holds ids outside the vocabulary.
    """
    _check_prompt(model, prompt_BT, max_new_tokens)
    how, room = sampling or Sampling(), prompt_BT.shape[1] + max_new_tokens
    cache = KvCache(max_tokens=room)
    generator = torch.Generator().manual_seed(seed)
    tokens_BT, new_BT = prompt_BT, prompt_BT
    ended_B1 = torch.zeros_like(prompt_BT[:, :1], dtype=torch.bool)
    for _ in range(max_new_tokens):
        hidden_BTM = model.hidden(new_BT, cache=cache)
        next_B1 = choose(model.head(hidden_BTM[:, -1]), how, generator)
        next_B1 = torch.where(ended_B1, stop_token, next_B1)
        tokens_BT, new_BT = torch.cat((tokens_BT, next_B1), dim=1), next_B1
        ended_B1 |= next_B1 == stop_token
        if bool(ended_B1.all()):
            break
    return tokens_BT


def _check_prompt(model: Decoder, prompt_BT: Tensor, max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise BadInputError(f"max_new_tokens must be 1 or more, not {max_new_tokens}")
    if not prompt_BT.numel():
        raise BadInputError("the prompt is empty; give at least one token")
    low, high = int(prompt_BT.min()), int(prompt_BT.max())
    if low < 0 or high >= model.config.vocab_size:
        raise BadInputError(
            f"the prompt has token ids {low} to {high}, the model a vocabulary of "
            f"{model.config.vocab_size}; is the tokenizer another model's?"
        )


def choose(logits_BV: Tensor, how: Sampling, generator: torch.Generator) -> Tensor:
    """The next token of each text, [B, 1], on the logits' device."""
    if how.temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    # Sorted, so that top_k and top_p are cuts; drawn on the CPU, whose generator is portable.
    scaled = (logits_BV.to("cpu", torch.float64) / how.temperature).sort(-1, descending=True)
    probs_BV = scaled.values.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    kept_BV = before_BV < how.top_p
    if how.top_k:
        kept_BV[:, how.top_k :] = False
    drawn_B1 = torch.multinomial(probs_BV * kept_BV, 1, generator=generator)
    return scaled.indices.gather(-1, drawn_B1).to(logits_BV.device)
