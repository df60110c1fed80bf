"""The reference row of largest inner product, the same whatever the batch, the blocks or engine.

Scores are float32 products in blocks, whose last bits depend on how a BLAS sums them. Where the
best two lie closer than rounding can tell apart, all that may be best are compared anew in float64,
summed pairwise in one fixed order; of equal ones the lowest index wins, as in numpy and torch.

Legend: N rows, K references, D numbers in each.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError, MissingExtraError

ROWS_AT_ONCE = 2048
REFERENCES_AT_ONCE = 4096
PAIRS_AT_ONCE = 8192
UNIT_ROUNDING = 2.0**-24
"""Largest relative error of one float32 operation."""
Engine = Literal["numpy", "faiss"]
Rows = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


class Nearest:
    """Finds nearest references.

    Args:
        references: Shape [K, D], float16 or float32, finite; held as they are.
        unit: Compare directions (cosine): rows and references are scaled to length 1 first.
        engine: What multiplies; the result is the same.

    Raises:
        BadInputError: There are no references, or one is not finite.
        MissingExtraError: faiss is not installed.
    """

    def __init__(self, references: Rows, *, unit: bool = False, engine: Engine = "numpy") -> None:
        if references.ndim != 2 or not len(references):
            raise BadInputError(f"references have shape {references.shape}; they must be [k, d]")
        self._references, self._unit = references, unit
        self._longest = 1.0 if unit else 0.0
        for block in self._blocks():
            if not np.isfinite(block).all():
                raise BadInputError("a reference row holds NaN or infinity")
            self._longest = max(self._longest, float(_lengths(block).max()))
        self._faiss = _faiss_index(list(self._blocks())) if engine == "faiss" else None

    @property
    def num_references(self) -> int:
        """How many references there are."""
        return len(self._references)

    @property
    def size(self) -> int:
        """Numbers in each."""
        return int(self._references.shape[1])

    def find(self, rows: Rows, *, floor: float = -np.inf) -> Index:
        """Index of each row's nearest reference, shape [N]; -1 for rows with NaN or infinity.

        Args:
            rows: Shape [N, D].
            floor: Ties among scores surely below it need not be settled exactly.

        Raises:
            BadInputError: Rows and references differ in size.
        """
        if rows.shape[1] != self.size:
            raise BadInputError(
                f"features have {rows.shape[1]} numbers a row and the references {self.size}; "
                "both must come from one model"
            )
        found = np.full(len(rows), -1, np.int64)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            block = rows[first : first + ROWS_AT_ONCE].astype(np.float32)
            good = np.flatnonzero(np.isfinite(block).all(axis=1))
            if len(good):
                found[first + good] = self._find(self._scaled(block[good]), floor)
        return found

    def scores(self, rows: Rows, found: Index) -> npt.NDArray[np.float64]:
        """Inner products of rows with the references found for them; NaN where there is none."""
        result = np.full(len(rows), np.nan)
        good = np.flatnonzero(found >= 0)
        for first in range(0, len(good), ROWS_AT_ONCE):
            some = good[first : first + ROWS_AT_ONCE]
            left = self._scaled(rows[some].astype(np.float32))
            result[some] = _exact(left, self._take(found[some]))
        return result

    def _scaled(self, rows: Rows) -> Rows:
        if not self._unit:
            return rows
        lengths = _lengths(rows)[:, None]
        return np.divide(rows, lengths, where=lengths > 0, out=np.zeros_like(rows)).astype(
            np.float32
        )

    def _take(self, index: Index) -> Rows:
        return self._scaled(self._references[index].astype(np.float32, copy=False))

    def _blocks(self) -> Iterator[Rows]:
        for first in range(0, self.num_references, REFERENCES_AT_ONCE):
            block = self._references[first : first + REFERENCES_AT_ONCE]
            yield self._scaled(block.astype(np.float32, copy=False))

    def _find(self, rows: Rows, floor: float) -> Index:
        if self._faiss is not None:
            found, best, second = _search(self._faiss, rows)
        else:
            found, best, second = self._multiply(rows)
        # Any order of summing D products errs by at most this (Higham, 2002, section 3.1).
        error = (self.size + 2) * UNIT_ROUNDING * _lengths(rows) * self._longest
        unsure = (best - second <= 2 * error) & (best >= floor - 2 * error)
        zero = ~rows.any(axis=1)
        found[zero] = 0
        again = np.flatnonzero(unsure & ~zero)
        if len(again):
            found[again] = self._settle(rows[again], best[again] - 2 * error[again])
        return found

    def _multiply(self, rows: Rows) -> tuple[Index, Rows, Rows]:
        """Index and score of the best, score of the second."""
        every = np.arange(len(rows))
        found = np.zeros(len(rows), np.int64)
        best = np.full(len(rows), -np.inf, np.float32)
        second = best.copy()
        first = 0
        for block in self._blocks():
            scores = rows @ block.T
            place = scores.argmax(axis=1)
            top = scores[every, place]
            scores[every, place] = -np.inf
            second = np.maximum.reduce([np.minimum(top, best), second, scores.max(axis=1)])
            found = np.where(top > best, first + place, found)
            best = np.maximum(top, best)
            first += len(block)
        return found, best, second

    def _settle(self, rows: Rows, least: Rows) -> Index:
        """The nearest by float64, among references that score at least `least`."""
        best = np.full(len(rows), -np.inf)
        found = np.zeros(len(rows), np.int64)
        first = 0
        for block in self._blocks():
            near, which = np.nonzero(rows @ block.T >= least[:, None])
            for start in range(0, len(near), PAIRS_AT_ONCE):
                row, reference = (a[start : start + PAIRS_AT_ONCE] for a in (near, which))
                scores = _exact(rows[row], block[reference])
                order = np.lexsort((reference, -scores, row))
                row, reference, scores = row[order], reference[order], scores[order]
                head = np.flatnonzero(np.diff(row, prepend=-1))
                row, reference, scores = row[head], reference[head], scores[head]
                better = scores > best[row]  # not >=: the earlier index stays
                best[row[better]] = scores[better]
                found[row[better]] = first + reference[better]
            first += len(block)
        return found


def _lengths(rows: Rows) -> npt.NDArray[np.float64]:
    return np.sqrt(_exact(rows, rows))


def _exact(left: Rows, right: Rows) -> npt.NDArray[np.float64]:
    """Inner products row by row in float64; numpy sums each row pairwise, alone."""
    return (left.astype(np.float64) * right).sum(axis=1)


def _faiss_index(blocks: list[Rows]) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", "faiss") from error
    index = faiss.IndexFlatIP(blocks[0].shape[1])
    for block in blocks:
        index.add(np.ascontiguousarray(block))
    return index


def _search(index: Any, rows: Rows) -> tuple[Index, Rows, Rows]:
    scores, found = index.search(np.ascontiguousarray(rows), min(2, index.ntotal))
    second = scores[:, 1] if index.ntotal > 1 else np.full(len(rows), -np.inf, np.float32)
    return found[:, 0].astype(np.int64), scores[:, 0], second
