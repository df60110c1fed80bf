"""Find rows that repeat better ones, for filters that group rows by key: two maps, flat memory.

The first map judges each slice by the filters before, keys the rows they keep, and writes the
records sorted by key and cut into key ranges. The second gathers a range of all parts, so that
every group is whole in one worker's hands, and writes the numbers of the rows that go, cut by
slice. Which rows go depends on ranks and row numbers alone, not on slices, ranges or workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.execution.parts import gather, range_slices, ranges_for, save_by_key, save_by_row
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.filters.base import GroupFilter
from gristmill.pools import columns
from gristmill.pools.facts import order_keys
from gristmill.pools.judging import ROW, Chain, placed_errors
from gristmill.pools.pool import read_slice
from gristmill.pools.uid import hex_of_uid, parse_uids

KEYED = [(name, "<u8") for name in ("f0", "f1", "rank", "row", "high", "low")]
"""A record: key, rank (least first), row number in the pool, uid; then the payload."""
PAIRS_SHOWN = 12
PROBED_ROWS = 1000


@dataclass
class _Key(SliceWorker):
    """Keys a slice's surviving rows."""

    chosen: GroupFilter
    chain: Chain
    parts: str
    verdicts: str
    ranges: int
    kind: "np.dtype[Any]"

    def setup(self) -> None:
        """Set up the filters."""
        self.chain.setup()
        self.chosen.setup()

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the records and, where filters went before, the verdicts."""
        found, verdicts = [], []
        for judged in self.chain.read(piece):
            verdicts.append(judged.verdict)
            rows = np.flatnonzero(judged.verdict == 0)
            table = judged.table if len(rows) == len(judged.verdict) else judged.table.take(rows)
            with placed_errors(piece, judged.row):
                records = keyed_records(self.chosen, table, piece.payload["uri"], judged.row + rows)
            if records.dtype != self.kind:
                raise BadInputError(
                    f"{io.redact(piece.payload['uri'])}, rows from {judged.row}: "
                    f"{type(self.chosen).__name__} compares {_payload(records.dtype)} here and "
                    f"{_payload(self.kind)} where the pool begins; all files need one type"
                )
            records["row"] += np.uint64(self.chain.starts[piece.name] + judged.at - judged.row)
            found.append(records)
        records = np.concatenate(found)
        order = np.argsort(records["f0"], kind="stable")
        save_by_key(io.join(self.parts, piece.name), records[order], self.ranges)
        if self.verdicts:
            data = np.concatenate(verdicts).tobytes()
            io.write_bytes(io.join(self.verdicts, piece.name), data)
        return {"keys": len(records)}


def _payload(kind: "np.dtype[Any]") -> str:
    return str(kind["payload"]) if "payload" in (kind.names or ()) else "keys alone"


def keyed_records(
    chosen: GroupFilter, table: Any, uri: str, rows: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Records of a batch whose rows have these numbers in the file at `uri`."""
    keyed = chosen.keyed(table.select(list(chosen.columns)))
    if keyed.keys.shape != (len(keyed.rows), 2):
        raise BadInputError(
            f"{type(chosen).__name__}.keyed must give keys of shape ({len(keyed.rows)}, 2), one a "
            f"row number; it gave {keyed.keys.shape}"
        )
    kind: list[Any] = list(KEYED)
    if keyed.payload is not None:
        kind.append(("payload", keyed.payload.dtype, keyed.payload.shape[1:]))
    records = np.zeros(len(keyed.rows), kind)
    records["f0"], records["f1"] = keyed.keys[:, 0], keyed.keys[:, 1]
    if chosen.best_by:
        best = table[chosen.best_by].cast("float64").to_numpy()
        records["rank"] = ~order_keys(best)[keyed.rows]
    records["row"] = rows[keyed.rows]
    uids = parse_uids(table[columns.UID], where=uri, rows=rows)[keyed.rows]
    records["high"], records["low"] = uids["f0"], uids["f1"]
    if keyed.payload is not None:
        records["payload"] = keyed.payload
    return records


@dataclass
class _Group(SliceWorker):
    """Decides which rows of one key range go."""

    chosen: GroupFilter
    sources: list[str]
    kind: "np.dtype[Any]"
    target: str
    ends: npt.NDArray[np.int64]

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the numbers of the rows that go."""
        records = gather(self.sources, piece.payload["range"], self.kind)
        order = np.lexsort([records[n] for n in ("row", "rank", "f1", "f0")])
        records = records[order]
        gone, kept = repeated_records(self.chosen, records)
        pairs = [
            [hex_of_uid((records["high"][i], records["low"][i])) for i in pair]
            for pair in zip(gone[:PAIRS_SHOWN], kept[:PAIRS_SHOWN], strict=True)
        ]
        rows = np.unique(records["row"][gone].astype(ROW))
        save_by_row(io.join(self.target, piece.name), rows, self.ends)
        return {"gone": len(rows), "pairs": pairs}


def repeated_records(
    chosen: GroupFilter, records: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of sorted records: the places of those that go, and of each one's group's first."""
    if not len(records):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new = np.ones(len(records), bool)
    new[1:] = (records["f0"][1:] != records["f0"][:-1]) | (records["f1"][1:] != records["f1"][:-1])
    starts = np.flatnonzero(new)
    if type(chosen).repeated is GroupFilter.repeated:
        gone = np.flatnonzero(~new)
        return gone, starts[np.searchsorted(starts, gone, "right") - 1]
    sizes = np.diff(np.append(starts, len(records)))
    payload = records["payload"] if "payload" in (records.dtype.names or ()) else None
    found = [np.zeros(0, np.int64)]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group = None if payload is None else payload[start : start + size]
        found.append(start + np.flatnonzero(chosen.repeated(group, int(size))))
    gone = np.concatenate(found)
    return gone, starts[np.searchsorted(starts, gone, "right") - 1]


def find_repeats(
    chosen: GroupFilter,
    chain: Chain,
    pieces: Sequence[Slice],
    scratch: str,
    execution: Execution,
    *,
    skip_corrupt: bool,
) -> tuple[tuple[str, ...], str, list[list[str]]]:
    """Mark the rows that `chosen` drops among those that the chain keeps.

    Returns:
        The part files of the marks (row numbers cut by slice), the folder of the chain's verdicts
        (empty when there was none to keep), and a few pairs (uid that goes, its group's first).
    """
    # With none, rows that this pass could not read would look kept to the last one.
    verdicts = io.join(scratch, "verdicts") if chain.parts or skip_corrupt else ""
    kind, a_row = _probe(chosen, chain, pieces)
    total = sum(piece.weight for piece in pieces)
    ranges = ranges_for(int(total * a_row), kind.itemsize)
    keyed = io.join(scratch, "keyed")
    done = map_slices(
        f"key rows for {type(chosen).__name__}",
        pieces,
        _Key(chosen, chain, keyed, verdicts, ranges, kind),
        ledger=io.join(scratch, "keyed-done"),
        execution=execution,
        skip_corrupt=skip_corrupt,
    )
    whole = [p for p, d in zip(pieces, done, strict=True) if "corrupt" not in d]
    ends = np.cumsum([piece.weight for piece in pieces])
    sources = [io.join(keyed, piece.name) for piece in whole]
    found = map_slices(
        "find repeats",
        slices := range_slices(ranges, sum(d["keys"] for d in done if "keys" in d)),
        _Group(chosen, sources, kind, io.join(scratch, "marks"), ends),
        ledger=io.join(scratch, "marks-done"),
        execution=execution,
        unit="keys",
    )
    marks = tuple(io.join(scratch, "marks", piece.name) for piece in slices)
    pairs = sorted(pair for outcome in found for pair in outcome["pairs"])[:PAIRS_SHOWN]
    return marks, verdicts, pairs


def _probe(
    chosen: GroupFilter, chain: Chain, pieces: Sequence[Slice]
) -> "tuple[np.dtype[Any], float]":
    """The records' type and keys a row, from the first row group that has rows."""
    chosen.setup()
    kind, most = np.dtype(KEYED), 1.0
    for piece in pieces:
        try:
            row, table = next(read_slice(piece, chain.columns))
            table = table.slice(0, PROBED_ROWS)
            rows = row + np.arange(table.num_rows)
            records = keyed_records(chosen, table, piece.payload["uri"], rows)
        except (StopIteration, BadInputError, UnicodeDecodeError):  # for the map to report
            continue
        return records.dtype, max(len(records) / max(table.num_rows, 1), most)
    return kind, most
