"""What a worker process says, kept with its run: all of its stdout and stderr, native lines too.

Ray points both at files on the worker's machine, which go with the machine. They are copied to the
run's `logs/` from there: those of the workers of data jobs, of which a machine may hold a hundred,
after each slice; those of a training's ranks by a process beside each (see `follower`).
"""

import contextlib
import faulthandler
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gristmill.core import io
from gristmill.core.journal import LINE

PART_BYTES = 1 << 20
"""A part of a log; the newest is written anew as it grows, as objects cannot be appended to."""
PARTS_KEPT = 10
"""Of one process: the first and the newest. A worker that never stops talking fills no disk."""
UNFINISHED_BYTES = 1 << 16
"""A line longer than this is not waited for."""
ENDED = "-- the process has ended"
CRASH = b"Fatal Python error"
"""How faulthandler begins."""
DIED = f"{ENDED} without a word: killed, or crashed"
SECRET = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|CONNECTION_STRING|(^|_|API|ACCESS|PRIVATE)KEY(_|$)",
    re.I,
)


class WorkerLog:
    """Copies what is appended to some local files to a log of parts on any storage."""

    def __init__(self, sources: Sequence[str], folder: str, name: str) -> None:
        self._sources, self._folder, self._name = list(sources), folder, name
        self._read = [_size(source) for source in sources]  # what came before is not ours
        self._unfinished = [b""] * len(sources)
        self._part, self._number, self._written, self._cut = "", 0, 0, 0
        self._secrets = _secrets()

    def add(self, source: str) -> None:
        """Copy another file too, from its beginning."""
        self._sources.append(source)
        self._read.append(0)
        self._unfinished.append(b"")

    def look(self, last_words: str = "") -> None:
        """Copy what is new; with last words, all of it."""
        for index, source in enumerate(self._sources):
            self._take(self._new_lines(index, source, whole=bool(last_words)))
        self._take(f"{last_words}\n" if last_words else "")
        if len(self._part) != self._written:
            self._write()

    def _new_lines(self, index: int, source: str, *, whole: bool) -> str:
        skipped = max(_size(source) - self._read[index] - PARTS_KEPT * PART_BYTES, 0)
        self._read[index], self._cut = self._read[index] + skipped, self._cut + skipped
        with open(source, "rb") as file:
            file.seek(self._read[index])
            found = file.read(PARTS_KEPT * PART_BYTES)
        self._read[index] += len(found)
        found = self._unfinished[index] + found
        end = len(found) if whole or len(found) > UNFINISHED_BYTES else found.rfind(b"\n") + 1
        lines, self._unfinished[index] = found[:end], found[end:]
        text = "".join(map(self._clean, lines.decode(errors="replace").splitlines(keepends=True)))
        return (_cut_line(self._cut) if skipped else "") + text

    def _clean(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return io.redact(line) if "://" in line else line

    def _take(self, text: str) -> None:
        self._part += text
        while len(self._part) > PART_BYTES:
            full, self._part = self._part[:PART_BYTES], self._part[PART_BYTES:]
            rest, self._part = self._part, full
            self._write()
            self._number += 1
            old = self._number - PARTS_KEPT + 1
            if old > 0:
                io.remove(self._path(old))
                self._cut += PART_BYTES
            self._part = (_cut_line(self._cut) if self._cut else "") + rest
            self._written = 0

    def _write(self) -> None:
        io.write_bytes(self._path(self._number), self._part.encode())
        self._written = len(self._part)

    def _path(self, number: int) -> str:
        return io.join(self._folder, f"{self._name}-{number:04d}.log")


def _cut_line(num_bytes: int) -> str:
    return f"[{num_bytes:,} bytes were cut before this: the first and newest lines are kept]\n"


def _secrets() -> list[str]:
    """Values of this process's environment that must not reach a log."""
    named = [value for name, value in os.environ.items() if SECRET.search(name)]
    return [value for value in named if len(value) >= 8 and not os.path.exists(value)]


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def own_files() -> list[str]:
    """The files that Ray has pointed this process's stdout and stderr at; none in a driver."""
    import ray

    worker = ray._private.worker.global_worker
    paths = [worker.get_out_file_path(), worker.get_err_file_path()]
    return [path for path in paths if path and os.path.isfile(path)]


def log_name(kind: str) -> str:
    """A log's name: what the process is, since when, where."""
    return f"{kind}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{_host()}-{os.getpid()}"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:40]


def say_all() -> None:
    """Have this process tell on stderr what it logs, and where it is when it crashes."""
    faulthandler.enable()
    ours = logging.getLogger("gristmill")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(LINE))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)


@contextlib.contextmanager
def copied(folder: str) -> Iterator[None]:
    """Within, this process does a slice for the run of these logs; after, its words are copied.

    Those of processes that crashed on this machine before it are copied too: it is one of their
    successors.
    """
    if not folder:
        yield
        return
    if folder not in _OWN:
        say_all()
        _OWN.clear()
        _OWN[folder] = WorkerLog(own_files(), folder, log_name("worker"))
        _copy_crashed(folder)
    try:
        yield
    finally:
        sys.stdout.flush()
        look(_OWN[folder])


_OWN: dict[str, WorkerLog] = {}


def _copy_crashed(folder: str) -> None:
    """The crash traces of this driver's dead workers on this machine, each once."""
    for own in own_files()[1:]:
        job = own.rsplit("-", 2)[1]
        for path in Path(own).parent.glob(f"worker-*-{job}-*.err"):
            pid = int(path.stem.rsplit("-", 1)[1])
            name = f"crashed-{_host()}-{pid}"
            if alive(pid) or CRASH not in path.read_bytes()[-PART_BYTES:]:
                continue
            if not io.exists(io.join(folder, f"{name}-0000.log")):
                log = WorkerLog([], folder, name)
                log.add(str(path))
                look(log, DIED)


def look(log: WorkerLog, last_words: str = "") -> None:
    """Copy what is new. Storage that fails for a while must end no worker, so it is only said."""
    try:
        log.look(last_words)
    except Exception as error:
        print(f"could not copy this log: {error!r}", file=sys.stderr, flush=True)


def alive(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def last_lines(folder: str, kind: str, count: int, *, wait_seconds: float = 5.0) -> list[str]:
    """The last lines of the newest log of a kind, once its process is said to have ended."""
    end, lines = time.monotonic() + wait_seconds, [""][:0]
    while True:
        names = [n for n in io.list_files(folder, ".log") if f"/{kind}-" in n]
        if names:
            newest = max(names, key=_since)
            lines = io.read_bytes(newest).decode(errors="replace").splitlines()
        if (lines and lines[-1].startswith(ENDED)) or time.monotonic() > end:
            return lines[-count:]
        time.sleep(0.25)


def _since(name: str) -> tuple[list[str], str]:
    return re.findall(r"\d{8}T\d{6}Z", name)[-1:], name
