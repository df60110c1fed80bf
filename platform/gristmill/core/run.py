"""A run's folder: `config.json env.json metrics.jsonl report.html DONE`, and what the job makes.

`DONE` is written last and is the manifest: a folder without it is unfinished, whatever else it
holds. The folder may be on any storage that fsspec reaches.
"""

import contextlib
import importlib.metadata
import json
import os
import platform as host
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from gristmill.core import io
from gristmill.core.config import config_hash, differences, identity, to_dict
from gristmill.core.errors import RunError
from gristmill.core.holding import LOCK, hold, touch
from gristmill.core.journal import EVENTS, LOGS, Journal

CONFIG, ENV, METRICS, REPORT, DONE = (
    "config.json",
    "env.json",
    "metrics.jsonl",
    "report.html",
    "DONE",
)
SCRATCH = ".work"
"""Folder of slice markers and parts, removed when the run is done."""
CHECKS_AT_ONCE = 16
PACKAGES = ("gristmill", "ray", "torch", "open_clip_torch", "pyarrow", "numpy", "webdataset")
OBSERVER: ContextVar[Callable[[str, dict[str, Any]], None] | None] = ContextVar(
    "observer", default=None
)
"""Sees each line of metrics and each event; a session with Ray shows them to Prometheus."""


CURRENT: ContextVar["Run | None"] = ContextVar("current", default=None)
"""The run that is open here, for parts that only have something to add to its record."""


class Run:
    """One job's folder."""

    def __init__(self, uri: str) -> None:
        self.uri = io.absolute(uri)
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._summary: dict[str, Any] = {}
        self._metrics: list[str] = []
        self._flushed = 0
        """Lines that the store has."""
        self._writing = threading.RLock()
        self._journal: Journal | None = None
        self._started = time.time()

    def path(self, *parts: str) -> str:
        """The URI of something in this folder."""
        return io.join(self.uri, *parts)

    def scratch(self, *parts: str) -> str:
        """The URI of something that lives only until the run is done."""
        return io.join(self.uri, SCRATCH, *parts)

    # -- state ---------------------------------------------------------------------------------

    def done(self) -> dict[str, Any] | None:
        """The manifest in `DONE`, or None while the run is not finished."""
        return io.read_json(self.path(DONE)) if io.exists(self.path(DONE)) else None

    def config(self) -> dict[str, Any]:
        """The stored config.

        Raises:
            RunError: The folder is not a run.
        """
        if not io.exists(self.path(CONFIG)):
            raise RunError(f"{io.redact(self.uri)} is not a run folder: it has no {CONFIG}")
        return dict(io.read_json(self.path(CONFIG)))

    def finished_by(self, job: Any) -> bool:
        """Whether this very job is done here.

        Raises:
            RunError: The folder holds another job's run.
        """
        if not io.exists(self.path(CONFIG)):
            self._refuse_foreign_files()
            return False
        stored = self.config()
        changed = _differences(stored, job) if stored.get("hash") != config_hash(job) else []
        if changed:
            raise RunError(
                f"{io.redact(self.uri)} holds another job's run ({'; '.join(changed[:5])}); "
                "choose another --out, or add --overwrite to replace it"
            )
        done = self.done() is not None
        if done and io.exists(self.scratch()):  # a kill came between DONE and the sweep
            io.remove(self.scratch())
        return done

    def _refuse_foreign_files(self) -> None:
        name = next(iter(io.list_files(self.uri, recursive=True)), "")
        if name:
            inside = name.removeprefix(self.uri).lstrip("/")
            raise RunError(
                f"{io.redact(self.uri)} is in use: it holds files that no run of this folder "
                f"wrote, such as {inside}; choose an empty --out"
            )

    def clear(self) -> None:
        """Remove a run's results; refuses a folder that is not a run.

        `DONE` goes first and `config.json` last, so that a kill in between leaves an unfinished
        run of the same job, never one that looks done.
        """
        if not io.exists(self.path(CONFIG)):
            self._refuse_foreign_files()
            return
        kind = str((self.config().get("config") or {}).get("type", ""))
        if "hash" not in self.config() or ":" not in kind:
            raise RunError(
                f"{io.redact(self.uri)} holds a {CONFIG} that is not a run's; it is left alone"
            )
        with hold(self.uri):
            io.remove(self.path(DONE))
            for uri in io.list_files(self.uri, recursive=True, hidden=True):
                if uri not in (self.path(CONFIG), self.path(LOCK)):
                    io.remove(uri)
            io.remove(self.path(CONFIG))
            io.remove_empty_folders(self.uri)

    # -- writing -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self, job: Any) -> Iterator["Run"]:
        """Hold the folder for this process, with config and environment written."""
        with hold(self.uri):
            began = not io.exists(self.path(CONFIG))
            if began:
                io.write_json(self.path(CONFIG), {"hash": config_hash(job), "config": to_dict(job)})
            io.write_json(self.path(ENV), environment())
            io.sweep_asides(self.uri)
            self._metrics = self._earlier_metrics()
            self._started = time.time()
            with Journal(self.uri, also=self._beat) as self._journal:
                self._journal.event("began" if began else "resumed")
                token = CURRENT.set(self)
                try:
                    yield self
                finally:
                    CURRENT.reset(token)
                    self.flush()

    def reopen(self) -> None:
        """Take back that the run is finished: it goes on from what is there."""
        io.remove(self.path(DONE))

    def withdraw(self) -> None:
        """Give the folder free again after a request that was refused before it made anything.

        Else a mistyped first attempt would claim `--out`, and the corrected one be another job's.
        Markers of inputs and logs are no results; a folder that holds anything else stays as it is.
        """
        ours = {self.path(name) for name in (CONFIG, ENV, LOCK, EVENTS)}
        beside = (self.scratch("input-"), self.path(LOGS, ""))
        for uri in io.list_files(self.uri, recursive=True, hidden=True):
            if uri not in ours and not uri.startswith(beside):
                return
        if self._journal is not None:
            self._journal.discard()
        io.remove(self.path(CONFIG))
        io.remove(self.path(ENV))
        io.remove(self.scratch())

    def event(self, name: str, **values: Any) -> None:
        """Note in `events.jsonl` that something happened, such as a notice of preemption."""
        if self._journal is not None:
            self._journal.event(name, **values)
        if (observe := OBSERVER.get()) is not None:
            observe(self.uri, {"event": name, **values})

    def log(self, **values: Any) -> None:
        """Add a line to `metrics.jsonl`; `time` (seconds since the epoch) is added."""
        line = json.dumps({"time": round(time.time(), 3), **values})
        with self._writing:
            self._metrics.append(line)
        if (observe := OBSERVER.get()) is not None:
            observe(self.uri, values)
        if io.is_local(self.uri):
            with open(io.local_path(self.path(METRICS)), "a", encoding="utf-8") as file:
                file.write(line + "\n")
        elif len(self._metrics) % 100 == 0:
            self.flush()

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, without a last one that a kill cut short."""
        if not io.exists(self.path(METRICS)):
            return []
        lines = io.read_bytes(self.path(METRICS)).decode().split("\n")
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _earlier_metrics(self) -> list[str]:
        earlier = [json.dumps(line) for line in self.metrics()]
        if earlier and io.is_local(self.uri):  # drops a line that a kill cut short
            io.write_bytes(self.path(METRICS), ("\n".join(earlier) + "\n").encode())
        return earlier

    def flush(self) -> None:
        """Make every logged line durable; object stores get the file anew, local ones have it."""
        with self._writing:
            if len(self._metrics) != self._flushed and not io.is_local(self.uri):
                io.write_bytes(self.path(METRICS), ("\n".join(self._metrics) + "\n").encode())
                self._flushed = len(self._metrics)

    def _beat(self) -> None:
        """Every few seconds: what is logged becomes durable, and the folder's holder is alive."""
        self.flush()
        touch(self.uri)

    def keep_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Take lines out of `metrics.jsonl` that a resume will write again."""
        with self._writing:
            kept = [line for line in self._metrics if keep(json.loads(line))]
            if len(kept) < len(self._metrics):
                self._metrics, self._flushed = kept, len(kept)
                io.write_bytes(self.path(METRICS), "".join(line + "\n" for line in kept).encode())

    def add_input(self, name: str, identity: Any) -> None:
        """Record what was read: a name and the hashes that pin its bytes."""
        self._inputs[name] = identity

    def add_output(self, name: str, *, sha256: str = "", num_bytes: int = -1) -> None:
        """Record a file of this folder in the manifest; hashed here if its hash is not given."""
        uri = self.path(name)
        self._outputs[name] = {
            "sha256": sha256 or io.sha256(uri),
            "bytes": num_bytes if num_bytes >= 0 else io.size_bytes(uri),
        }

    def _check_outputs(self) -> None:
        """Every output is where it should be, as workers on other machines may have written it.

        Raises:
            RunError: One is missing or of another size.
        """
        names = list(self._outputs)
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as threads:
            sizes = list(threads.map(_size_or_none, [self.path(name) for name in names]))
        for name, size in zip(names, sizes, strict=True):
            if size != self._outputs[name]["bytes"]:
                want = self._outputs[name]["bytes"]
                raise RunError(
                    f"{io.redact(self.path(name))} should have {want} bytes and has {size}; "
                    "on several machines --out must be storage that all share"
                )

    def set_summary(self, **values: Any) -> None:
        """Figures that belong in the manifest: rows kept, samples seen, scores."""
        self._summary.update(values)

    def finish(self) -> None:
        """Write `DONE`, the manifest, then remove the scratch folder."""
        self.flush()
        io.sweep_asides(self.uri)  # of workers that were killed while this process was not
        for name in (REPORT,):
            if io.exists(self.path(name)):
                self.add_output(name)
        self._check_outputs()
        manifest = {
            "config_hash": self.config()["hash"],
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.time() - self._started, 3),
            "inputs": self._inputs,
            "outputs": self._outputs,
            "summary": self._summary,
        }
        io.write_json(self.path(DONE), manifest)
        self.event("done", seconds=manifest["seconds"])
        io.remove(self.scratch())


def current_logs() -> str:
    """The folder of logs of the run that is open here; empty if none is."""
    run = CURRENT.get()
    return run.path(LOGS) if run is not None else ""


def _size_or_none(uri: str) -> int | None:
    try:
        return io.size_bytes(uri)
    except FileNotFoundError:
        return None


def _differences(stored: dict[str, Any], job: Any) -> list[str]:
    return differences(identity(stored["config"]), identity(json_copy(to_dict(job))))


def json_copy(value: Any) -> Any:
    """The value as it looks after a trip through JSON (tuples become lists)."""
    return json.loads(json.dumps(value))


def environment() -> dict[str, Any]:
    """Versions and machine, for `env.json`; holds no environment variable and no secret."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": sys.version.split()[0],
        "system": f"{host.system()} {host.release()} {host.machine()}",
        "cpus": os.cpu_count(),
        "packages": versions,
        "command": [io.redact(word) for word in sys.argv],
    }
