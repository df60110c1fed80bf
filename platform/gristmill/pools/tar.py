"""Webdataset tars: scan headers fast, read members in place, write the same bytes every time.

We never extract to a path, so a member's name cannot lead anywhere; a name that tries is refused
all the same, for whoever unpacks our output later. A tar that ends early is an error, not an end.
"""

import contextlib
import json
import mmap
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError

BLOCK = 512
CHECK_BYTES = 1 << 20
IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
"""In the order open_clip's training looks for them."""
MAX_NAME_BYTES = 1 << 16
MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: where its bytes lie."""

    name: str
    offset: int
    size: int


@dataclass
class Sample:
    """Neighbouring members that share a key, by lower-case extension."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def image_extension(self) -> str:
        """The extension of its picture; empty when it has none."""
        return next((e for e in IMAGE_EXTENSIONS if e in self.members), "")


class TarReader:
    """A tar mapped into memory; a remote one is first fetched to a temporary file."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(_local_file(uri))
        self._file.seek(0, 2)
        self.num_bytes = self._file.tell()
        if self.num_bytes == 0:
            self.close()
            raise CorruptDataError(f"{io.redact(uri)}: the tar has no bytes")
        self.data = self._stack.enter_context(
            mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        )

    def __enter__(self) -> "TarReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()

    def read(self, member: Member) -> bytes:
        """A member's bytes."""
        return bytes(self.data[member.offset : member.offset + member.size])

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on, fewer at the end of the file; cheaper than faulting pages."""
        return os.pread(self._file.fileno(), size, offset)

    def expect(self, offset: int, size: int) -> None:
        """Have the system fetch a part that will be read soon, where it takes such hints."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill a buffer with the bytes from `offset` on.

        Raises:
            CorruptDataError: There are not so many.
        """
        while len(target):
            count = os.preadv(self._file.fileno(), [target], offset)
            if not count:
                raise self._corrupt(offset, "ends earlier than it did; was it changed?")
            offset, target = offset + count, target[count:]

    def is_blank(self, position: int) -> bool:
        """Whether a block begins there, and nothing but zeros from there on."""
        if position + BLOCK > self.num_bytes:
            return False
        starts = range(position, self.num_bytes, CHECK_BYTES)
        return not any(self.read_at(start, CHECK_BYTES).strip(b"\0") for start in starts)

    def members(self) -> Iterator[Member]:
        """Regular files in order.

        Raises:
            CorruptDataError: A damaged header, or an end without the end-of-archive mark.
            BadInputError: A member's name is absolute or climbs with `..`.
        """
        position, long_name = 0, ""
        while True:
            header = self.data[position : position + BLOCK]
            if len(header) < BLOCK:
                raise self._corrupt(position, "ends without the end-of-archive mark; truncated?")
            if header == _ZEROS:
                if not self.is_blank(position):  # data after the end mark: a damaged header
                    raise self._corrupt(position, "zeros where a header should be")
                return
            kind, size = self._checked(header, position)
            start = position + BLOCK
            position = start + -(-size // BLOCK) * BLOCK
            if start + size > self.num_bytes:
                raise self._corrupt(
                    start - BLOCK, f"member of {size} bytes is cut short; truncated?"
                )
            if kind in b"Lxg":
                if size > MAX_NAME_BYTES:
                    raise self._corrupt(start - BLOCK, f"extended header of {size} bytes")
                body = bytes(self.data[start : start + size])
                long_name = (_gnu_name(body) if kind in b"L" else _pax_name(body)) or long_name
                continue
            name = long_name or _plain_name(header)
            long_name = ""
            if kind in b"0\0":
                self._refuse_escape(name)
                yield Member(name, start, size)

    def samples(self) -> Iterator[Sample]:
        """Samples in order, grouped as webdataset groups: neighbours with the same key."""
        current: Sample | None = None
        for member in self.members():
            folder, slash, base = member.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if not (stem and dot):
                continue
            key, extension = folder + slash + stem, extension.lower()
            if current is None or key != current.key or extension in current.members:
                if current is not None:
                    yield current
                current = Sample(key)
            current.members[extension] = member
        if current is not None:
            yield current

    def _checked(self, header: bytes, position: int) -> tuple[bytes, int]:
        try:
            stated = int(header[148:156].split(b"\0")[0].strip() or b"0", 8)
            size = _number(header[124:136])
        except ValueError as error:
            raise self._corrupt(position, "damaged header") from error
        if stated != sum(header[:148]) + 256 + sum(header[156:]) or size < 0:
            raise self._corrupt(position, "header checksum does not match")
        return header[156:157], size

    def _corrupt(self, position: int, what: str) -> CorruptDataError:
        return CorruptDataError(f"{io.redact(self.uri)}, byte {position}: {what}")

    def _refuse_escape(self, name: str) -> None:
        if name.startswith("/") or ".." in name.split("/"):
            raise BadInputError(
                f"{io.redact(self.uri)}: member {name!r} would leave the folder it is unpacked in; "
                "the tar is not to be trusted"
            )


_ZEROS = bytes(BLOCK)


@contextlib.contextmanager
def _local_file(uri: str) -> Iterator[IO[bytes]]:
    if io.is_local(uri):
        with io.open_read(uri) as file:
            yield file
        return
    with tempfile.TemporaryFile() as spool:
        with io.open_read(uri) as remote:
            shutil.copyfileobj(remote, spool, io.CHUNK_BYTES)
        spool.flush()
        yield spool


def _number(raw: bytes) -> int:
    if raw[0] & 0x80:  # GNU's base-256, for members of 8 GiB and more
        return int.from_bytes(raw[1:], "big")
    return int(raw.split(b"\0")[0].strip() or b"0", 8)


def _plain_name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:262] == b"ustar" and header[262:263] == b"\0":
        prefix = header[345:500].split(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "replace")


def _gnu_name(body: bytes) -> str:
    return body.split(b"\0")[0].decode("utf-8", "replace")


def _pax_name(body: bytes) -> str:
    match = re.search(rb"\d+ path=([^\n]*)\n", body)
    return match.group(1).decode("utf-8", "replace") if match else ""


def member_header(name: str, size: int) -> bytes:
    """The blocks before a file's bytes, with fixed times and owners."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


class TarWriter:
    """Writes members with fixed times and owners, so that the same content gives the same bytes."""

    def __init__(self, target: IO[bytes]) -> None:
        self.target = target

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Append one file."""
        self.target.write(member_header(name, len(data)))
        self.target.write(data)
        if rest := -len(data) % BLOCK:
            self.target.write(_ZEROS[:rest])

    def add_sample(self, key: str, parts: Mapping[str, bytes | memoryview]) -> None:
        """Append a sample's files in the mapping's order."""
        for extension, data in parts.items():
            self.add(f"{key}.{extension}", data)

    def finish(self) -> None:
        """Write the end-of-archive mark."""
        self.target.write(_ZEROS * 2)


def read_record(reader: TarReader, sample: Sample) -> dict[str, Any]:
    """A sample's json, an object of bounded size; empty when it has none.

    Raises:
        BadInputError: It is too large, too deep, or not an object.
    """
    member = sample.members.get("json")
    if member is None:
        return {}
    try:
        record = json.loads(reader.read(member)) if member.size <= MAX_RECORD_BYTES else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise BadInputError(f"{io.redact(reader.uri)}: sample {sample.key}: json is not an object")
    return record


def member_bytes(reader: TarReader, member: Member) -> memoryview:
    """A member's bytes without a copy; valid while the reader is open."""
    return memoryview(reader.data)[member.offset : member.offset + member.size]
