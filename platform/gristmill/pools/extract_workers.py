"""What extract's workers do: find the rows that a subset lists, copy them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.pools import columns
from gristmill.pools.pool import open_parquet, read_slice
from gristmill.pools.subset import Subset, search
from gristmill.pools.uid import parse_uids

if TYPE_CHECKING:
    import pyarrow as pa

ROW = np.dtype([("row", "<i8"), ("entry", "<i8"), ("times", "<i8")])
"""A row to copy: its number in the file, its first entry in the subset, how often it is listed."""
ROWS_PER_GROUP = 10_000
BYTES_PER_GROUP = 32 << 20
Rows = npt.NDArray[np.void]


def read_rows(folder: str, name: str) -> Rows:
    """The rows noted for a slice."""
    return np.frombuffer(io.read_bytes(io.join(folder, name)), ROW)


def write_rows(folder: str, name: str, rows: Rows) -> None:
    """Note the rows of a slice."""
    io.write_bytes(io.join(folder, name), rows.tobytes())


@dataclass
class FindRows(SliceWorker):
    """Notes which rows of a slice the subset lists; of rows with the same uid the first."""

    subset: str
    found: str
    _subset: Subset | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Map the subset; its order was checked by the driver."""
        self._subset = Subset.load(self.subset, check=False)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Read the uids, a row group at a time."""
        assert self._subset is not None
        parts = [np.zeros(0, ROW)]
        for first, table in read_slice(piece, [columns.UID]):
            uids = parse_uids(table[columns.UID], where=piece.payload["uri"], first_row=first)
            entry = search(self._subset.uids, uids, "left")
            times = search(self._subset.uids, uids, "right") - entry
            listed = np.flatnonzero(times > 0)
            part = np.empty(len(listed), ROW)
            part["row"], part["entry"], part["times"] = first + listed, entry[listed], times[listed]
            parts.append(part)
        every = np.concatenate(parts)
        rows = every[np.sort(np.unique(every["entry"], return_index=True)[1])]
        write_rows(self.found, piece.name, rows)
        return {"found": len(rows), "repeated": len(every) - len(rows)}


@dataclass
class CopyRows(SliceWorker):
    """Copies the noted rows of a slice, all columns, to a metadata file."""

    placed: str
    out: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write metadata/{slice}.parquet; returns the rows written and its hash."""
        import pyarrow.parquet as pq

        rows = read_rows(self.placed, piece.payload["rows"])
        with open_parquet(piece.payload["uri"]) as (file, _):
            schema = file.schema_arrow
        name, written = f"metadata/{piece.name}.parquet", 0
        with (
            io.open_hashed(io.join(self.out, name)) as hashing,
            pq.ParquetWriter(hashing, schema, compression="zstd") as writer,
        ):
            for group in _joined(_copies(piece, rows, schema.names)):
                writer.write_table(group, row_group_size=ROWS_PER_GROUP)
                written += group.num_rows
        return {"written": written, "files": {name: hashing.entry}}


def _copies(piece: Slice, rows: Rows, names: list[str]) -> "Iterator[pa.Table]":
    """The wanted rows, each as often as it is listed, in tables of bounded length."""
    for first, table in read_slice(piece, names):
        start, stop = np.searchsorted(rows["row"], [first, first + table.num_rows])
        places, times = rows["row"][start:stop] - first, rows["times"][start:stop]
        ends = np.cumsum(times)
        # Not repeated all at once: a uid may be listed a million times.
        for low in range(0, int(ends[-1]) if len(ends) else 0, ROWS_PER_GROUP):
            high = min(low + ROWS_PER_GROUP, int(ends[-1]))
            which = np.searchsorted(ends, np.arange(low, high), "right")
            yield table.take(places[which])


def _joined(tables: "Iterator[pa.Table]") -> "Iterator[pa.Table]":
    """Tables put together until they make a row group."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        full = sum(t.num_rows for t in waiting) >= ROWS_PER_GROUP
        if full or sum(t.nbytes for t in waiting) >= BYTES_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
