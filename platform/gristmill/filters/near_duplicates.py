"""Drop pictures whose perceptual hash is within a few bits of an earlier one's."""

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.filters import _hash128
from gristmill.filters._strings import strings
from gristmill.filters.base import GroupFilter, Keyed

if TYPE_CHECKING:
    import pyarrow as pa

PHASH = "phash"
HASH_BITS, HASH_DIGITS = 64, 16
MOST_KEYS = 64
LATER_AT_ONCE, EARLIER_AT_ONCE = 512, 4096


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(GroupFilter):
    """Drop a picture within `max_distance` bits of an earlier one (DCT hash of Zauner 2010,
    "Implementation and benchmarking of perceptual image hash functions", chapter 3).

    Candidates come from the pigeonhole (Manku et al. 2007, "Detecting near-duplicates for web
    crawling", section 3): of `max_distance + shared_chunks` chunks of the 64 bits, two hashes
    that near agree in at least `shared_chunks`, so each choice of that many is a key, and no near
    pair is missed. A row goes when it is near any earlier one, even one that goes itself.

    A null hash (a picture that was not decoded) has no key. Nor has one with fewer than
    `least_bits` set bits: a proper hash has about 32, since it compares 64 coefficients with their
    median; a flat picture's has one or none, and all flat pictures would pass for one.
    """

    max_distance: int = 4
    """Most bits in which two near hashes differ."""
    shared_chunks: int = 1
    """Chunks that make a key. 1 gives the fewest keys, whose groups grow with the pool; from about
    100 million rows on take 2 (at distance 4 it is 15 keys of 21 bits instead of 5 of 12)."""
    least_bits: int = 8
    """Hashes with fewer set bits are left alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance <= 16:
            raise BadInputError(
                f"max_distance must lie in 0..16 of 64 bits, not {self.max_distance}; unrelated "
                "pictures differ in about 32"
            )
        chunks = self.max_distance + self.shared_chunks
        if self.shared_chunks < 1 or math.comb(chunks, self.shared_chunks) > MOST_KEYS:
            raise BadInputError(
                f"shared_chunks {self.shared_chunks} at max_distance {self.max_distance} does not "
                f"give 1 to {MOST_KEYS} keys a row; take 1 or 2"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The hash that `gristmill pool hash` adds."""
        return (PHASH,)

    def keyed(self, batch: "pa.Table") -> Keyed:
        """A key for each choice of chunks; the payload is the whole hash, as one uint64."""
        rows, hashes = self._hashes(batch)
        choices = self._choices()
        keys = np.empty((len(rows), len(choices), 2), np.uint64)
        for number, mask in enumerate(choices):
            words = np.stack([np.full(len(rows), number, np.uint64), hashes & np.uint64(mask)], 1)
            keys[:, number] = _hash128.keys_of_words(words)
        return Keyed(
            rows=np.repeat(rows, len(choices)),
            keys=keys.reshape(-1, 2),
            payload=np.repeat(hashes, len(choices)),
        )

    def repeated(self, payload: npt.NDArray[Any] | None, rows: int) -> npt.NDArray[np.bool_]:
        """Rows within `max_distance` of an earlier row of the group."""
        assert payload is not None
        gone = np.ones(rows, bool)
        distinct, first = np.unique(payload, return_index=True)  # equal hashes: only the first
        order = np.argsort(first)
        gone[first[order]] = near_an_earlier(distinct[order], self.max_distance)
        return gone

    def _choices(self) -> list[int]:
        """Bit masks of the chosen chunks, one a key."""
        count = self.max_distance + self.shared_chunks
        edges = [HASH_BITS * i // count for i in range(count + 1)]
        chunks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
        return [sum(chosen) for chosen in itertools.combinations(chunks, self.shared_chunks)]

    def _hashes(self, batch: "pa.Table") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        column = strings(batch, PHASH)
        told = np.flatnonzero(column.is_valid().to_numpy())
        present = column.take(told)
        bad = np.flatnonzero(~_hash128.well_formed_hex(present, HASH_DIGITS))
        if len(bad):
            raise BadInputError(
                f"column {PHASH} holds {present[int(bad[0])].as_py()!r}, not {HASH_DIGITS} hex "
                "digits; gristmill pool hash makes the column"
            )
        hashes = _hash128.words_of_hex(present).reshape(-1)
        proper = np.bitwise_count(hashes) >= self.least_bits
        return told[proper], hashes[proper]


def near_an_earlier(hashes: npt.NDArray[np.uint64], distance: int) -> npt.NDArray[np.bool_]:
    """Which hashes differ in at most `distance` bits from one before them, shape (n,).

    In blocks, so memory is flat; a hash that was found near is not compared further.
    """
    near = np.zeros(len(hashes), bool)
    for start in range(0, len(hashes), LATER_AT_ONCE):
        later = np.arange(start, min(start + LATER_AT_ONCE, len(hashes)))
        for before in range(0, later[-1], EARLIER_AT_ONCE):
            earlier = np.arange(before, min(before + EARLIER_AT_ONCE, later[-1]))
            later = later[~near[later]]
            if not len(later):
                break
            bits = np.bitwise_count(hashes[later, None] ^ hashes[earlier])
            close = (bits <= distance) & (earlier < later[:, None])
            near[later] |= close.any(1)
    return near
