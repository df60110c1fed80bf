"""Validation loss by domain: the same sequences each time, shared out among the ranks."""

import numpy as np
import torch

from gristmill.corpora.stream import validation_batch
from gristmill.corpora.tokens import TokenCorpus
from gristmill.training.lm.batches import filled, sum_over_ranks
from gristmill.training.lm.engine import Engine
from gristmill.training.lm.validation_domains import validated
from gristmill.training.place import Place


class Validation:
    """The first sequences of each domain's validation split."""

    def __init__(
        self, corpus: TokenCorpus, seq_len: int, sequences: int, micro_batch_size: int, place: Place
    ) -> None:
        self._corpus, self._seq_len, self._place = corpus, seq_len, place
        self._sequences, self._size = sequences, micro_batch_size
        self.domains = validated(corpus, seq_len)

    def losses(self, engine: Engine) -> dict[str, float]:
        """Mean cross entropy a token, in nats, of every domain that has a sequence."""
        engine.train(False)
        totals, counts = [], []
        for domain in self.domains:
            rows = validation_batch(
                self._corpus, domain, seq_len=self._seq_len, count=self._sequences
            )
            totals.append(self._total(engine, rows))
            counts.append(len(rows) * (self._seq_len - engine.model.config.hidden_targets))
        totals = sum_over_ranks(totals, torch.float64, self._place)
        engine.train(True)
        return {d: t / n for d, t, n in zip(self.domains, totals, counts, strict=True)}

    def _total(
        self, engine: Engine, rows: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"
    ) -> float:
        """Of this rank's rows. Each rank calls the model as often as the others: ZeRO-3 gathers."""
        rank, world = self._place.rank, self._place.world_size
        first, last = (len(rows) * i // world for i in (rank, rank + 1))
        mine = torch.from_numpy(filled(rows[first:last], -(-len(rows) // world)))
        total = 0.0
        with torch.no_grad():
            for piece in mine.split(self._size):
                total += float(engine.forward(piece.to(self._place.device)))
        return total
