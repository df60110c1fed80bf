"""Our decoder as a model of lm-evaluation-harness. Importing this needs lm_eval.

Scores what the harness's own Hugging Face model scores: the same windows, the same prefix token,
the same cut from the left, so that log-likelihoods of the same weights are equal.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from torch import Tensor

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.progress import Progress
from gristmill.evaluation.lm.subject import Precision, autocast
from gristmill.models.lm.cache import KvCache
from gristmill.models.lm.decoder import Decoder
from gristmill.models.lm.generate import end_of_text, read_tokenizer
from gristmill.models.lm.sampling import Sampling, choose

MAX_NEW_TOKENS = 256
"""The harness's default."""
Scored = tuple[float, bool]
"""Log-likelihood, and whether every token was the likeliest."""


class HarnessModel(TemplateLM):
    """loglikelihood, loglikelihood_rolling and generate_until (Gao et al., lm-evaluation-harness).

    Tokens that a template of the tokenizer adds are added, as its Hugging Face model does.
    """

    def __init__(
        self, model: Decoder, tokenizer: str, *, batch_size: int, precision: Precision
    ) -> None:
        super().__init__()
        self._model, self._batch_size, self._precision = model, batch_size, precision
        self._ids = read_tokenizer(tokenizer)
        self._ids.no_truncation()
        self._ids.no_padding()
        self._device = model.embedding.weight.device
        self._end = end_of_text(self._ids)
        self.max_length = model.config.context_length
        if self._end < 0:
            raise BadInputError(
                f"{io.redact(tokenizer)} has no token that ends a text, which tasks begin with"
            )

    @property
    def eot_token_id(self) -> int:
        """Ends a text, and stands before one that has no context."""
        return self._end

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text."""
        del kwargs
        return list(
            self._ids.encode(string, add_special_tokens=add_special_tokens is not False).ids
        )

    # -- log-likelihoods -----------------------------------------------------------------------

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[Scored]:
        """Score continuations; requests that read the same tokens share a pass."""
        del disable_tqdm, kwargs
        by_input: dict[tuple[int, ...], list[int]] = {}
        for number, (_, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise BadInputError(
                    f"a continuation of {len(continuation)} tokens is more than the model's "
                    f"context of {self.max_length}"
                )
            tokens = (context + continuation)[-(self.max_length + 1) :][:-1]
            by_input.setdefault(tuple(tokens), []).append(number)
        inputs = sorted(by_input, key=lambda row: (-len(row), row))
        found: dict[int, Scored] = {}
        with Progress("tasks: log-likelihoods", len(requests), "requests") as progress:
            for first in range(0, len(inputs), self._batch_size):
                batch = inputs[first : first + self._batch_size]
                for row, hidden_TM in zip(batch, self._hidden(batch), strict=True):
                    for number in by_input[row]:
                        continuation = requests[number][2]
                        found[number] = self._score(hidden_TM[: len(row)], continuation)
                        progress.advance(1)
        return [found[number] for number in range(len(requests))]

    def _hidden(self, batch: Sequence[tuple[int, ...]]) -> Tensor:
        """Last hidden states, [B, T, M], padded on the right, where no earlier token looks."""
        length = max(map(len, batch))
        rows = [[*tokens, *[self._end] * (length - len(tokens))] for tokens in batch]
        tokens_BT = torch.tensor(rows, device=self._device)
        with torch.no_grad(), autocast(self._device.type, self._precision):
            return self._model.hidden(tokens_BT)

    def _score(self, hidden_TM: Tensor, continuation: list[int]) -> Scored:
        """Only the continuation's logits are made."""
        with torch.no_grad(), autocast(self._device.type, self._precision):
            logits_CV = self._model.head(hidden_TM[-len(continuation) :]).float()
        wanted_C = torch.tensor(continuation, device=self._device)
        log_probs_C = logits_CV.log_softmax(-1).gather(-1, wanted_C[:, None])
        return float(log_probs_C.double().sum()), bool((logits_CV.argmax(-1) == wanted_C).all())

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows that do not overlap."""
        del disable_tqdm
        windows: list[tuple[Any, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            pieces = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(utils.make_disjoint_window, pieces):
                windows.append((None, context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (score, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += score
        return totals

    # -- generation ----------------------------------------------------------------------------

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Texts that continue contexts, cut before the first stop string."""
        del disable_tqdm
        texts = []
        with Progress("tasks: texts", len(requests), "texts") as progress:
            for request in requests:
                context, settings = request.args
                texts.append(self._continue(context, dict(settings)))
                progress.advance(1)
        return texts

    def _continue(self, context: str, settings: dict[str, Any]) -> str:
        settings = normalize_gen_kwargs(settings, MAX_NEW_TOKENS)
        end = self._ids.decode([self._end], skip_special_tokens=False)
        stops = handle_stop_sequences(settings.get("until"), eos=end)
        room, most = self.max_length, int(settings["max_gen_toks"])
        if most >= room:
            raise BadInputError(
                f"the task asks for {most} new tokens, and the model's context is {room}"
            )
        how = Sampling(
            temperature=float(settings.get("temperature") or 0.0),
            top_k=int(settings.get("top_k") or 0),
            top_p=float(settings.get("top_p") or 1.0),
        )
        prompt = self.tok_encode(context)[-(room - most) :] or [self.prefix_token_id]
        text = self._text(prompt, how, most, stops)
        return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text)

    @torch.no_grad()
    def _text(self, prompt: list[int], how: Sampling, most: int, stops: list[str]) -> str:
        """Tokens one by one until the text so far holds a stop string."""
        cache, generator = KvCache(max_tokens=len(prompt) + most), torch.Generator().manual_seed(0)
        new_BT = torch.tensor([prompt], device=self._device)
        made: list[int] = []
        text = ""
        for _ in range(most):
            with autocast(self._device.type, self._precision):
                hidden_BTM = self._model.hidden(new_BT, cache=cache)
                logits_BV = self._model.head(hidden_BTM[:, -1])
            new_BT = choose(logits_BV.float(), how, generator)
            if (token := int(new_BT)) == self._end:
                break
            made.append(token)
            text = self._ids.decode(made, skip_special_tokens=True)
            if any(stop and stop in text for stop in stops):
                break
        return str(text)
