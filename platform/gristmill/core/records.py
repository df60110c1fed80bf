"""Records of text files: JSON lines (plain, gzip, zstd), parquet, .txt files of one record.

Everything is streamed, and no line is held beyond a bound, whatever the file claims to be.
"""

import contextlib
import io as streams
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError

LINES = (".jsonl", ".ndjson", ".json")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
ROWS_AT_ONCE = 1000
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Unreadable:
    """Stands in place of a record that cannot be read."""

    reason: str
    """A few words without figures, so that equal ones can be counted together."""


NOT_UTF8, NOT_JSON = Unreadable("not UTF-8"), Unreadable("not a JSON object")
TOO_LONG = Unreadable("record over the size bound")
Record = dict[str, Any] | Unreadable


def kind_of(uri: str) -> str:
    """What a file's name says it holds: `lines`, `parquet`, `txt`, or nothing we read."""
    name = uri.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    if name.endswith(LINES):
        return "lines"
    if name.endswith(".txt"):
        return "txt"
    return "parquet" if uri.lower().endswith(".parquet") else ""


def is_compressed(uri: str) -> bool:
    """Whether a file must be read from its start."""
    return uri.lower().endswith(tuple(COMPRESSIONS))


def record_files(uri: str) -> list[str]:
    """The file at a URI, or all files of records below a folder, sorted.

    Raises:
        BadInputError: There are none.
    """
    if kind_of(uri) and io.exists(uri) and not io.list_files(uri):
        return [uri]
    found = [name for name in io.list_files(uri, recursive=True) if kind_of(name)]
    if not found:
        raise BadInputError(
            f"no records at {io.redact(uri)}: give a file or folder of .jsonl, .jsonl.gz, "
            ".jsonl.zst, .parquet or .txt"
        )
    return found


def read_records(
    uri: str, names: Sequence[str], *, limit: int, start: int = 0, stop: int | None = None
) -> Iterator[Record]:
    """The records of a file, in order.

    Args:
        uri: The file.
        names: Fields wanted; of a parquet file only these columns are read. A .txt file's whole
            text goes by the first name.
        limit: Most bytes of a line or a .txt file.
        start: First byte of the range to read, of a plain file of lines. A line belongs to the
            range that it begins in.
        stop: End of that range.

    Raises:
        CorruptDataError: The file cannot be read on; names it.
    """
    kind = kind_of(uri)
    if kind == "parquet":
        yield from _parquet(uri, names)
        return
    with _opened(uri) as stream:
        if kind == "txt":
            data = stream.read(limit + 1)
            text = _decoded(data)
            if len(data) > limit:
                yield TOO_LONG
            else:
                yield NOT_UTF8 if text is None else {names[0]: text}
            return
        for line in _lines(stream, limit, start, stop):
            if line is None:
                yield TOO_LONG
            elif not line.isspace():
                yield _parsed(line)


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _parsed(line: bytes) -> Record:
    text = _decoded(line)
    if text is None:
        return NOT_UTF8
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return NOT_JSON
    return record if isinstance(record, dict) else NOT_JSON


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[streams.BufferedReader]:
    """A file's bytes, unpacked."""
    import pyarrow as pa

    suffix = "." + uri.lower().rpartition(".")[2]
    with io.open_read(uri) as file:
        if suffix not in COMPRESSIONS:
            yield file if isinstance(file, streams.BufferedReader) else _buffered(file)
            return
        try:
            yield _buffered(pa.CompressedInputStream(pa.PythonFile(file), COMPRESSIONS[suffix]))
        except OSError as error:
            raise CorruptDataError(
                f"{io.redact(uri)} cannot be unpacked to its end: {error}"
            ) from error


def _buffered(file: Any) -> streams.BufferedReader:
    return streams.BufferedReader(file, BUFFER_BYTES)


def _lines(
    stream: streams.BufferedReader, limit: int, start: int, stop: int | None
) -> Iterator[bytes | None]:
    """Lines that begin in a range of bytes; None for one beyond the limit."""
    place = start
    if start:  # the line that ends here began before
        stream.seek(start - 1)
        place = start - 1 + _skip_line(stream, limit)
    while stop is None or place < stop:
        line = stream.readline(limit + 1)
        if not line:
            return
        place += len(line)
        if len(line) > limit and not line.endswith(b"\n"):
            place += _skip_line(stream, limit)
            yield None
        else:
            yield line


def _skip_line(stream: streams.BufferedReader, limit: int) -> int:
    """Read past the end of a line; returns the bytes passed."""
    passed = 0
    while piece := stream.readline(min(limit, BUFFER_BYTES)):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed


def _parquet(uri: str, names: Sequence[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with io.open_read(uri) as handle:
        try:
            file = pq.ParquetFile(handle)
            there = [name for name in names if name in file.schema_arrow.names]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=there, use_threads=False):
                yield from _rows(batch, there)
        except (pa.ArrowException, OSError) as error:
            raise CorruptDataError(
                f"{io.redact(uri)} is not a whole parquet file: {error}"
            ) from error


def _rows(batch: Any, names: Sequence[str]) -> Iterator[Record]:
    """Rows of a batch; a string that is not UTF-8 costs only its own row."""
    if not names:
        yield from ({} for _ in range(batch.num_rows))
        return
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            try:
                yield {name: batch[name][row].as_py() for name in names}
            except UnicodeDecodeError:
                yield NOT_UTF8
