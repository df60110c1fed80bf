"""The trigram beside the model: counted once, then domain by domain, kept as it goes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.core.progress import Progress
from gristmill.core.run import Run
from gristmill.corpora.stream import validation_batch
from gristmill.corpora.tokens import TokenCorpus
from gristmill.evaluation.lm.held_out import Text, write_losses
from gristmill.evaluation.lm.trigram import Trigram

FOLDER = "trigram"
SEQUENCE_TOKENS = 1 << 20
"""Tokens that are looked up at once."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A scored trigram."""

    facts: dict[str, Any]
    """What it was counted in."""

    @staticmethod
    def file_of(domain: str) -> str:
        """Its losses by sequence, in the run's folder."""
        return f"{FOLDER}/{domain}.npy"


def score_baseline(
    run: Run,
    corpus: TokenCorpus,
    text: Text,
    domains: list[str],
    *,
    most_tokens: int,
    first_place: int = 0,
) -> Baseline:
    """Losses of a trigram on the same sequences, one file a domain.

    It is counted in the first tokens of each domain's training split, in proportion to their
    sizes. Documents are shuffled, so the first are a sample. Places of a sequence before
    `first_place` do not count, as they do not for a prefix LM.
    """
    marker = run.scratch("trigram.json")
    if io.exists(marker):
        return Baseline(facts=io.read_json(marker))
    sizes = {domain: corpus.tokens(domain) for domain in domains}
    share = min(1.0, most_tokens / max(sum(sizes.values()), 1))
    rows = (corpus.between(d, 0, int(size * share)) for d, size in sizes.items())
    model = Trigram(rows, corpus.vocabulary.size)
    total = sum(text.count(corpus, domain) for domain in domains)
    at_once = max(SEQUENCE_TOKENS // text.seq_len, 1)
    with Progress("trigram", total * text.seq_len, "tokens") as progress:
        for domain in domains:
            count, parts = text.count(corpus, domain), []
            for first in range(0, count, at_once):
                some = min(at_once, count - first)
                tokens = validation_batch(
                    corpus, domain, seq_len=text.seq_len, first=first, count=some
                )
                parts.append(model.losses(tokens)[:, first_place:].mean(1))
                progress.advance(some * text.seq_len)
            write_losses(run.path(Baseline.file_of(domain)), np.concatenate(parts))
    facts = {
        "kind": "trigram, interpolated modified Kneser-Ney",
        "tokens": model.num_tokens,
        "tokens_available": sum(sizes.values()),
        "sizes": [list(model.sizes), ["unigrams", "bigrams", "trigrams"]],
    }
    io.write_json(marker, facts)
    return Baseline(facts=facts)
