"""Files of records cut into pieces of work, and their identity; shared by pools and corpora."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.core.records import Record, is_compressed, kind_of, read_records, row_group_bytes

RANGE_BYTES = 128 << 20
FILES_PER_SLICE = 1000
SIZES_AT_ONCE = 16


def sizes_of(files: Sequence[str]) -> list[int]:
    """The size of each file in bytes."""
    with ThreadPoolExecutor(SIZES_AT_ONCE) as threads:
        return list(threads.map(io.size_bytes, files))


def cut(files: Sequence[str], sizes: Sequence[int]) -> list[tuple[dict[str, Any], int]]:
    """Pieces of work (payload, bytes): plain files of lines by bytes, texts by 1000, others whole.

    A large parquet file is cut between its row groups. A payload has `files`, and where it is a
    range of one file `start` and `stop`, or `row_groups`. A packed file can only be read from its
    start: whoever reads it must not hold it.
    """
    pieces: list[tuple[dict[str, Any], int]] = []
    loose = [(f, n) for f, n in zip(files, sizes, strict=True) if _is_text(f)]
    for i in range(0, len(loose), FILES_PER_SLICE):
        part = loose[i : i + FILES_PER_SLICE]
        pieces.append(({"files": [f for f, _ in part]}, sum(n for _, n in part)))
    for uri, size in zip(files, sizes, strict=True):
        if kind_of(uri) == "lines" and not is_compressed(uri):
            for start in range(0, size, RANGE_BYTES):
                stop = min(start + RANGE_BYTES, size)
                pieces.append(({"files": [uri], "start": start, "stop": stop}, stop - start))
        elif kind_of(uri) == "parquet" and size > RANGE_BYTES:
            pieces += _row_groups(uri)
        elif not _is_text(uri):
            pieces.append(({"files": [uri]}, size))
    return pieces


def _is_text(uri: str) -> bool:
    """A file that is one text; of no kind we know, it was chosen by its suffix as one."""
    return kind_of(uri) in ("txt", "")


def _row_groups(uri: str) -> list[tuple[dict[str, Any], int]]:
    """Row groups that follow each other, as many as a range holds; one at least."""
    try:
        sizes = row_group_bytes(uri)
    except CorruptDataError:  # the reader says so, of this file alone
        return [({"files": [uri]}, io.size_bytes(uri))]
    cuts, held = [0], 0
    for number, size in enumerate(sizes):
        if held and held + size > RANGE_BYTES:
            cuts.append(number)
            held = 0
        held += size
    return [
        ({"files": [uri], "row_groups": list(range(first, stop))}, sum(sizes[first:stop]))
        for first, stop in itertools.pairwise([*cuts, len(sizes)])
    ]


def read_piece(
    payload: Mapping[str, Any], names: Sequence[str], *, limit: int
) -> Iterator[tuple[str, Record]]:
    """(file, record) of a piece that `cut` made; see `read_records`."""
    part = {key: payload[key] for key in ("start", "stop", "row_groups") if key in payload}
    for uri in payload["files"]:
        for record in read_records(uri, names, limit=limit, **part):
            yield uri, record


def names_and_sizes(source: str, files: Sequence[str], sizes: Sequence[int]) -> dict[str, Any]:
    """Names and sizes, as one digest: hashing the bytes would cost as much as reading them."""
    names = [uri.removeprefix(source).lstrip("/") for uri in files]
    listed = json.dumps(list(zip(names, sizes, strict=True))).encode()
    return {
        "uri": io.redact(source),
        "files": len(files),
        "bytes": sum(sizes),
        "names_and_sizes_sha256": hashlib.sha256(listed).hexdigest(),
    }
