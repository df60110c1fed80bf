"""Losses of held-out sequences: one domain a Ray worker, one file of losses a domain."""

import io as bytes_io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.corpora.stream import validation_batch
from gristmill.corpora.tokens import TokenCorpus
from gristmill.evaluation.lm.subject import Precision, autocast, load_on_device, model_files
from gristmill.evaluation.lm.text_bytes import text_bytes
from gristmill.execution.slices import Slice, SliceWorker

if TYPE_CHECKING:
    from torch import Tensor

    from gristmill.models.lm.decoder import Decoder

LOSSES = "losses"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Which held-out sequences."""

    corpora: tuple[str, ...]
    seq_len: int
    max_sequences: int
    """Of a domain, its first; 0: all."""

    def open(self) -> TokenCorpus:
        """The corpora."""
        return TokenCorpus(*self.corpora)

    def count(self, corpus: TokenCorpus, domain: str) -> int:
        """Sequences of a domain.

        Raises:
            BadInputError: It has not one.
        """
        there = corpus.num_sequences(domain, self.seq_len, "validation")
        return min(there, self.max_sequences) if self.max_sequences else there


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Which model, and how it computes."""

    model: str
    files: dict[str, str]
    """Its hashes, see Subject."""
    batch_size: int
    precision: Precision


class LossWorker(SliceWorker):
    """Scores domains with one model, loaded once."""

    def __init__(self, scoring: Scoring, text: Text, folder: str, *, on_gpu: bool) -> None:
        self._scoring, self._text, self._folder = scoring, text, folder
        self.num_gpus = 1.0 if on_gpu else 0.0

    def setup(self) -> None:
        """Load the model."""
        self._model = load_model(self._scoring, gpu=bool(self.num_gpus))
        self._corpus = self._text.open()

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write a domain's losses by sequence; returns how much text they are of."""
        domain = str(piece.payload["domain"])
        count = self._text.count(self._corpus, domain)
        losses = np.concatenate(
            [
                self._losses(domain, first, min(self._scoring.batch_size, count - first))
                for first in range(0, count, self._scoring.batch_size)
            ]
        )
        if not np.isfinite(losses).all():
            raise BadInputError(
                f"the model's loss on {domain} is not finite in {(~np.isfinite(losses)).sum()} of "
                f"{count} sequences; its weights are broken, or it needs --precision fp32"
            )
        write_losses(io.join(self._folder, f"{domain}.npy"), losses)
        tokens = count * self._text.seq_len
        return {"bytes": text_bytes(self._corpus, domain, tokens), "sequences": count}

    def _losses(self, domain: str, first: int, count: int) -> Floats:
        import torch

        tokens = validation_batch(
            self._corpus, domain, seq_len=self._text.seq_len, first=first, count=count
        )
        device = self._model.embedding.weight.device
        batch = torch.from_numpy(tokens).to(device)
        with torch.no_grad(), autocast(device.type, self._scoring.precision):
            losses_BT: Tensor = self._model(batch[:, :-1], batch[:, 1:], reduction="none")
        found = losses_BT[:, self._model.config.hidden_targets :].double().mean(1)
        return np.asarray(found.cpu().numpy())


def load_model(scoring: Scoring, *, gpu: bool) -> "Decoder":
    """The model, and proof that it is the one that was meant.

    Raises:
        BadInputError: Its files changed meanwhile.
    """
    model = load_on_device(scoring.model, gpu=gpu)
    if model_files(scoring.model) != scoring.files:
        raise BadInputError(
            f"{io.redact(scoring.model)} changed while it was evaluated; evaluate again"
        )
    return model


def write_losses(uri: str, losses: Floats) -> None:
    """Nats a token by sequence, float64."""
    buffer = bytes_io.BytesIO()
    np.save(buffer, losses, allow_pickle=False)
    io.write_bytes(uri, buffer.getvalue())


def read_losses(uri: str) -> Floats:
    """What `write_losses` wrote."""
    return np.asarray(np.load(bytes_io.BytesIO(io.read_bytes(uri)), allow_pickle=False))


def spread(losses: Floats) -> tuple[float, float]:
    """Mean and its standard error over sequences; NaN for one sequence."""
    if len(losses) < 2:
        return float(losses.mean()), math.nan
    return float(losses.mean()), float(losses.std(ddof=1) / math.sqrt(len(losses)))
