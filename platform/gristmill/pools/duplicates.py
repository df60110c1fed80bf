"""How many rows share a key (a uid, a sha256) with an earlier one: sorted parts, range by range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools.merge import UIDS_PER_RANGE, save_part
from gristmill.pools.subset import ranges
from gristmill.pools.uid import UID_DTYPE, make_uids, parse_uids, sort_uids

KEY_DIGITS = 32
"""Keys longer than a uid are compared by their first 32 hex digits, 128 bits."""


def save_keys(uri: str, chunks: Sequence[Any]) -> int:
    """Write the well-formed keys of string columns, sorted; returns how many are malformed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.concat_arrays(
        [c for chunk in chunks for c in chunk.chunks] or [pa.array([], "string")]
    )
    good = pc.fill_null(pc.match_substring_regex(column, "^[0-9a-fA-F]{32,}$"), False)
    kept = pc.utf8_slice_codeunits(column.filter(good), 0, KEY_DIGITS)
    save_part(uri, parse_uids(kept, where=uri) if len(kept) else make_uids([]))
    return len(column) - len(kept)


@dataclass
class _CountRange(SliceWorker):
    """Counts the keys of one range that repeat an earlier one."""

    parts: list[str]

    def process(self, piece: Slice) -> dict[str, Any]:
        """Gather one range of all parts and count repeats."""
        found = [np.zeros(0, UID_DTYPE)]
        for part in self.parts:
            keys = io.map_records(part, UID_DTYPE)
            low = np.searchsorted(keys["f0"], np.uint64(piece.payload["low"]), "left")
            high = np.searchsorted(keys["f0"], np.uint64(piece.payload["high"]), "right")
            found.append(keys[low:high])
        keys = sort_uids(np.concatenate(found))
        same = (keys["f0"][1:] == keys["f0"][:-1]) & (keys["f1"][1:] == keys["f1"][:-1])
        return {"repeats": int(same.sum())}


def count_duplicates(parts: Sequence[str], scratch: str, execution: Execution) -> int:
    """Keys over all parts less distinct keys."""
    total = sum(io.size_bytes(part) for part in parts) // UID_DTYPE.itemsize
    count = max(1, -(-total // UIDS_PER_RANGE))
    pieces = [
        Slice(name=f"{i:06d}", weight=max(total // count, 1), payload={"low": low, "high": high})
        for i, (low, high) in enumerate(ranges(count))
    ]
    worker = _CountRange(list(parts))
    done = map_slices(
        "find duplicates", pieces, worker, ledger=scratch, execution=execution, unit="keys"
    )
    return sum(d["repeats"] for d in done)
