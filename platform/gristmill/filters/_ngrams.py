"""The n-grams of many texts as hashes, made and counted by whole arrays.

The characters c of all words, run together, get one prefix sum of c[i] B^i modulo 2^64 with an odd
base B. The hash of characters s to e is (P[e] - P[s]) B^-s: one product an n-gram, whatever n.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.filters._words import CHUNK_CHARACTERS, Words

BASE = 0x9E3779B97F4A7C15
MIX = 0xFF51AFD7ED558CCD
LENGTHS_BASE = 0xD6E8FEB86659FD93
TABLE_SIZE = CHUNK_CHARACTERS + 1
TEXT_BITS = 15
"""Keys hold the text's number in the highest bits, so that sorted keys go text by text; the hash's
highest 49 bits follow. Two n-grams of a text of w words agree by chance in w^2 of 2^50 texts."""


def powers(base: int, count: int) -> npt.NDArray[np.uint64]:
    """base^0 .. base^(count - 1) modulo 2^64."""
    return _table(base)[:count] if count <= TABLE_SIZE else _made(base, count)


@functools.lru_cache(maxsize=8)
def _table(base: int) -> npt.NDArray[np.uint64]:
    """Kept for the process's life; those for a text larger than a chunk are made anew each time."""
    return _made(base, TABLE_SIZE)


def _made(base: int, count: int) -> npt.NDArray[np.uint64]:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


class PrefixHash:
    """Hashes of the ranges between marked places of a sequence of numbers."""

    def __init__(
        self, values: npt.NDArray[np.generic], places: npt.NDArray[np.int64], base: int
    ) -> None:
        terms = values.astype(np.uint64) * powers(base, len(values))
        prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        self._prefix = prefix[places]
        self._unshift = powers(pow(base, -1, 1 << 64), len(values) + 1)[places]

    def between(
        self, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        """Hashes of the ranges from place number `first` to place number `last`."""
        return mixed((self._prefix[last] - self._prefix[first]) * self._unshift[first])


def mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hashes whose high bits depend on all bits: the first term of the sum is in the low ones."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(MIX)
    return hashes


class Windows:
    """What the n-grams of a few texts are made from; at most 2^15 texts."""

    def __init__(self, words: Words) -> None:
        assert len(words.counts) <= 1 << TEXT_BITS
        self._words = words
        self._text = np.repeat(np.arange(len(words.counts)), words.counts)
        self._run_together = PrefixHash(words.chars, words.ends, BASE)
        everywhere = np.arange(len(words.ends))
        self._cuts = PrefixHash(words.lengths, everywhere, LENGTHS_BASE)

    def ngrams(self, n: int, *, spaced: bool) -> "NGrams":
        """All n-grams of n words within a text; with `spaced`, `a bc` is not `ab c`."""
        count = max(len(self._text) - n + 1, 0)
        first = np.flatnonzero(self._text[:count] == self._text[len(self._text) - count :])
        hashes = self._run_together.between(first, first + n)
        lengths = self._words.ends[first + n] - self._words.ends[first]
        if spaced:
            hashes = hashes + self._cuts.between(first, first + n)
            lengths = lengths + (n - 1)
        text = self._text[first]
        high = text.astype(np.uint64) << np.uint64(64 - TEXT_BITS)
        return NGrams(
            n=n,
            word=first,
            text=text,
            keys=high | hashes >> np.uint64(TEXT_BITS),
            lengths=lengths,
            words=self._words.counts,
        )


@dataclass(frozen=True)
class NGrams:
    """The n-grams of a few texts, in order; arrays of one entry an n-gram but for the last."""

    n: int
    word: npt.NDArray[np.int64]
    """Number of its first word."""
    text: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int64]
    """Characters."""
    words: npt.NDArray[np.int64]
    """Words of each text."""

    @functools.cached_property
    def _sorted(self) -> npt.NDArray[np.uint64]:
        return np.sort(self.keys)

    def most_in_top(self) -> npt.NDArray[np.int64]:
        """For each text at least as much as `in_top`, cheaply: largest count, longest n-gram."""
        keys = self._sorted
        edges = np.flatnonzero(np.append(len(keys) > 0, keys[1:] != keys[:-1]))
        most = np.zeros(len(self.words), np.int64)
        np.maximum.at(most, _text(keys[edges]), np.diff(np.append(edges, len(keys))))
        return most * self._longest()

    def most_repeated(self) -> npt.NDArray[np.int64]:
        """For each text at least as much as `repeated`: repeats side by side, longest n-gram."""
        keys = self._sorted
        again = _text(keys[1:][keys[1:] == keys[:-1]])
        repeats = np.bincount(again, minlength=len(self.words))
        return np.minimum(repeats, self.words // self.n) * self._longest()

    def _longest(self) -> npt.NDArray[np.int64]:
        longest = np.zeros(len(self.words), np.int64)
        edges = np.flatnonzero(np.append(len(self.text) > 0, self.text[1:] != self.text[:-1]))
        if len(edges):
            longest[self.text[edges]] = np.maximum.reduceat(self.lengths, edges)
        return longest

    def in_top(self, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Characters in all occurrences of each wanted text's most frequent n-gram.

        Of equally frequent ones the first counts. 0 for the other texts.
        """
        rows = np.flatnonzero(wanted[self.text])
        keys, first, count = np.unique(self.keys[rows], return_index=True, return_counts=True)
        text = _text(keys)
        most = np.zeros(len(wanted), np.int64)
        np.maximum.at(most, text, count)
        top = count == most[text]
        place = np.full(len(wanted), len(rows))
        np.minimum.at(place, text[top], first[top])
        found = place < len(rows)
        result = np.zeros(len(wanted), np.int64)
        result[found] = most[found] * self.lengths[rows[place[found]]]
        return result

    def repeated(self, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Characters of each wanted text in n-grams seen before; 0 for the other texts.

        Counted in one walk that jumps over each n-gram it finds, so that none counts twice.
        """
        keys = self._sorted
        again = keys[1:][keys[1:] == keys[:-1]]
        again = again[wanted[_text(again)]]
        result = np.zeros(len(wanted), np.int64)
        if not len(again):
            return result
        rows = np.flatnonzero(wanted[self.text])
        place = np.minimum(np.searchsorted(again, self.keys[rows]), len(again) - 1)
        rows = rows[again[place] == self.keys[rows]]
        seen: set[int] = set()
        onward = 0
        for key, word, row in zip(
            self.keys[rows].tolist(), self.word[rows].tolist(), rows.tolist(), strict=True
        ):
            if word < onward:
                continue
            if key in seen:
                result[self.text[row]] += self.lengths[row]
                onward = word + self.n
            else:
                seen.add(key)
        return result


def _text(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return (keys >> np.uint64(64 - TEXT_BITS)).astype(np.int64)
