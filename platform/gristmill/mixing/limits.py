"""What a search may try and may propose: weights that every ledger passes.

Two trainings repeat text: each proxy, and the one that the mixture is for. Designs keep what a
proxy may repeat; what is proposed, which the check run trains proxies on, keeps both.
"""

from dataclasses import dataclass

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.corpora.tokens import TokenCorpus
from gristmill.mixing.simplex import check_caps
from gristmill.mixing.sizes import CAP, HEADER, weight_caps
from gristmill.mixing.tables import write_table
from gristmill.regressors.base import Array

ROOM = 0.05
"""Weight that the caps of a proxy must leave beside the natural mixture, for designs to move in."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """A training, as far as it repeats text."""

    tokens: float
    """Of the whole training; 0 when none is planned."""
    epochs: float
    """Most epochs over a domain."""
    seq_len: int
    """Tokens of a sequence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Limits:
    """Largest weights."""

    corpus: TokenCorpus
    """Whose domains these are."""
    proxy: Array
    """Shape (domains,): what a proxy's ledger passes."""
    proposal: Array
    """Shape (domains,): what both ledgers pass."""

    def write(self, sizes: str, limits: str) -> None:
        """Two tables of the domains' tokens, with either caps."""
        known = self.corpus.sizes()
        for uri, caps in ((sizes, self.proxy), (limits, self.proposal)):
            rows = zip(self.corpus.domains, caps.tolist(), strict=True)
            write_table(uri, [*HEADER, CAP], [[name, known[name], cap] for name, cap in rows])


def find_limits(corpus: TokenCorpus, proxy: Repeats, planned: Repeats) -> Limits:
    """The limits of a search.

    Raises:
        BadInputError: All text, repeated so often, is less than the tokens.
    """
    own = _caps(corpus, proxy, 1 + ROOM)
    both = np.minimum(own, _caps(corpus, planned, 1.0)) if planned.tokens else own
    check_caps(both)
    return Limits(corpus=corpus, proxy=own, proposal=both)


def _caps(corpus: TokenCorpus, one: Repeats, least: float) -> Array:
    known = corpus.sizes()
    caps = weight_caps(
        known, corpus.domains, tokens=one.tokens, epochs=one.epochs, seq_len=one.seq_len
    )
    most = one.epochs * sum(known.values()) / one.tokens
    if most < least or caps.sum() < 1:
        total = sum(known.values())
        raise BadInputError(
            f"{one.tokens:,.0f} tokens would repeat the corpora's {total:,} about "
            f"{one.tokens / total:.2f} times, over or near the cap of {one.epochs:g}: no mixture "
            "fits; plan fewer tokens, raise the cap, or add text"
        )
    return caps
