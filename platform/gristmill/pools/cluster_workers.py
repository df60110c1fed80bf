"""What cluster's workers do: choose rows, assign them to centroids, add up, count.

Sums are exact, so they do not depend on how rows are cut or who adds them: a float16 is a multiple
of 2**-24 (a float32 is rounded to one), and a float64 holds such sums up to 2**29 without rounding.

Legend: N rows, K centroids, D numbers in each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.arrays import RowReader, from_column
from gristmill.core.errors import BadInputError
from gristmill.execution.work import Slice, SliceWorker
from gristmill.filters import _caption_rule, _hash128, _language
from gristmill.filters._nearest import Engine, Nearest
from gristmill.filters._strings import strings
from gristmill.pools import columns
from gristmill.pools.pool import read_slice
from gristmill.pools.uid import parse_uids

Metric = Literal["inner_product", "l2"]
GRID = 2.0**24
LARGEST_SUM = 2.0**29
NORM_GRID = 2.0**20
ROWS_AT_ONCE = 1 << 13
KEY_WORDS = 3
"""A candidate's key: its hash, then the two halves of its uid."""
Rows = npt.NDArray[Any]


def save(uri: str, array: Rows) -> None:
    """Write an .npy aside and publish it."""
    with io.open_write(uri) as file:
        np.save(file, array, allow_pickle=False)


def load(uri: str) -> Rows:
    """A whole .npy."""
    with RowReader(uri) as reader:
        return reader.read(0, reader.num_rows)


def blocks(payload: Mapping[str, Any], column: str) -> Iterator[Rows]:
    """Features [n, D] of a group: from rows set aside, else from the pool."""
    if "aside" in payload:
        with RowReader(payload["aside"]) as reader:
            yield from reader.blocks(ROWS_AT_ONCE)
        return
    for piece in payload["pieces"]:
        for _, table in read_slice(Slice(name="", payload=piece), [columns.UID, column]):
            yield from_column(table[column], column)


@dataclass
class ChooseRows(SliceWorker):
    """Finds the rows to cluster and, among them, candidates for the first centroids.

    Both choices are by hashes of uid and seed, so they depend on nothing else.
    """

    column: str
    seed: int
    sample: float
    candidates: float
    """Share of the chosen rows that may become first centroids."""
    english: bool
    set_aside: bool
    out: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write candidates, and the chosen rows if they are to be set aside; returns counts."""
        kept: list[Rows] = []
        keys = [np.zeros((0, KEY_WORDS), np.uint64)]
        candidates: list[Rows] = []
        counts = {"rows": 0, "chosen": 0, "unusable": 0}
        for rows, key, usable in self._chosen(piece):
            counts["rows"] += len(usable)
            counts["chosen"] += len(rows)
            counts["unusable"] += int(len(usable) - usable.sum())
            first = _below(key[:, 0], self.candidates)
            keys.append(key[first])
            candidates.append(rows[first])
            if self.set_aside:
                kept.append(rows)
        if not candidates:
            return counts
        save(io.join(self.out, f"{piece.name}-keys.npy"), np.concatenate(keys))
        save(io.join(self.out, f"{piece.name}-candidates.npy"), np.concatenate(candidates))
        if self.set_aside:
            save(io.join(self.out, f"{piece.name}-rows.npy"), np.concatenate(kept))
        return counts

    def _chosen(self, piece: Slice) -> Iterator[tuple[Rows, Rows, npt.NDArray[np.bool_]]]:
        """(features and keys of chosen rows, which of all rows have finite features)."""
        names = [columns.UID, self.column, *([columns.TEXT] if self.english else [])]
        for inner in piece.payload["pieces"]:
            for row, table in read_slice(Slice(name="", payload=inner), names):
                uids = parse_uids(table[columns.UID], where=inner["uri"], first_row=row)
                words = [uids["f0"], uids["f1"], np.full(len(uids), self.seed, np.uint64)]
                hashes = _hash128.keys_of_words(np.stack(words, axis=1))
                rows = from_column(table[self.column], self.column)
                usable = np.isfinite(rows).all(axis=1)
                left = np.flatnonzero(usable & _below(hashes[:, 0], self.sample))
                if self.english:
                    texts = strings(table, columns.TEXT).take(left)
                    left = left[_caption_rule.judge_captions(texts) == 0]
                key = np.stack([hashes[:, 1], *words[:2]], axis=1)
                yield rows[left], key[left], usable

    def setup(self) -> None:
        """Load the language model where captions count."""
        if self.english:
            _language.load()


def _below(hashes: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which hashes lie in the lowest share of all."""
    if share >= 1:
        return np.ones(len(hashes), np.bool_)
    return hashes < np.uint64(int(share * 2.0**64))


@dataclass
class Assigner:
    """Finds each row's centroid."""

    centroids: str
    """File of centroids [K, D]."""
    metric: Metric
    engine: Engine
    num_centroids: int = 0
    _nearest: Nearest | None = field(default=None, repr=False)

    def load(self) -> None:
        """Read the centroids."""
        centroids = load(self.centroids)
        self.num_centroids = len(centroids)
        if self.metric == "l2":
            half = -0.5 * np.square(centroids.astype(np.float64)).sum(axis=1, keepdims=True)
            centroids = np.hstack([centroids, half.astype(np.float32)])
        self._nearest = Nearest(centroids, engine=self.engine)

    def find(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Shape [N]. The nearest by L2 has the largest x.c - c.c / 2."""
        assert self._nearest is not None
        if self.metric == "l2":
            one = np.ones((len(rows), 1), np.float32)
            rows = np.hstack([rows.astype(np.float32), one])
        return self._nearest.find(rows)


@dataclass
class AssignRows(SliceWorker):
    """Assigns a group's rows and adds them up by centroid."""

    assigner: Assigner
    column: str
    out: str

    def setup(self) -> None:
        """Read the centroids."""
        self.assigner.load()

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write ids, counts and sums [., D] of the centroids that got rows."""
        counts = np.zeros(self.assigner.num_centroids, np.int64)
        sums: Rows | None = None
        norms = 0
        for block in blocks(piece.payload, self.column):
            for first in range(0, len(block), ROWS_AT_ONCE):
                rows = block[first : first + ROWS_AT_ONCE]
                found = self.assigner.find(rows)
                rows, found = rows[found >= 0], found[found >= 0]
                if sums is None:
                    sums = np.zeros((self.assigner.num_centroids, rows.shape[1]))
                counts += np.bincount(found, minlength=len(counts))
                norms += add_up(sums, rows, found)
        ids = np.flatnonzero(counts)
        if sums is None:
            return {"rows": 0, "norms": 0}
        if np.abs(sums[ids]).max(initial=0) >= LARGEST_SUM:
            raise BadInputError(
                f"features {self.column} are so large that their sums are no longer exact; "
                "scale them to length 1"
            )
        save(io.join(self.out, f"{piece.name}-ids.npy"), ids)
        save(io.join(self.out, f"{piece.name}-counts.npy"), counts[ids])
        save(io.join(self.out, f"{piece.name}-sums.npy"), sums[ids])
        return {"rows": int(counts.sum()), "norms": norms}


def add_up(sums: Rows, rows: Rows, found: npt.NDArray[np.int64]) -> int:
    """Add rows [N, D] to `sums` [K, D] where they were assigned; returns the sum of their squared
    lengths in units of 1 / NORM_GRID, a whole number and so exact as well."""
    if not len(rows):
        return 0
    order = np.argsort(found, kind="stable")
    exact = rows[order].astype(np.float64)
    if rows.dtype != np.float16:
        exact = np.rint(exact * GRID) / GRID
    place = found[order]
    heads = np.flatnonzero(np.diff(place, prepend=-1))
    for first, stop in zip(heads, [*heads[1:], len(place)], strict=True):
        sums[place[first]] += exact[first:stop].sum(
            axis=0
        )  # np.add.reduceat takes ten times as long
    return int(np.rint(np.square(exact).sum(axis=1) * NORM_GRID).astype(np.int64).sum())


@dataclass
class AddRanges(SliceWorker):
    """Adds up all groups for one range of centroids and takes the means."""

    parts: list[str]
    centroids: str
    out: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the new centroids and counts of the range; those without rows stay as they are."""
        first, stop = piece.payload["first"], piece.payload["stop"]
        with RowReader(self.centroids) as reader:
            old = reader.read(first, stop - first)
        sums = np.zeros(old.shape)
        counts = np.zeros(len(old), np.int64)
        for part in self.parts:
            ids = load(f"{part}-ids.npy")
            low, high = np.searchsorted(ids, [first, stop])
            if high > low:
                place = ids[low:high] - first
                with RowReader(f"{part}-sums.npy") as reader:
                    sums[place] += reader.read(int(low), int(high - low))
                counts[place] += load(f"{part}-counts.npy")[low:high]
        if np.abs(sums).max(initial=0) >= LARGEST_SUM:
            raise BadInputError("features are so large that their sums are no longer exact")
        means = sums / np.maximum(counts, 1)[:, None]
        new = np.where(counts[:, None] > 0, means, old).astype(np.float32)
        save(io.join(self.out, f"{piece.name}-means.npy"), new)
        save(io.join(self.out, f"{piece.name}-counts.npy"), counts)
        squares = np.square(old.astype(np.float64)).sum(axis=1)
        return {"products": float((old * sums).sum()), "squares": float((squares * counts).sum())}


@dataclass
class CountRows(SliceWorker):
    """Counts a group's rows by centroid."""

    assigner: Assigner
    column: str
    out: str

    def setup(self) -> None:
        """Read the centroids."""
        self.assigner.load()

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the counts [K]."""
        counts = np.zeros(self.assigner.num_centroids, np.int64)
        for block in blocks(piece.payload, self.column):
            found = self.assigner.find(block)
            counts += np.bincount(found[found >= 0], minlength=len(counts))
        save(io.join(self.out, f"{piece.name}-counts.npy"), counts)
        return {"rows": int(counts.sum())}
