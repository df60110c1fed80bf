"""A trigram model of token ids, the baseline that a trained model must beat.

Counts are sorted arrays of packed ids, so training is a few sorts and a look-up a binary search.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError

LARGEST_VOCABULARY = 1 << 21
"""Three ids are packed into 63 bits."""
Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts leave them undefined; KenLM's."""


@dataclass(frozen=True, kw_only=True)
class _Order:
    """Grams of one length: discounted counts, and what each context leaves to the order below."""

    grams: Keys
    """Sorted; the last id in the lowest digit, base V."""
    counts: Floats
    """Less the discount."""
    contexts: Keys
    """Sorted; grams without their last id."""
    totals: Floats
    left: Floats
    """Share of the order below."""

    def probability(self, grams: Keys, base: int, below: Floats) -> Floats:
        """Of each gram's last id, given the others; `below` where the context was never seen."""
        context, known = _places(self.contexts, grams // base)
        gram, there = _places(self.grams, grams)
        own = np.where(there, self.counts[gram], 0.0) / self.totals[context]
        return np.where(known, own + self.left[context] * below, below)


class Trigram:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3; eq. 17 to 20).

    Three discounts an order from counts of counts. The trigrams have their counts, bigrams and
    unigrams the number of ids that they follow; the unigrams are interpolated with 1 / V.
    """

    def __init__(self, rows: Iterable[npt.NDArray[Any]], vocab_size: int) -> None:
        """Count.

        Args:
            rows: Training tokens; no gram spans two rows.
            vocab_size: V. Ids are below it.

        Raises:
            BadInputError: The vocabulary is too large to pack, or there are no three tokens.
        """
        if not 1 <= vocab_size <= LARGEST_VOCABULARY:
            raise BadInputError(
                f"a trigram packs vocabularies up to {LARGEST_VOCABULARY:,}, not {vocab_size:,}"
            )
        self.vocab_size = base = vocab_size
        packed = [_pack(row.astype(np.int64), base) for row in rows if len(row) >= 3]
        if not packed:
            raise BadInputError("no row of three tokens to count trigrams in")
        self.num_tokens = sum(len(keys) + 2 for keys in packed)
        threes, counts = np.unique(np.concatenate(packed), return_counts=True)
        del packed
        twos, followers = np.unique(threes % base**2, return_counts=True)
        ones, more = np.unique(twos % base, return_counts=True)
        self._orders = [
            _order(keys, number, base)
            for keys, number in ((ones, more), (twos, followers), (threes, counts))
        ]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many unigrams, bigrams and trigrams it knows."""
        return tuple(len(order.grams) for order in self._orders)

    def losses(self, tokens: npt.NDArray[np.int64]) -> Floats:
        """Nats of each token of sequences but its first.

        It sees what a model sees: only the sequence, so the second token has a bigram.

        Args:
            tokens: Ids, [n, T + 1].

        Returns:
            [n, T].
        """
        one, two, three = self._orders
        base, target, before = self.vocab_size, tokens[:, 1:], tokens[:, :-1]
        uniform = np.full(target.shape, 1 / base)
        below = one.probability(target, base, uniform)
        bigrams = before * base + target
        found = two.probability(bigrams, base, below)
        trigrams = tokens[:, :-2] * base**2 + bigrams[:, 1:]
        found[:, 1:] = three.probability(trigrams, base, found[:, 1:])
        return np.asarray(-np.log(found))


def _pack(row: npt.NDArray[np.int64], base: int) -> Keys:
    return (row[:-2] * base + row[1:-1]) * base + row[2:]


def _order(grams: Keys, counts: npt.NDArray[np.int64], base: int) -> _Order:
    discount = np.array([0.0, *_discounts(counts)])[np.minimum(counts, 3)]
    contexts, first = np.unique(grams // base, return_index=True)
    totals = np.add.reduceat(counts.astype(np.float64), first)
    return _Order(
        grams=grams,
        counts=counts - discount,
        contexts=contexts,
        totals=totals,
        left=np.add.reduceat(discount, first) / totals,
    )


def _discounts(counts: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """D1, D2 and D3+ (eq. 17), kept within what may be taken from a count."""
    n = [int((counts == i).sum()) for i in (1, 2, 3, 4)]
    if not all(n):
        return FALLBACK
    share = n[0] / (n[0] + 2 * n[1])
    found = [i - (i + 1) * share * n[i] / n[i - 1] for i in (1, 2, 3)]
    return tuple(min(max(d, 0.0), float(i)) for i, d in enumerate(found, 1))


def _places(keys: Keys, wanted: Keys) -> tuple[Keys, npt.NDArray[np.bool_]]:
    """Where each wanted key is, and whether it is there at all."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted
