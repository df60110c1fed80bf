"""Files anywhere fsspec reaches: list, read, write aside and publish, hash.

A local file is written under a temporary name and renamed; an object on S3 and the like appears
whole at the end of its upload. So a reader never sees half a file under its final name.
"""

import contextlib
import hashlib
import io
import json
import os
import posixpath
import re
import secrets
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import fsspec
from fsspec.core import url_to_fs

from gristmill.core.errors import BadInputError, CorruptDataError, GristmillError, TryAgainError
from gristmill.core.store_errors import passing, said

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK_BYTES = 1 << 22
STORE_BYTES = 1 << 21
"""A local file is sent to the disk in steps of this size while it grows."""


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Around what asks a store: what its client raises becomes one line that names the URI.

    Clients raise what they like (botocore's NoCredentialsError is no OSError). What a caller may
    wait for, a missing file, or meet again and live, a lost connection, goes through as it is.

    Raises:
        TryAgainError: The store cannot be reached, or answers that it is busy or broken.
        BadInputError: It refuses us, or its client cannot even ask.
    """
    try:
        yield
    except (GristmillError, ConnectionError, TimeoutError):
        raise
    except Exception as error:
        if is_local(uri):
            raise
        if passing(error):
            raise TryAgainError(
                f"cannot reach {redact(uri)} now: {said(error)}; where its name and the network "
                "are right, the same command goes on later"
            ) from error
        if isinstance(error, OSError) and not isinstance(error, PermissionError):
            raise
        raise _refused(uri, error) from error


def _refused(uri: str, error: Exception) -> BadInputError:
    return BadInputError(
        f"cannot reach {redact(uri)}: {said(error)}; check its name, the network, "
        "and the credentials that its client finds in the environment (of s3:// AWS_PROFILE, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
    )


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of a URI and the path inside it.

    Raises:
        BadInputError: The scheme is unknown or its package is not installed.
    """
    try:
        fs, path = url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise BadInputError(
            f"cannot reach {redact(uri)}: {error}; for s3:// install gristmill[s3], "
            "for gs:// gristmill[gcs], for az:// gristmill[azure]"
        ) from error
    return fs, path.rstrip("/") or "/"


def is_local(uri: str) -> bool:
    """Whether a URI names a path of this machine."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """The plain path of a local URI."""
    if not is_local(uri):
        raise BadInputError(f"{redact(uri)} is not a local path")
    return os.path.abspath(uri.removeprefix("file://"))


def absolute(uri: str) -> str:
    """The URI as any worker on this machine can use it: local paths made absolute."""
    return local_path(uri) if is_local(uri) else uri.rstrip("/")


def join(base: str, *parts: str) -> str:
    """Join path parts to a URI; refuses a part that would climb out of the base.

    Raises:
        BadInputError: A part is absolute or contains `..`.
    """
    for part in parts:
        if part.startswith("/") or ".." in part.split("/"):
            raise BadInputError(f"{part!r} would leave the folder {redact(base)}")
    return posixpath.join(base.rstrip("/") or "/", *parts)


def redact(uri: str) -> str:
    """A URI without credentials or query, fit for logs."""
    uri = re.sub(r"(://)[^/@]*@", r"\1***@", uri)
    return re.sub(r"\?.*$", "?***", uri)


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    with reaching(uri):
        return bool(fs.exists(path))


def size_bytes(uri: str) -> int:
    """The size of a file."""
    fs, path = filesystem(uri)
    with reaching(uri):
        return int(fs.size(path))


def list_files(
    uri: str, suffix: str = "", *, recursive: bool = False, hidden: bool = False
) -> list[str]:
    """Files in a folder whose names end in `suffix`, as URIs, sorted; empty if no folder.

    Links to files count as files. Names with a leading dot are left out unless `hidden`.
    """
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    with reaching(uri):
        if not fs.isdir(path):
            return []
        found = fs.find(path) if recursive else fs.ls(path, detail=True)
    names = found if recursive else [e["name"] for e in found if _is_file(e, uri)]
    base = path.rstrip("/")
    relative = sorted(str(n)[len(base) :].lstrip("/") for n in names if str(n).endswith(suffix))
    return [posixpath.join(uri.rstrip("/"), r) for r in relative if hidden or not _is_aside(r)]


def _is_file(entry: dict[str, Any], uri: str) -> bool:
    if entry["type"] in ("file", "directory"):
        return bool(entry["type"] == "file")
    return is_local(uri) and os.path.isfile(entry["name"])


def _is_aside(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith(".")


def open_read(uri: str) -> IO[bytes]:
    """Open a file to read bytes; local files are plain, so they can be mapped and seeked cheaply.

    Raises:
        BadInputError: There is no such file, or it is a folder.
    """
    try:
        if is_local(uri):
            return open(local_path(uri), "rb")
        fs, path = filesystem(uri)
        with reaching(uri):
            return fs.open(path, "rb")
    except FileNotFoundError as error:
        raise _missing(uri) from error
    except IsADirectoryError as error:
        raise _a_folder(uri) from error


def read_bytes(uri: str) -> bytes:
    """A whole file, in one request: a second one could meet what another process wrote since.

    Raises:
        BadInputError: There is no such file.
    """
    found = read_if_there(uri)
    if found is None:
        raise _missing(uri)
    return found


def read_if_there(uri: str) -> bytes | None:
    """A whole file, in one request; None where there is none, which a failed request does not say.

    Raises:
        BadInputError: It is a folder, or the store refuses us.
        TryAgainError: The store cannot be reached.
    """
    try:
        if is_local(uri):
            with open(local_path(uri), "rb") as file:
                return file.read()
        fs, path = filesystem(uri)
        with reaching(uri):
            return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None
    except IsADirectoryError as error:
        raise _a_folder(uri) from error


def _missing(uri: str) -> BadInputError:
    return BadInputError(f"no file at {redact(uri)}")


def _a_folder(uri: str) -> BadInputError:
    return BadInputError(f"{redact(uri)} is a folder; give a file")


def read_range(uri: str, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file, without reading the rest."""
    if stop <= start:
        return b""
    if is_local(uri):
        with open_read(uri) as file:
            file.seek(start)
            return file.read(stop - start)
    fs, path = filesystem(uri)
    try:
        with reaching(uri):
            return bytes(fs.cat_file(path, start=start, end=stop))
    except FileNotFoundError as error:
        raise BadInputError(f"no file at {redact(uri)}") from error


def read_json(uri: str) -> Any:
    """A JSON file.

    Raises:
        CorruptDataError: The file is not JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptDataError(f"{redact(uri)} is not JSON: {error}") from error


@contextlib.contextmanager
def open_write(uri: str) -> Iterator[IO[bytes]]:
    """Open a file to write; it appears under its name only when the block ends without an error."""
    if is_local(uri):
        path = local_path(uri)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        aside = os.path.join(
            os.path.dirname(path), f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp"
        )
        try:
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise
        return
    fs, path = filesystem(uri)
    with reaching(uri):
        remote = fs.open(path, "wb")
    try:
        yield remote
    except BaseException:
        with contextlib.suppress(Exception):
            remote.discard()  # abandon the upload: nothing appears
        remote.closed = True
        raise
    with reaching(uri):
        remote.close()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file, aside and published."""
    with open_write(uri) as file:
        file.write(data)


def write_json(uri: str, value: Any) -> None:
    """Write JSON, keys in their own order (a funnel's is its meaning), aside and published."""
    write_bytes(uri, (json.dumps(value, indent=1) + "\n").encode())


def map_records(uri: str, dtype: "np.dtype[Any]") -> "npt.NDArray[Any]":
    """A file of bare records as a read-only array; a local one is mapped, not read."""
    import numpy as np

    if is_local(uri) and os.path.getsize(local_path(uri)):
        return np.memmap(local_path(uri), dtype, mode="r")
    return np.frombuffer(read_bytes(uri), dtype)


def remove(uri: str) -> None:
    """Remove a file or folder with all in it; nothing happens when it is not there."""
    fs, path = filesystem(uri)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def sweep_asides(uri: str) -> None:
    """Remove what killed writers left under temporary names in a local folder."""
    if is_local(uri):
        for name in list_files(uri, ".tmp", recursive=True, hidden=True):
            if _is_aside(name):
                remove(name)


def remove_empty_folders(uri: str) -> None:
    """Remove the empty folders below a local folder; object stores have none."""
    if is_local(uri):
        for folder, _, _ in os.walk(local_path(uri), topdown=False):
            if folder != local_path(uri):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def has_credentials(uri: str) -> bool:
    """Whether a URI carries a user's password or a signature, which must not be stored."""
    return bool(
        re.search(r"://[^/@]*:[^/@]*@|[?&][^=&]*(sig|token|secret|key|amz)[^=&]*=", uri, re.I)
    )


def sha256(uri: str) -> str:
    """SHA-256 of a file as 64 hex digits, read in pieces."""
    digest = hashlib.sha256()
    with open_read(uri) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _start_storing(file: IO[bytes], offset: int, size: int) -> None:
    """Have the system begin to write a part of a local file to its disk, without waiting.

    So the fsync that ends the file finds little left to do: a third of the time of writing shards.
    Linux has no call for it in Python, but this hint, "not needed in memory", begins with it; and
    what is still on its way to the disk stays in memory.
    """
    with contextlib.suppress(AttributeError, OSError):  # not a file of this machine; no such hint
        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_DONTNEED)


class HashingWriter(io.RawIOBase):
    """A write-only file that hashes and counts what passes through to another."""

    def __init__(self, target: IO[bytes]) -> None:
        super().__init__()
        self._target = target
        self._digest = hashlib.sha256()
        self.num_bytes = 0
        self._sent = 0

    def writable(self) -> bool:
        """True: this is a sink."""
        return True

    def write(self, data: Any) -> int:
        """Write and hash one buffer."""
        self._digest.update(data)
        self._target.write(data)
        count = len(data)
        self.num_bytes += count
        if self.num_bytes - self._sent >= STORE_BYTES:
            _start_storing(self._target, self._sent, self.num_bytes - self._sent)
            self._sent = self.num_bytes
        return count

    def tell(self) -> int:
        """Bytes written so far."""
        return self.num_bytes

    @property
    def sha256(self) -> str:
        """64 hex digits of all that was written so far."""
        return self._digest.hexdigest()

    @property
    def entry(self) -> dict[str, Any]:
        """Hash and size, as manifests list them."""
        return {"sha256": self.sha256, "bytes": self.num_bytes}


@contextlib.contextmanager
def open_hashed(uri: str) -> Iterator[HashingWriter]:
    """`open_write` through a HashingWriter."""
    with open_write(uri) as file:
        yield HashingWriter(file)
