"""Rows of two-dimensional arrays on any storage: a .npy, or one in a .npz, never whole in memory.

`np.savez` stores its members as they are, so rows lie at known offsets and are read there. They are
read, not mapped: a zip aligns nothing, and Arrow and BLAS want aligned memory. A compressed .npz
is unpacked from its start, so its rows must be asked for in rising order.
"""

import contextlib
import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError

if TYPE_CHECKING:
    import pyarrow as pa

FEATURE_DTYPES = (np.dtype("<f2"), np.dtype("<f4"))
_ZIP_HEADER = 30
"""Bytes of a zip member's local header before its name (APPNOTE.TXT, section 4.3.7)."""
_UNREADABLE = (zipfile.BadZipFile, ValueError, OSError, EOFError, struct.error, NotImplementedError)
Rows = npt.NDArray[Any]
"""Shape (rows, ...)."""


@dataclass(frozen=True)
class ArrayHeader:
    """What a .npy says of itself, and where its numbers begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int
    """Offset of the first number in the file; -1 in a compressed .npz."""


def members(uri: str) -> dict[str, tuple[int, int]]:
    """The arrays of a .npz: name -> (bytes, CRC-32), from its directory alone.

    Raises:
        CorruptDataError: It is not a readable .npz.
    """
    with io.open_read(uri) as file, _clear_errors(uri), zipfile.ZipFile(file) as archive:
        return {
            info.filename.removesuffix(".npy"): (info.file_size, info.CRC)
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


def identity(uri: str) -> dict[str, Any]:
    """What pins an array file in a run: the SHA-256 of a .npy; of a .npz that of its directory,
    which holds the size and CRC-32 of every array."""
    if not uri.endswith(".npz"):
        return {"sha256": io.sha256(uri)}
    listed = json.dumps(sorted(members(uri).items())).encode()
    return {"directory_sha256": hashlib.sha256(listed).hexdigest()}


class RowReader:
    """Reads runs of rows of one array. A context manager.

    Args:
        uri: A .npy or a .npz.
        member: Which array of a .npz.

    Raises:
        BadInputError: No such file, or no such array in it.
        CorruptDataError: The file is cut short or is something else.
    """

    def __init__(self, uri: str, member: str = "") -> None:
        self.uri, self.member = uri, member
        self.where = f"{member} of {io.redact(uri)}" if member else io.redact(uri)
        self._file = io.open_read(uri)
        self._stream: IO[bytes] | None = None
        self._archive: zipfile.ZipFile | None = None
        self._next = 0
        try:
            with _clear_errors(uri):
                self.header = self._find() if member else _read_header(self._file)
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        for handle in (self._stream, self._archive, self._file):
            if handle is not None:
                handle.close()

    @property
    def num_rows(self) -> int:
        """Length of the first axis."""
        return self.header.shape[0]

    def read(self, first: int, count: int) -> Rows:
        """Rows [first, first + count) as a fresh array.

        Raises:
            CorruptDataError: The file ends before them.
        """
        shape = (count, *self.header.shape[1:])
        result = np.empty(shape, self.header.dtype)
        row_bytes = result.nbytes // count if count else 0
        with _clear_errors(self.uri):
            if self._stream is not None:
                self._skip((first - self._next) * row_bytes)
                got = _fill(self._stream, result)
                self._next = first + count
            else:
                self._file.seek(self.header.start + first * row_bytes)
                got = _fill(self._file, result)
        if got != result.nbytes:
            raise CorruptDataError(f"{self.where} is cut short at row {first + got // row_bytes}")
        return result

    def blocks(self, rows: int) -> Iterator[Rows]:
        """All rows in order, up to `rows` at once."""
        for first in range(0, self.num_rows, rows):
            yield self.read(first, min(rows, self.num_rows - first))

    def require_features(self) -> "RowReader":
        """This reader, once it is sure that the array is one of features.

        Raises:
            BadInputError: It is not two-dimensional, or neither float16 nor float32.
        """
        header = self.header
        if len(header.shape) != 2 or header.dtype not in FEATURE_DTYPES or not header.shape[1]:
            raise BadInputError(
                f"{self.where} has shape {header.shape} and type {header.dtype}; features are "
                "two-dimensional arrays of float16 or float32"
            )
        return self

    def _find(self) -> ArrayHeader:
        archive = self._archive = zipfile.ZipFile(self._file)
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if self.member not in names:
            raise BadInputError(
                f"{io.redact(self.uri)} has no array {self.member}; it has {', '.join(names)}"
            )
        info = archive.getinfo(self.member + ".npy")
        stream = self._stream = archive.open(info)
        header = _read_header(stream)
        if info.compress_type != zipfile.ZIP_STORED:
            return ArrayHeader(header.dtype, header.shape, header.fortran, -1)
        stream.close()
        self._stream = None
        self._file.seek(info.header_offset)
        local = self._file.read(_ZIP_HEADER)
        name_bytes, extra_bytes = struct.unpack("<HH", local[26:30])
        start = info.header_offset + _ZIP_HEADER + name_bytes + extra_bytes + header.start
        return ArrayHeader(header.dtype, header.shape, header.fortran, start)

    def _check(self) -> None:
        if self.header.dtype.hasobject:
            raise BadInputError(f"{self.where} holds Python objects, which are never unpickled")
        if not self.header.shape:
            raise BadInputError(f"{self.where} is a single value, not an array of rows")
        if self.header.fortran and len(self.header.shape) > 1:
            raise BadInputError(
                f"{self.where} is in Fortran order, so its rows lie apart; write it again from "
                "np.ascontiguousarray"
            )

    def _skip(self, num_bytes: int) -> None:
        assert self._stream is not None
        if num_bytes < 0:
            raise ValueError("rows of a compressed array can be read in rising order only")
        while num_bytes > 0:
            got = len(self._stream.read(min(num_bytes, io.CHUNK_BYTES)))
            if not got:
                return
            num_bytes -= got


def _read_header(file: IO[bytes]) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    return ArrayHeader(dtype, tuple(shape), bool(fortran), file.tell())


def _fill(file: IO[bytes], target: Rows) -> int:
    """Read into an array; returns the bytes there were."""
    view, got = memoryview(target.reshape(-1).view(np.uint8)), 0  # type: ignore[arg-type]
    while got < len(view):
        count = file.readinto(view[got:])  # type: ignore[attr-defined]
        if not count:
            break
        got += count
    return got


@contextlib.contextmanager
def _clear_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except BadInputError:
        raise
    except _UNREADABLE as error:
        raise CorruptDataError(f"{io.redact(uri)} is not a readable array file: {error}") from error


def to_column(rows: Rows) -> "pa.FixedSizeListArray":
    """Rows [n, d] of float16 or float32 as an Arrow column of n lists; shares their memory."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def from_column(column: "pa.ChunkedArray", name: str) -> npt.NDArray[np.floating[Any]]:
    """A feature column as an array [n, d]; shares memory when it is one chunk without nulls.

    A null row becomes NaN.

    Raises:
        BadInputError: The column's entries are not lists of one length.
    """
    import pyarrow as pa

    kind = column.type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise BadInputError(
            f"column {name} is {kind}; features are fixed-size lists of float16 or float32, taken "
            "from the .npz beside the metadata"
        )
    chunks = [_rows_of(chunk, kind.list_size) for chunk in column.chunks]
    if len(chunks) == 1:
        return chunks[0]
    empty = np.zeros((0, kind.list_size), kind.value_type.to_pandas_dtype())
    return np.concatenate([empty, *chunks])


def _rows_of(chunk: Any, width: int) -> Rows:
    if not chunk.null_count:
        return np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)
    rows = np.full((len(chunk), width), np.nan, np.dtype(chunk.type.value_type.to_pandas_dtype()))
    rows[chunk.is_valid().to_numpy(zero_copy_only=False)] = _rows_of(chunk.drop_null(), width)
    return rows
