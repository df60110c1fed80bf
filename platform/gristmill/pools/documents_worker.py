"""What the ingest of documents does with one slice: read records, check each, write metadata."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from gristmill.core import io
from gristmill.core.documents import HALF_SURROGATE, line_limit, text_of
from gristmill.core.errors import BadInputError
from gristmill.core.records import Record, Unreadable
from gristmill.core.source_files import read_piece
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.pools import columns
from gristmill.pools.ingest_worker import DropError
from gristmill.pools.uid import uid_of_hex

SOURCE = "source"
"""Column: the file that a document came from, below the source's folder."""
ROWS_PER_GROUP = 10_000
BYTES_PER_GROUP = 32 << 20


def document_uid(text: str, url: str = "") -> str:
    """The uid of a document: 32 hex digits of a BLAKE2b over its text and url."""
    digest = hashlib.blake2b(digest_size=16, person=b"gristmill.text")
    for part in (text.encode(), url.encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


@dataclass
class DocumentSlice(SliceWorker):
    """Turns one slice of a source into one file of metadata."""

    out: str
    source: str
    text_field: str
    url_field: str
    max_bytes: int
    keep_uids: bool

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write metadata/{number}.parquet; returns counts and its hash."""
        name = f"metadata/{int(piece.payload['number']):08d}.parquet"
        dropped, asked = Counter[str](), 0
        with io.open_hashed(io.join(self.out, name)) as hashing:
            rows = RowGroups(hashing)  # type: ignore[arg-type]
            for uri, record in self._records(piece):
                asked += 1
                try:
                    rows.add(self._row(uri, record))
                except DropError as reason:
                    dropped[str(reason)] += 1
            rows.close()
        if not rows.count:
            io.remove(io.join(self.out, name))
        return {
            "asked": asked,
            "kept": rows.count,
            "dropped": dict(dropped),
            "text_bytes": rows.text_bytes,
            "files": {name: hashing.entry} if rows.count else {},
        }

    def _records(self, piece: Slice) -> Iterator[tuple[str, Record]]:
        names = list(dict.fromkeys((self.text_field, self.url_field, "uid", "id")))
        return read_piece(piece.payload, names, limit=line_limit(self.max_bytes))

    def _row(self, uri: str, record: Record) -> dict[str, Any]:
        """A document's metadata.

        Raises:
            DropError: The record cannot become one.
        """
        text = text_of(record, self.text_field, self.max_bytes)
        if isinstance(text, Unreadable):
            raise DropError(text.reason)
        assert isinstance(record, dict), "only a record has a text"
        url = record.get(self.url_field)
        url = url if isinstance(url, str) else ""
        try:
            url.encode()
        except UnicodeEncodeError as error:
            raise DropError(HALF_SURROGATE.reason) from error
        below = uri.removeprefix(self.source).lstrip("/") or uri.rpartition("/")[2]
        return {
            columns.UID: self._own_uid(record) or document_uid(text, url),
            columns.TEXT: text,
            columns.URL: url,
            SOURCE: below,
        }

    def _own_uid(self, record: dict[str, Any]) -> str:
        for name in ("uid", "id") if self.keep_uids else ():
            try:
                uid_of_hex(record.get(name))
            except BadInputError:
                continue
            return str(record[name]).lower()
        return ""


class RowGroups:
    """Writes rows to a parquet file in groups of bounded size."""

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = (columns.UID, columns.TEXT, columns.URL, SOURCE)
        self._schema = pa.schema([(name, pa.string()) for name in names])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self.count, self.text_bytes = 0, 0

    def add(self, row: dict[str, Any]) -> None:
        """Take one row."""
        self._rows.append(row)
        self._bytes += len(row[columns.TEXT].encode())
        if len(self._rows) >= ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self.count += len(self._rows)
            self.text_bytes += self._bytes
            self._rows, self._bytes = [], 0
