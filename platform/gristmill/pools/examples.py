"""A few dropped rows of each reason, for reports: those with the least uids, whatever the order."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.filters.base import AllOf, Filter, Verdict
from gristmill.pools import columns

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_CAPTION = 160
PREFIX = 8
"""Digits of a uid that settle the order of nearly all."""


class Examples:
    """Collects the examples of one slice."""

    def __init__(self, chain: AllOf, limit: int, judged: int = 0) -> None:
        self._chain, self._limit = chain, limit
        self._asked = chain.parts[judged:]  # an earlier pass judged the others: not set up here
        self.found: dict[str, list[list[str]]] = {}

    def add(self, table: "pa.Table", verdict: Verdict) -> None:
        """Look at one batch, which has the uid column."""
        if not len(verdict) or not verdict.any():
            return
        prefixes = _prefixes(table[columns.UID])
        code = 0
        for part in self._chain.parts:
            for _ in part.reasons:
                code += 1
                rows = np.flatnonzero(verdict == code)
                if len(rows):
                    self._merge(code, part, table.take(_least(prefixes, rows, self._limit)))

    def _merge(self, code: int, part: Filter, rows: "pa.Table") -> None:
        asked = part.columns and any(part is one for one in self._asked)
        notes = part.notes(rows.select(list(part.columns))) if asked else None
        new = [
            [uid, _words(rows, i, notes[i] if notes else "")]
            for i, uid in enumerate(rows[columns.UID].to_pylist())
        ]
        reason = self._chain.reasons[code - 1]
        self.found[reason] = sorted(self.found.get(reason, []) + new)[: self._limit]


def _prefixes(uids: "pa.ChunkedArray") -> npt.NDArray[np.uint64]:
    """The first digits of each uid as a number that sorts as they do; of bad uids, anything."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.binary_length(uids), 0).to_numpy()
    if not len(lengths) or lengths.min() != 32 or lengths.max() != 32:
        return np.zeros(len(lengths), np.uint64)
    column = uids.combine_chunks().cast(pa.large_string())
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    _, offsets, data = column.buffers()
    start = int(np.frombuffer(offsets, np.int64)[column.offset])
    words = np.frombuffer(data, np.uint8, 32 * len(column), start).view(">u8")
    return words[:: 32 // PREFIX].astype(np.uint64)


def _least(
    prefixes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64], limit: int
) -> npt.NDArray[np.int64]:
    """The rows of the least uids: at least `limit`, with all ties of the last one's prefix."""
    if len(rows) <= limit:
        return rows
    mine = prefixes[rows]
    edge = np.partition(mine, limit)[limit]
    return rows[mine <= edge][: 4 * limit]


def _value(cell: "pa.Scalar") -> Any:
    """A cell; text that is not UTF-8 with marks in place of its bad bytes."""
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return bytes(cell.as_buffer()).decode("utf-8", "replace")


def _words(table: "pa.Table", row: int, note: str) -> str:
    values: list[Any] = [note] if note else []
    for name in table.column_names:
        if name == columns.UID or name.startswith("repeats-"):
            continue
        value = _value(table[name][row])
        if isinstance(value, str):
            values.append(value[:LONGEST_CAPTION])
        elif not isinstance(value, list):
            values.append(f"{name}={value}")
    return ", ".join(values)
