"""Features as columns: the .npz beside a metadata file, row for row (DataComp's form).

A column named `..._img` or `..._txt` that a parquet file lacks is looked for in the .npz of the
same stem. It joins the table as fixed-size lists; `core.arrays.from_column` gives the array back.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill.core import arrays, io
from gristmill.core.errors import BadInputError, CorruptDataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1 << 14
"""A million rows of 768 float16 are 1.5 GB, so tables with features are cut to these: 25 MB."""
PLAIN_ROWS_AT_ONCE = 1 << 16
"""Others are cut to these, so that what filters make of a batch stays small."""
FILES_AT_ONCE = 16
SUFFIXES = ("_img", "_txt")


class Wanted(NamedTuple):
    """Features that a metadata file should have beside it."""

    uri: str
    """The parquet file."""
    name: str
    rows: int


def is_feature(name: str) -> bool:
    """Whether a column may stand in the .npz."""
    return name.endswith(SUFFIXES)


def beside(uri: str) -> str:
    """The .npz beside a metadata file."""
    return uri.removesuffix(".parquet") + ".npz"


def missing(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """The features among the wanted columns that a file with these names does not hold itself."""
    return [name for name in wanted if is_feature(name) and name not in names]


def check(wanted: Sequence[Wanted]) -> None:
    """Check that all are there, of one size each, with a row for every row of metadata.

    Raises:
        BadInputError: One is not; names the file and says what adds features.
    """
    sizes: dict[str, tuple[int, str]] = {}
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        for one, size in zip(wanted, threads.map(_size, wanted), strict=True):
            first, where = sizes.setdefault(one.name, (size, one.uri))
            if size != first:
                raise BadInputError(
                    f"features {one.name} have {size} numbers a row in "
                    f"{io.redact(beside(one.uri))} and {first} in {io.redact(beside(where))}; "
                    "they are of different models: score the whole pool with one"
                )


def _size(wanted: Wanted) -> int:
    """Numbers a row."""
    uri = beside(wanted.uri)
    remedy = "gristmill pool score adds features"
    if not io.exists(uri):
        raise BadInputError(
            f"{io.redact(wanted.uri)} has no column {wanted.name}, and no {io.redact(uri)} stands "
            f"beside it; {remedy}"
        )
    try:
        with arrays.RowReader(uri, wanted.name) as reader:
            rows, size = reader.require_features().header.shape
    except CorruptDataError:
        raise
    except BadInputError as error:
        raise BadInputError(f"{error}; {remedy}") from error
    if rows != wanted.rows:
        raise BadInputError(
            f"{wanted.name} of {io.redact(uri)} has {rows:,} rows and its parquet file "
            f"{wanted.rows:,}; {remedy} that match"
        )
    return size


def identity(uris: Sequence[str]) -> dict[str, Any]:
    """What pins the features beside metadata files: sizes and CRC-32 of their arrays.

    These stand in each .npz's directory, so no feature is read.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        found = threads.map(arrays.identity, [beside(uri) for uri in uris])
        for uri, entry in zip(uris, found, strict=True):
            digest.update(json.dumps([beside(uri).rsplit("/", 1)[-1], entry]).encode())
    return {"files": len(uris), "directories_sha256": digest.hexdigest()}


class FeatureColumns:
    """Adds features to tables of one metadata file, in row order. A context manager."""

    def __init__(self, uri: str, names: Sequence[str]) -> None:
        self._uri, self._names = uri, names
        self._readers: dict[str, arrays.RowReader] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "FeatureColumns":
        npz = beside(self._uri)
        if self._names and io.exists(npz):
            held = arrays.members(npz)
            for name in self._names:
                if name in held:
                    reader = self._open.enter_context(arrays.RowReader(npz, name))
                    self._readers[name] = reader.require_features()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def added_to(self, table: "pa.Table", row: int) -> "Iterator[pa.Table]":
        """The table with its features, in pieces of bounded size.

        Args:
            table: Rows of the metadata file.
            row: Number in the file of the first.
        """
        most = ROWS_AT_ONCE if self._readers else PLAIN_ROWS_AT_ONCE
        for first in range(0, max(table.num_rows, 1), most):
            part = table.slice(first, most)
            for name, reader in self._readers.items():
                rows = reader.read(row + first, part.num_rows)
                part = part.append_column(name, arrays.to_column(rows))
            yield part
