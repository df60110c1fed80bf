"""Exact facts about a whole column, found by passes over slices: no process holds the column.

A float64 maps to an unsigned 64-bit key of the same order. Each pass counts the keys of one range
into equal bins; the bin with the wanted rank is the next pass's range. Once it holds few enough
values, one pass collects and sorts them. Histograms of slices add up, so the answer does not
depend on how the pool is cut or who counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools.pool import read_slice

BINS = 1 << 16
COLLECT_AT_MOST = 1 << 20
KEY_BITS = 64
_SIGN = np.uint64(1 << 63)
_NAN_KEY = np.uint64(0)
"""Below the key of -inf: NaN stands last in falling order."""


def order_keys(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Keys that sort as the numbers do; -0.0 and 0.0 share one, NaN is lowest."""
    bits = (values + 0.0).view(np.uint64)
    keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return np.where(np.isnan(values), _NAN_KEY, keys)


def key_to_value(key: int) -> float:
    """The number of a key."""
    if key == int(_NAN_KEY):
        return float("nan")
    bits = key & ~int(_SIGN) if key & int(_SIGN) else ~key & (1 << 64) - 1
    return float(np.array([bits], np.uint64).view(np.float64)[0])


def bin_shift(width: int) -> int:
    """Bits that one bin spans when 2**width keys are cut into BINS bins, or single keys."""
    return max(width - BINS.bit_length() + 1, 0)


@dataclass
class _Count(SliceWorker):
    """Counts a slice's keys of [low, low + 2**width) into bins, or collects them."""

    column: str
    low: int
    width: int
    parts: str
    collect: bool

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the histogram (or the sorted keys) of one slice."""
        histogram = np.zeros(BINS, np.int64)
        kept = [np.zeros(0, np.uint64)]
        for _, table in read_slice(piece, [self.column]):
            keys = order_keys(table[self.column].cast("float64").to_numpy())
            offset = keys - np.uint64(self.low)  # below the range this wraps to a huge number
            inside = offset <= np.uint64((1 << self.width) - 1)
            if self.collect:
                kept.append(keys[inside])
            else:
                bins = (offset[inside] >> np.uint64(bin_shift(self.width))).astype(np.int64)
                histogram += np.bincount(bins, minlength=BINS)
        if self.collect:
            return self._save(piece, np.concatenate(kept), 0)
        used = np.flatnonzero(histogram)
        first = int(used[0]) if len(used) else 0
        last = int(used[-1]) if len(used) else -1
        return self._save(piece, histogram[first : last + 1], first)

    def _save(self, piece: Slice, result: npt.NDArray[Any], first: int) -> dict[str, Any]:
        with io.open_write(io.join(self.parts, piece.name + ".npy")) as file:
            np.save(file, result, allow_pickle=False)
        return {"first": first}


@dataclass
class ColumnFacts:
    """Counts and ranks of columns over metadata slices, each pass resumable in `scratch`."""

    pieces: Sequence[Slice]
    scratch: str
    execution: Execution
    skip_corrupt: bool = False

    @property
    def num_rows(self) -> int:
        """Rows in all slices."""
        return sum(piece.weight for piece in self.pieces)

    def rows_of(self, column: str) -> int:
        """Rows of the slices in which the column could be read."""
        if not self.skip_corrupt:
            return self.num_rows
        return int(self._histogram(column, 0, KEY_BITS).sum())

    def value_at_rank(self, column: str, rank: int) -> float:
        """The value at index `rank` (from 0) of a column in falling order, NaN and null last."""
        answer = io.join(self.scratch, f"rank-{column}-{rank}.json")
        if not io.exists(answer):
            io.write_json(answer, {"key": str(self._select(column, rank))})
        return key_to_value(int(io.read_json(answer)["key"]))

    def _select(self, column: str, rank: int) -> int:
        low, width, from_top = 0, KEY_BITS, rank
        while width:
            histogram = self._histogram(column, low, width)
            above = np.cumsum(histogram[::-1])
            if from_top >= above[-1]:
                raise CorruptDataError(f"the pool's {column} changed while it was read")
            place = int(np.searchsorted(above, from_top, "right"))
            index = BINS - 1 - place
            from_top -= int(above[place] - histogram[index])
            width, low = bin_shift(width), low + (index << bin_shift(width))
            if width and histogram[index] <= COLLECT_AT_MOST:
                parts = [part for _, part in self._parts(column, low, width, collect=True)]
                return int(np.sort(np.concatenate(parts))[-1 - from_top])
        return low

    def _histogram(self, column: str, low: int, width: int) -> npt.NDArray[np.int64]:
        histogram = np.zeros(BINS, np.int64)
        for first, part in self._parts(column, low, width, collect=False):
            histogram[first : first + len(part)] += part
        return histogram

    def _parts(
        self, column: str, low: int, width: int, *, collect: bool
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        folder = io.join(self.scratch, f"{column}-{low}-{width}-{'keys' if collect else 'bins'}")
        parts = io.join(folder, "parts")
        done = map_slices(
            f"rank of {column}",
            self.pieces,
            _Count(column, low, width, parts, collect),
            ledger=io.join(folder, "done"),
            execution=self.execution,
            skip_corrupt=self.skip_corrupt,
        )
        for piece, outcome in zip(self.pieces, done, strict=True):
            if "corrupt" not in outcome:
                yield int(outcome["first"]), _load(io.join(parts, piece.name + ".npy"))


def _load(uri: str) -> npt.NDArray[Any]:
    with io.open_read(uri) as file:
        return np.load(file, allow_pickle=False)
