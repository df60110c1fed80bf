"""What a run's driver says while it runs, kept in its own storage: `logs/` and `events.jsonl`.

Locally each line is on disk at once. An object cannot be appended to, so on object stores the
newest part of the log is written anew every `FLUSH_SECONDS`: that much a lost machine can take.
"""

import json
import logging
import os
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gristmill.core import io
from gristmill.core.errors import TryAgainError

LOGS, EVENTS = "logs", "events.jsonl"
FLUSH_SECONDS = 15.0
PART_BYTES = 1 << 20
"""A new part of the log begins at this size, so that no large object is written again and again."""
LOG_NAME = re.compile(
    rf"{LOGS}/(driver-\d{{8}}T\d{{6}}Z-\d+(-\d{{4}})?|(rank-\d+|worker|crashed)-[\w-]+)\.log"
)
LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
logger = logging.getLogger(__name__)


class Journal:
    """Log lines and events of one process in one run's folder."""

    def __init__(self, uri: str, *, also: Callable[[], None]) -> None:
        self._uri, self._also = uri, also
        self._local = io.is_local(uri)
        self._name = f"driver-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        self._part, self._lines, self._bytes, self._fresh = 0, [""][:0], 0, False
        self._handler = _Lines(self._take)
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._discarded = False
        self._thread = threading.Thread(target=self._keep_flushing, daemon=True)

    def __enter__(self) -> "Journal":
        logging.getLogger().addHandler(self._handler)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            # Into the run's log alone: at the terminal an error is one line.
            lines = "".join(traceback.format_exception(error)).splitlines(keepends=True)
            self._take("".join(io.redact(x) if "://" in x else x for x in lines))
            again = (TryAgainError, ConnectionError, TimeoutError)  # exit 75, as cli.guarded has it
            how = "stopped" if isinstance(error, again) else "failed"
            self.event(how, kind=type(error).__name__, message=io.redact(str(error))[:2000])
        elif error is not None:  # Ctrl-C, a call to exit
            self.event("stopped", kind=type(error).__name__)
        self._close()
        self.flush()

    def discard(self) -> None:
        """Take back all that was noted, and note no more: the run is given up as if never begun."""
        self._discarded = True
        self._close()
        io.remove(io.join(self._uri, EVENTS))
        io.remove(io.join(self._uri, LOGS))

    def _close(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        self._stop.set()
        self._thread.join()

    def event(self, name: str, **values: Any) -> None:
        """Note that something happened to the run, durably before this returns."""
        if self._discarded:
            return
        who = {"host": socket.gethostname(), "pid": os.getpid()}
        line = json.dumps({"time": round(time.time(), 3), "event": name, **who, **values}) + "\n"
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self._take(f"{now} event: {name} {json.dumps(values) if values else ''}".rstrip() + "\n")
        path = io.join(self._uri, EVENTS)
        if self._local:
            with open(io.local_path(path), "a", encoding="utf-8") as file:
                file.write(line)
            return
        io.write_bytes(path, _bytes_of(path) + line.encode())

    def flush(self) -> None:
        """Write the newest part of the log, if it has grown."""
        with self._lock:
            if not self._fresh or self._discarded:
                return
            self._fresh = False
            name = f"{self._name}-{self._part:04d}.log"
            text = "".join(self._lines)
            if self._bytes >= PART_BYTES:
                self._part, self._lines, self._bytes = self._part + 1, [], 0
            io.write_bytes(io.join(self._uri, LOGS, name), text.encode())

    def _take(self, line: str) -> None:
        with self._lock:
            if self._discarded:
                return
            if self._local:
                folder = io.local_path(io.join(self._uri, LOGS))
                os.makedirs(folder, exist_ok=True)
                path = os.path.join(folder, f"{self._name}.log")
                with open(path, "a", encoding="utf-8") as file:
                    file.write(line)
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._fresh = True

    def _keep_flushing(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            try:
                self.flush()
                self._also()
            except Exception:
                logger.warning("could not write the log of %s", io.redact(self._uri), exc_info=True)


class _Lines(logging.Handler):
    """Hands each formatted record on as a line."""

    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._take = take
        self.setFormatter(logging.Formatter(LINE))

    def filter(self, record: logging.LogRecord) -> bool:
        """Ours and Ray's lines, and of other packages' only warnings."""
        ours = record.name.partition(".")[0] in ("gristmill", "ray", "__main__")
        return ours or record.levelno >= logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._take(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def read_events(uri: str) -> list[dict[str, Any]]:
    """The events of a run, without a last line that a kill cut short."""
    lines = _bytes_of(io.join(uri, EVENTS)).decode(errors="replace").split("\n")
    return [json.loads(line) for line in lines if line.endswith("}")]


def _bytes_of(path: str) -> bytes:
    """A file's bytes, none when it is not there; never what a cache of listings believes."""
    return io.read_if_there(path) or b""


def read_log(uri: str, last: int) -> list[str]:
    """The last lines of the newest log of a run's driver."""
    names = [n for n in io.list_files(io.join(uri, LOGS), ".log") if f"/{LOGS}/driver-" in n]
    lines: list[str] = []
    for name in reversed(names):
        lines = io.read_bytes(name).decode(errors="replace").splitlines() + lines
        if len(lines) >= last:
            break
    return lines[-last:] if last else []
