"""Records of text files: JSON lines (plain, gzip, zstd), parquet, .txt files of one record.

Everything is streamed, and no line is held beyond a bound, whatever the file claims to be.
"""

import contextlib
import io as streams
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError

LINES = (".jsonl", ".ndjson", ".json")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
TEXTS = (".txt",)
ROWS_AT_ONCE = 1000
BATCH_BYTES = 8 << 20
"""About what the rows of parquet hold that are unpacked at once."""
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


class NoRecordsError(BadInputError):
    """A place without files that anyone here reads."""


@dataclass(frozen=True)
class Found:
    """What is at a URI."""

    files: list[str]
    """Files of records, sorted."""
    skipped: Counter[str]
    """Suffix -> files below the folder that nobody reads."""


def record_files(uri: str) -> list[str]:
    """The files of `find_records`."""
    return find_records(uri).files


def find_records(uri: str, texts: Sequence[str] = TEXTS) -> Found:
    """The file at a URI, or all files of records below a folder.

    Args:
        uri: A file or folder.
        texts: Suffixes of files that are one record of text each, packed or not.

    Raises:
        NoRecordsError: There are none.
    """
    suffixes = tuple(name.lower() + packed for name in texts for packed in ("", *COMPRESSIONS))

    def is_read(name: str) -> bool:
        return bool(kind_of(name)) or name.lower().endswith(suffixes)

    if is_read(uri) and io.exists(uri) and not io.list_files(uri):
        return Found([uri], Counter())
    names = io.list_files(uri, recursive=True)
    files = [name for name in names if is_read(name)]
    skipped = Counter(_suffix(name) for name in names if not is_read(name))
    if not files:
        there = ", ".join(f"{count} of {name}" for name, count in skipped.most_common())
        raise NoRecordsError(
            f"no records at {io.redact(uri)}"
            + (f", which holds files {there}" if there else "")
            + ": give a file or folder of .jsonl, .jsonl.gz, .jsonl.zst, .parquet or "
            + ", ".join(texts)
        )
    return Found(files, skipped)


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri)[1].lower() or "no suffix"


def read_records(
    uri: str,
    names: Sequence[str],
    *,
    limit: int,
    start: int = 0,
    stop: int | None = None,
    row_groups: Sequence[int] | None = None,
) -> Iterator[Record]:
    """The records of a file, in order. One of no kind we know is a text, as its caller said.

    Args:
        uri: The file.
        names: Fields wanted; of a parquet file only these columns are read. A .txt file's whole
            text goes by the first name.
        limit: Most bytes of a line or a .txt file.
        start: First byte of the range to read, of a plain file of lines. A line belongs to the
            range that it begins in.
        stop: End of that range.
        row_groups: Of a parquet file, those to read; all without.

    Raises:
        CorruptDataError: The file cannot be read on; names it.
    """
    kind = kind_of(uri) or "txt"
    if kind == "parquet":
        yield from _parquet(uri, names, row_groups)
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


def row_group_bytes(uri: str) -> list[int]:
    """Packed bytes of each row group of a parquet file, from its footer.

    Raises:
        CorruptDataError: It has no footer; names it.
    """
    with _parquet_file(uri) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        return [
            sum(group.column(i).total_compressed_size for i in range(group.num_columns))
            for group in groups
        ]


def _parquet(uri: str, names: Sequence[str], row_groups: Sequence[int] | None) -> Iterator[Record]:
    with _parquet_file(uri) as file:
        there = [name for name in names if name in file.schema_arrow.names]
        for number in range(file.metadata.num_row_groups) if row_groups is None else row_groups:
            group = file.metadata.row_group(number)
            row_bytes = max(group.total_byte_size // max(group.num_rows, 1), 1)
            rows = max(min(ROWS_AT_ONCE, BATCH_BYTES // row_bytes), 1)
            for batch in file.iter_batches(
                rows, row_groups=[number], columns=there, use_threads=False
            ):
                yield from _rows(batch, there)


@contextlib.contextmanager
def _parquet_file(uri: str) -> Iterator[Any]:
    """Open, through a small buffer: a column's whole chunk would not be held."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with io.open_read(uri) as handle:
        try:
            yield pq.ParquetFile(handle, buffer_size=BUFFER_BYTES)
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
