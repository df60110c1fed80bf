"""Put parts of uids together as one subset file, range by range, by many workers.

The uid space is cut into equal ranges. A worker gathers one range from every part, sorts it and
writes it; the ranges follow each other, so no one ever holds or sorts them all.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.run import Run
from gristmill.execution.parts import gather, range_slices, save_by_key
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools.subset import write_header
from gristmill.pools.uid import UID_DTYPE, UidArray, sort_uids


def save_part(uri: str, uids: UidArray, ranges: int) -> None:
    """Write a slice's kept uids, sorted and cut into ranges."""
    save_by_key(uri, sort_uids(uids), ranges)


@dataclass
class _MergeRange(SliceWorker):
    """Gathers one range of the uid space from all parts."""

    parts: list[str]
    target: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the range's uids, sorted, as bare records."""
        uids = sort_uids(gather(self.parts, piece.payload["range"], UID_DTYPE))
        io.write_bytes(io.join(self.target, piece.name), uids.tobytes())
        return {"count": len(uids)}


def merge_parts(
    run: Run, parts: Sequence[str], total: int, ranges: int, name: str, execution: Execution
) -> None:
    """Write `name` in the run's folder from parts; its hash goes into the manifest.

    Args:
        run: Where the subset goes.
        parts: Files of `save_part`.
        total: Uids in all parts.
        ranges: Into how many ranges each part is cut.
        name: File name, such as subset.npy.
        execution: How many workers at most.
    """
    target = run.scratch("ranges")
    pieces = range_slices(ranges, total)
    done = map_slices(
        "sort uids",
        pieces,
        _MergeRange(list(parts), target),
        ledger=run.scratch("ranges-done"),
        execution=execution,
        unit="uids",
    )
    assert sum(d["count"] for d in done) == total, "parts and ranges disagree"
    with io.open_hashed(run.path(name)) as hashing:
        write_header(hashing, total)  # type: ignore[arg-type]
        for piece in pieces:
            with io.open_read(io.join(target, piece.name)) as source:
                shutil.copyfileobj(source, hashing, io.CHUNK_BYTES)
    run.add_output(name, sha256=hashing.sha256, num_bytes=hashing.num_bytes)
