"""Files of records cut into pieces of work, and their identity; shared by pools and corpora."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.core import io
from gristmill.core.records import is_compressed, kind_of

RANGE_BYTES = 128 << 20
FILES_PER_SLICE = 1000
SIZES_AT_ONCE = 16


def sizes_of(files: Sequence[str]) -> list[int]:
    """The size of each file in bytes."""
    with ThreadPoolExecutor(SIZES_AT_ONCE) as threads:
        return list(threads.map(io.size_bytes, files))


def cut(files: Sequence[str], sizes: Sequence[int]) -> list[tuple[dict[str, Any], int]]:
    """Pieces of work (payload, bytes): plain files of lines by bytes, others whole, .txt by 1000.

    A payload has `files`, and `start` and `stop` where it is a range of one file.
    """
    pieces: list[tuple[dict[str, Any], int]] = []
    loose = [(f, n) for f, n in zip(files, sizes, strict=True) if kind_of(f) == "txt"]
    for i in range(0, len(loose), FILES_PER_SLICE):
        part = loose[i : i + FILES_PER_SLICE]
        pieces.append(({"files": [f for f, _ in part]}, sum(n for _, n in part)))
    for uri, size in zip(files, sizes, strict=True):
        if kind_of(uri) == "lines" and not is_compressed(uri):
            for start in range(0, size, RANGE_BYTES):
                stop = min(start + RANGE_BYTES, size)
                pieces.append(({"files": [uri], "start": start, "stop": stop}, stop - start))
        elif kind_of(uri) != "txt":
            pieces.append(({"files": [uri]}, size))
    return pieces


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
