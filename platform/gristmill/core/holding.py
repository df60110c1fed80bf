"""Who holds a run's folder: a lock on a disk, a lease on object stores. One process at a time."""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from gristmill.core import io
from gristmill.core.errors import RunError, TryAgainError

LOCK = ".lock"
LEASE_SECONDS = 60.0
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def hold(uri: str) -> Iterator[None]:
    """Hold a run's folder for this process.

    Raises:
        TryAgainError: Another process holds it.
    """
    path = io.join(uri, LOCK)
    with _file_lock(io.local_path(path), uri) if io.is_local(uri) else _lease(path, uri):
        yield


def touch(uri: str) -> None:
    """Show that the holder is alive; a lease is renewed by itself."""
    if io.is_local(uri):
        os.utime(io.local_path(io.join(uri, LOCK)))


@contextlib.contextmanager
def _file_lock(path: str, uri: str) -> Iterator[None]:
    """A lock the kernel drops when its holder dies, however it dies."""
    with _open_lock(path, uri) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _in_use(uri, file.read()) from error
        _sign(file)
        try:
            yield
        finally:
            file.truncate(0)
        # The file stays: removing it would let two later holders lock two different files.


def _open_lock(path: str, uri: str) -> IO[str]:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(
            f"cannot write to {io.redact(uri)}: {error.strerror}; choose another --out"
        ) from error


def _sign(file: IO[str]) -> None:
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


def _in_use(uri: str, holder: str) -> TryAgainError:
    return TryAgainError(
        f"{io.redact(uri)} is in use by {holder or 'another process'}; "
        "wait for it, end it, or choose another --out"
    )


@contextlib.contextmanager
def _lease(uri: str, run_uri: str) -> Iterator[None]:
    """A lease object for storage without locks: renewed while held, free when it has run out.

    Two starts within the same second can both win; the stores have no portable
    compare-and-swap, so this guards against mistakes, not against a race.
    """
    me = f"process {os.getpid()} on {socket.gethostname()}"
    token = secrets.token_hex(8)
    if io.exists(uri):
        lease = io.read_json(uri)
        dead = lease["holder"].endswith(f" on {socket.gethostname()}") and not _alive(lease)
        if time.time() < lease["until"] and not dead:
            raise _in_use(run_uri, lease["holder"])
    stop = threading.Event()

    def renew() -> None:
        until = time.time() + LEASE_SECONDS
        io.write_json(uri, {"holder": me, "token": token, "until": until})

    def still_ours() -> bool:
        return io.exists(uri) and io.read_json(uri).get("token") == token

    def keep() -> None:
        while not stop.wait(LEASE_SECONDS / 3):
            try:
                if not still_ours():
                    logger.error("the lease of %s was taken over", io.redact(run_uri))
                    return
                renew()
            except Exception:
                logger.warning("could not renew the lease of %s", io.redact(run_uri), exc_info=True)

    renew()
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if still_ours():
            io.remove(uri)


def held_by(uri: str) -> str:
    """The process that holds a run's folder; empty when nobody does.

    The lock itself is not tried, which could refuse a process that starts just then: its file names
    the holder, who touches it every few seconds. On object stores the lease tells.
    """
    path = io.join(uri, LOCK)
    if not io.exists(path):
        return ""
    if not io.is_local(uri):
        lease = io.read_json(path)
        return str(lease["holder"]) if time.time() < lease["until"] else ""
    with open(io.local_path(path), encoding="utf-8") as file:
        holder = file.read()
        beat = os.fstat(file.fileno()).st_mtime
    if not holder or time.time() - beat > LEASE_SECONDS:
        return ""
    here = holder.endswith(f" on {socket.gethostname()}")
    return "" if here and not _alive({"holder": holder}) else holder


def _alive(lease: dict[str, Any]) -> bool:
    pid = int(lease["holder"].split()[1])
    return os.path.exists(f"/proc/{pid}") if os.path.isdir("/proc") else True
