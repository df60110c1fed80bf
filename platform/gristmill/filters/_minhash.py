"""MinHash signatures of word n-gram sets, and their locality-sensitive bands, by whole arrays.

Legend: T texts, W words, S shingles (a text's n-grams), P pieces of texts, H hash functions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.filters import _hash128
from gristmill.filters._hash128 import GOLDEN, Words, mix64

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS_AT_ONCE = 8192
"""Bounds what a batch needs beyond its own text: 8 MB of signatures."""
PIECE_SHINGLES = 256
"""Long texts are cut into pieces of this many shingles, so that one of them holds up nobody."""
PIECES_AT_ONCE = 512
"""Signatures of this many pieces stay in a core's cache while their shingles pass."""
_BASE = np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd; a shingle's hash is a polynomial of its words' hashes in it, modulo 2**64, then mixed."""


@dataclass(frozen=True, kw_only=True)
class MinHash:
    """Signatures of `bands * rows_per_band` minima (Broder 1997, "On the resemblance and
    containment of documents"). Two texts agree in one minimum with probability s, the Jaccard
    similarity of their shingle sets, and in a band with 1 - (1 - s**rows)**bands (Leskovec et al.
    2014, "Mining of massive datasets", section 3.4)."""

    ngram: int
    """Words of a shingle; a text with fewer is one shingle."""
    bands: int
    """Keys a text."""
    rows_per_band: int
    """Minima a key."""
    seed: int
    """Chooses the hash functions."""

    def band_keys(self, texts: "pa.ChunkedArray") -> tuple[npt.NDArray[np.int64], Words]:
        """Rows that have a word, shape (m,), and their keys, shape (m, bands, 2)."""
        rows, keys = [np.zeros(0, np.int64)], [np.zeros((0, self.bands, 2), np.uint64)]
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            words, counts = word_hashes(texts.slice(start, TEXTS_AT_ONCE))
            told = np.flatnonzero(counts)
            rows.append(start + told)
            signature = self._signatures(words, counts[told])
            keys.append(self._bands(signature))
        return np.concatenate(rows), np.concatenate(keys)

    def _bands(self, signature_th: Words) -> Words:
        """Keys of (band number, the band's minima)."""
        shape = (len(signature_th), self.bands, self.rows_per_band)
        numbers = np.arange(self.bands, dtype=np.uint64)
        numbers = np.broadcast_to(numbers[None, :, None], (*shape[:2], 1))
        return _hash128.keys_of_words(np.concatenate([numbers, signature_th.reshape(shape)], 2))

    def _signatures(self, words_w: Words, counts_t: npt.NDArray[np.int64]) -> Words:
        """Minima of every hash function over each text's shingles, [T, H]; counts are above 0."""
        shingles_s, sizes_t = shingles(words_w, counts_t, self.ngram)
        pieces_t = -(-sizes_t // PIECE_SHINGLES)
        starts_p, sizes_p = _cut(sizes_t, pieces_t)
        minima_ph = np.empty((len(sizes_p), self.bands * self.rows_per_band), np.uint64)
        longest_first = np.argsort(-sizes_p, kind="stable")
        for start in range(0, len(sizes_p), PIECES_AT_ONCE):
            chosen = longest_first[start : start + PIECES_AT_ONCE]
            minima_ph[chosen] = self._minima(shingles_s, starts_p[chosen], sizes_p[chosen])
        if len(pieces_t) == len(sizes_p):
            return minima_ph
        return np.minimum.reduceat(minima_ph, np.cumsum(pieces_t) - pieces_t)

    def _minima(
        self, shingles_s: Words, starts_p: npt.NDArray[np.int64], sizes_p: npt.NDArray[np.int64]
    ) -> Words:
        """Minima over runs of shingles, longest run first, [P, H].

        Step i takes in the i-th shingle of every run that has one; these are the first `alive`.
        """
        factor_h, term_h = self._functions
        least_ph = np.full((len(starts_p), len(factor_h)), np.iinfo(np.uint64).max, np.uint64)
        value_ph = np.empty_like(least_ph)
        alive_at = np.searchsorted(-sizes_p, -np.arange(sizes_p[0]), "left")
        for i, alive in enumerate(alive_at.tolist()):
            value = value_ph[:alive]
            np.multiply(shingles_s[starts_p[:alive] + i, None], factor_h, out=value)
            value += term_h
            np.minimum(least_ph[:alive], value, out=least_ph[:alive])
        return least_ph

    @cached_property
    def _functions(self) -> tuple[Words, Words]:
        """Odd factors and terms [H] of h(x) = factor * x + term modulo 2**64.

        It is a permutation of 64-bit words, and the order it puts mixed words in is led by its
        high bits, as in multiply-shift hashing (Dietzfelbinger et al. 1997): no 128-bit product.
        """
        drawn = _hash128.stream64(2 * self.bands * self.rows_per_band, self.seed).reshape(2, -1)
        return drawn[0] | np.uint64(1), drawn[1]


def normalized(texts: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """NFKC, lower case, and a space for every run of what is not a letter, mark or digit."""
    import pyarrow.compute as pc

    foreign = pc.invert(pc.string_is_ascii(texts))
    if pc.any(foreign).as_py():  # ASCII is its own NFKC, and normalising takes most of the time
        foreign = pc.fill_null(foreign, False).combine_chunks()
        mended = pc.utf8_normalize(texts.filter(foreign), "NFKC").combine_chunks()
        texts = pc.replace_with_mask(texts, foreign, mended)
    return pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\pL\pM\pN]+", " ")


def word_hashes(texts: "pa.ChunkedArray") -> tuple[Words, npt.NDArray[np.int64]]:
    """Hashes of all words in order [W], and how many each text has [T]; null has none."""
    import pyarrow.compute as pc

    trimmed = pc.ascii_trim(pc.fill_null(normalized(texts), ""), " ")
    lists = pc.split_pattern(trimmed, " ").combine_chunks()
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    words = lists.flatten()
    counts[pc.equal(trimmed, "").to_numpy()] = 0  # "" splits into one empty word
    words = words.filter(pc.not_equal(words, ""))
    coded = words.dictionary_encode()
    distinct = _hash128.keys_of_values(coded.dictionary, person=b"gristmill.word")[:, 0]
    codes = coded.indices.to_numpy(zero_copy_only=False)
    return distinct[codes], counts


def shingles(
    words_w: Words, counts_t: npt.NDArray[np.int64], ngram: int
) -> tuple[Words, npt.NDArray[np.int64]]:
    """Hashes of each text's n-grams in order [S], and how many each has [T].

    A text with fewer words than `ngram` has one shingle: all of it.
    """
    sizes_t = np.maximum(counts_t - ngram + 1, np.minimum(counts_t, 1))
    first_t = np.cumsum(counts_t) - counts_t
    starts_s, _ = _cut(sizes_t, sizes_t, first=first_t)
    length_s = np.repeat(np.minimum(counts_t, ngram), sizes_t).astype(np.int64)
    value_s = length_s.astype(np.uint64)
    for i in range(min(ngram, int(length_s.max(initial=0)))):
        inside = i < length_s
        word = words_w[np.where(inside, starts_s + i, 0)]
        value_s = np.where(inside, value_s * _BASE + word, value_s)
    return mix64(value_s + GOLDEN), sizes_t


def _cut(
    sizes_t: npt.NDArray[np.int64],
    pieces_t: npt.NDArray[np.int64],
    *,
    first: npt.NDArray[Any] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Runs cut into pieces as even as can be: where each begins and how long it is, [P].

    Run t begins at `first[t]`; without it the runs follow each other.
    """
    first_t = np.cumsum(sizes_t) - sizes_t if first is None else first
    number_p = np.arange(pieces_t.sum()) - np.repeat(np.cumsum(pieces_t) - pieces_t, pieces_t)
    size, pieces = np.repeat(sizes_t, pieces_t), np.repeat(pieces_t, pieces_t)
    low, high = size * number_p // pieces, size * (number_p + 1) // pieces
    return np.repeat(first_t, pieces_t) + low, high - low
