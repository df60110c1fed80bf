"""What ingest's workers do: read raw samples, check each, write a shard and its metadata."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.pools import columns
from gristmill.pools.image import MAX_BYTES, decode_rgb
from gristmill.pools.tar import Member, Sample, TarReader, TarWriter
from gristmill.pools.uid import pair_uid, uid_of_hex

MAX_CAPTION_BYTES = 1 << 16
MAX_JSON_BYTES = 1 << 20
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class RawSample:
    """A sample as found: nothing in it is trusted yet."""

    where: str
    extension: str
    image: bytes | None
    caption: bytes | None
    record: bytes | None


class DropError(Exception):
    """A sample cannot become a pair; the message is the reason that is counted."""


@dataclass
class IngestSlice(SliceWorker):
    """Turns one slice of a source into one shard with metadata."""

    out: str
    keep_uids: bool
    face_boxes: bool

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write shard, metadata and stats; returns counts and the files' hashes."""
        number = int(piece.payload["number"])
        stem = f"{number:08d}"
        rows: list[dict[str, Any]] = []
        dropped, asked = Counter[str](), 0
        shard = f"shards/{stem}.tar"
        with io.open_hashed(io.join(self.out, shard)) as hashing:
            writer = TarWriter(hashing)  # type: ignore[arg-type]
            for raw in _read(piece):
                asked += 1
                try:
                    row = self._row(raw)
                except DropError as reason:
                    dropped[str(reason)] += 1
                    continue
                assert raw.image is not None
                parts = {raw.extension: raw.image, "txt": row[columns.TEXT].encode()}
                record = {k: v for k, v in row.items() if k != columns.TEXT}
                parts["json"] = json.dumps(record, sort_keys=True).encode()
                writer.add_sample(f"{stem}{len(rows):05d}", parts)
                rows.append(row)
            writer.finish()
        files = {}
        if rows:
            files = {shard: hashing.entry}
            files |= write_metadata(self.out, stem, rows, faces=self.face_boxes)
        else:
            io.remove(io.join(self.out, shard))  # an empty shard would only trip those who read it
        stats = {"successes": len(rows), "asked": asked, "dropped": dict(dropped)}
        io.write_json(io.join(self.out, f"shards/{stem}_stats.json"), stats)
        return {"asked": asked, "kept": len(rows), "dropped": dict(dropped), "files": files}

    def _row(self, raw: RawSample) -> dict[str, Any]:
        """A sample's metadata.

        Raises:
            DropError: It cannot become a pair.
        """
        if raw.image is None:
            raise DropError("no image")
        text = _caption(raw.caption)
        record = _record(raw.record)
        try:
            size = decode_rgb(raw.image, where=raw.where).size
        except CorruptDataError as error:
            reason = str(error).removeprefix(f"{raw.where}: ")
            raise DropError(_short_reason(reason)) from error
        sha256 = hashlib.sha256(raw.image).hexdigest()
        url = str(record.get("url") or "")
        if not _encodes(url):
            raise DropError("url is not text")
        uid = record.get("uid")
        if not (self.keep_uids and _is_uid(uid)):
            uid = pair_uid(sha256, text, url)
        stated = record.get("sha256")
        row = {
            columns.UID: str(uid).lower(),
            columns.URL: url,
            columns.TEXT: text,
            columns.WIDTH: _pixels(record.get("original_width"), size[0]),
            columns.HEIGHT: _pixels(record.get("original_height"), size[1]),
            columns.SHA256: stated if isinstance(stated, str) and _SHA256.match(stated) else sha256,
        }
        if self.face_boxes:
            row[columns.FACES] = _face_boxes(record)
        return row


def _read(piece: Slice) -> Iterator[RawSample]:
    if "tar" in piece.payload:
        yield from _read_tar(piece.payload["tar"])
        return
    for uri in piece.payload["files"]:
        stem, _, extension = uri.rpartition(".")
        caption, record = (_read_if_there(f"{stem}.{end}") for end in ("txt", "json"))
        yield RawSample(io.redact(uri), extension.lower(), _bounded(uri), caption, record)


def _read_if_there(uri: str) -> bytes | None:
    return _bounded(uri) if io.exists(uri) else None


def _bounded(uri: str) -> bytes:
    """A file, or of one beyond every bound just so much that the bound is seen to be broken."""
    with io.open_read(uri) as file:
        return file.read(MAX_BYTES + 1)


def _read_tar(uri: str) -> Iterator[RawSample]:
    with TarReader(uri) as reader:

        def part(sample: Sample, name: str) -> bytes | None:
            member = sample.members.get(name)
            if member is None:
                return None
            return reader.read(Member(member.name, member.offset, min(member.size, MAX_BYTES + 1)))

        for sample in reader.samples():
            yield RawSample(
                f"{io.redact(uri)}: {sample.key}",
                sample.image_extension,
                part(sample, sample.image_extension),
                part(sample, "txt"),
                part(sample, "json"),
            )


def _caption(data: bytes | None) -> str:
    if data is None:
        raise DropError("no caption")
    if len(data) > MAX_CAPTION_BYTES:
        raise DropError(f"caption over {MAX_CAPTION_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DropError("caption is not UTF-8") from error


def _record(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        record = json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise DropError("json is not an object")
    return record


def _short_reason(reason: str) -> str:
    """A reason without its figures, so that equal ones are counted together."""
    if "pixels, over" in reason or "bytes, over" in reason:
        return "image over the size bounds"
    return "image has no bytes" if "no bytes" in reason else "image cannot be decoded"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # json can spell half a surrogate pair
        return False
    return True


def _is_uid(value: Any) -> bool:
    try:
        uid_of_hex(value)
    except BadInputError:
        return False
    return True


def _pixels(stated: Any, actual: int) -> int:
    """The picture's size before any resizing, as img2dataset states it; else the size we see."""
    good = isinstance(stated, int) and not isinstance(stated, bool) and 0 < stated < 1 << 31
    return int(stated) if good else actual


def _face_boxes(record: dict[str, Any]) -> list[list[float]]:
    try:
        boxes = [[float(x) for x in box] for box in record[columns.FACES]]
    except (KeyError, TypeError, ValueError) as error:
        raise DropError("no face_bboxes") from error
    if any(len(box) != 4 for box in boxes):
        raise DropError("face_bboxes are not boxes of 4 numbers")
    return boxes


def write_metadata(
    out: str, stem: str, rows: list[dict[str, Any]], *, faces: bool
) -> dict[str, dict[str, Any]]:
    """Write `metadata/{stem}.parquet`; returns its name with hash and size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [
        (columns.UID, pa.string()),
        (columns.URL, pa.string()),
        (columns.TEXT, pa.string()),
        (columns.WIDTH, pa.int64()),
        (columns.HEIGHT, pa.int64()),
        (columns.SHA256, pa.string()),
    ]
    if faces:
        fields.append((columns.FACES, pa.list_(pa.list_(pa.float64()))))
    name = f"metadata/{stem}.parquet"
    with io.open_hashed(io.join(out, name)) as file:
        table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
        pq.write_table(table, file, compression="zstd")
    return {name: file.entry}
