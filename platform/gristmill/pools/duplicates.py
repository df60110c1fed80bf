"""How many rows share a key (a uid, a sha256) with an earlier one: sorted parts, range by range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.execution.parts import gather, range_slices
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools.merge import save_part
from gristmill.pools.uid import UID_DTYPE, make_uids, parse_uids, sort_uids

KEY_DIGITS = 32
"""Keys longer than a uid are compared by their first 32 hex digits, 128 bits."""


def save_keys(uri: str, chunks: Sequence[Any], ranges: int) -> int:
    """Write the well-formed keys of string columns, sorted; returns how many are malformed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.concat_arrays(
        [c for chunk in chunks for c in chunk.chunks] or [pa.array([], "string")]
    )
    good = pc.fill_null(pc.match_substring_regex(column, "^[0-9a-fA-F]{32,}$"), False)
    kept = pc.utf8_slice_codeunits(column.filter(good), 0, KEY_DIGITS)
    save_part(uri, parse_uids(kept, where=uri) if len(kept) else make_uids([]), ranges)
    return len(column) - len(kept)


@dataclass
class _CountRange(SliceWorker):
    """Counts the keys of one range that repeat an earlier one."""

    parts: list[str]

    def process(self, piece: Slice) -> dict[str, Any]:
        """Gather one range of all parts and count repeats."""
        keys = sort_uids(gather(self.parts, piece.payload["range"], UID_DTYPE))
        same = (keys["f0"][1:] == keys["f0"][:-1]) & (keys["f1"][1:] == keys["f1"][:-1])
        return {"repeats": int(same.sum())}


def count_duplicates(
    parts: Sequence[str], rows: int, ranges: int, scratch: str, execution: Execution
) -> int:
    """Keys over all parts, each cut into `ranges`, less distinct keys."""
    done = map_slices(
        "find duplicates",
        range_slices(ranges, rows),
        _CountRange(list(parts)),
        ledger=scratch,
        execution=execution,
        unit="keys",
    )
    return sum(d["repeats"] for d in done)
