"""Part files: records cut into segments, so that a reader of one segment reads only its bytes.

This is how rows change hands between two maps. Every slice writes a part whose segments follow the
same edges (ranges of the key space, or slices of the pool); the worker of segment i reads segment
i of every part, by mapping a local file or by two ranged reads of a remote one.

Layout, little-endian: u64 number of segments, u64 offset of each segment and of the end, records.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.execution.work import Slice

SEGMENT_BYTES = 1 << 26
"""What one segment of all parts together holds, about: one worker's load."""
READS_AT_ONCE = 16
WORD = 8


def ranges_for(records: int, record_bytes: int = 16) -> int:
    """Into how many ranges the key space is cut for so many records of evenly spread keys."""
    return max(1, -(-records * record_bytes // SEGMENT_BYTES))


def range_slices(count: int, total: int) -> list[Slice]:
    """A slice for each of `count` ranges; `total` records weigh the progress line."""
    return [
        Slice(name=f"{i:06d}", weight=max(total // count, 1), payload={"range": i})
        for i in range(count)
    ]


def save_by_key(uri: str, records: npt.NDArray[Any], ranges: int) -> None:
    """Write records, sorted by their field f0, cut into `ranges` equal ranges of it."""
    lows = np.array([(i << 64) // ranges for i in range(1, ranges)], np.uint64)
    _save(uri, records, np.searchsorted(records["f0"], lows, "left"))


def save_by_row(uri: str, rows: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
    """Write sorted row numbers, cut where slices of the pool end (`ends`, the last one too)."""
    _save(uri, rows, np.searchsorted(rows, ends[:-1], "left"))


def save_segments(uri: str, segments: Sequence[bytes]) -> None:
    """Write a part whose segments are bytes of any length; read them back as records of uint8."""
    _write(uri, np.cumsum([0, *(len(segment) for segment in segments)]), segments)


def _save(uri: str, records: npt.NDArray[Any], cuts: npt.NDArray[Any]) -> None:
    data = np.ascontiguousarray(records).view(np.uint8).data
    _write(uri, np.concatenate([[0], cuts, [len(records)]]), [data])


def _write(uri: str, offsets: npt.NDArray[Any], data: Sequence[Any]) -> None:
    with io.open_write(uri) as file:
        file.write(np.array([len(offsets) - 1], "<u8").tobytes())
        file.write(offsets.astype("<u8").tobytes())
        for piece in data:
            file.write(piece)


def read_segment(uri: str, index: int, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """One segment, by two short reads; no file stays open, however many parts there are."""
    head = np.frombuffer(io.read_range(uri, 0, WORD * (index + 3)), "<u8")
    count, start, stop = int(head[0]), int(head[index + 1]), int(head[index + 2])
    base = WORD * (count + 2)
    data = io.read_range(uri, base + start * dtype.itemsize, base + stop * dtype.itemsize)
    return np.frombuffer(data, dtype)


def gather(parts: Sequence[str], index: int, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """Segment `index` of all parts, one after another."""
    if parts and not io.is_local(parts[0]):
        with ThreadPoolExecutor(READS_AT_ONCE) as threads:
            found = list(threads.map(lambda part: read_segment(part, index, dtype), parts))
    else:
        found = [read_segment(part, index, dtype) for part in parts]
    return np.concatenate([np.zeros(0, dtype), *found])
