"""Put sorted parts of uids together as one subset file, range by range, by many workers.

The uid space is cut into equal ranges. A worker gathers one range from every part, sorts it and
writes it; the ranges follow each other, so no one ever holds or sorts them all.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.core.run import Run
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools.subset import ranges, write_header
from gristmill.pools.uid import UID_DTYPE, UidArray, sort_uids

UIDS_PER_RANGE = 1 << 24
"""About 16 million uids, 256 MiB, in one worker's hands."""


def save_part(uri: str, uids: UidArray) -> None:
    """Write a slice's kept uids, sorted, as bare records."""
    io.write_bytes(uri, sort_uids(uids).tobytes())


@dataclass
class _MergeRange(SliceWorker):
    """Gathers one range of the uid space from all parts."""

    parts: list[str]
    target: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the range's uids, sorted, as bare records."""
        uids = gather_range(self.parts, piece)
        io.write_bytes(io.join(self.target, piece.name), uids.tobytes())
        return {"count": len(uids)}


def range_slices(total: int) -> list[Slice]:
    """The uid space cut into ranges that hold about UIDS_PER_RANGE of `total` uids each."""
    count = max(1, -(-total // UIDS_PER_RANGE))
    return [
        Slice(name=f"{i:06d}", weight=max(total // count, 1), payload={"low": low, "high": high})
        for i, (low, high) in enumerate(ranges(count))
    ]


def gather_range(parts: Sequence[str], piece: Slice) -> UidArray:
    """The uids of one range from all parts, sorted."""
    found = [np.zeros(0, UID_DTYPE)]
    for part in parts:
        uids = io.map_records(part, UID_DTYPE)
        start = np.searchsorted(uids["f0"], np.uint64(piece.payload["low"]), "left")
        stop = np.searchsorted(uids["f0"], np.uint64(piece.payload["high"]), "right")
        found.append(uids[start:stop])
    return sort_uids(np.concatenate(found))


def merge_parts(
    run: Run, parts: Sequence[str], total: int, name: str, execution: Execution
) -> None:
    """Write `name` in the run's folder from sorted parts; its hash goes into the manifest.

    Args:
        run: Where the subset goes.
        parts: Files of `save_part`.
        total: Uids in all parts.
        name: File name, such as subset.npy.
        execution: How many workers at most.
    """
    target = run.scratch("ranges")
    pieces = range_slices(total)
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
