"""`run list|show|watch`: runs on any storage, as their folders tell."""

import json
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from gristmill.core import io
from gristmill.core.action import Action
from gristmill.core.errors import BadInputError
from gristmill.core.holding import held_by
from gristmill.core.journal import read_events, read_log
from gristmill.core.plan import human_seconds
from gristmill.core.run import CONFIG, Run

State = Literal["done", "running", "failed", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a run stands."""

    uri: str
    job: str
    """Class of the job, such as FilterJob."""
    state: State
    """stopped: no process holds it, it is not done, and it said no error: it was killed."""
    began: float
    """Seconds since the epoch; 0 where the run tells no events."""
    last: float
    """When it last told anything."""
    said: str
    """The error, the holder, or the newest figures."""

    def line(self, below: str) -> str:
        """The status as a line, its URI relative to `below`."""
        name = self.uri.removeprefix(below).lstrip("/") or self.uri
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.began)) if self.began else "-"
        ago = f"{human_seconds(max(time.time() - self.last, 0))} ago" if self.last else "-"
        return (
            f"{name:<32} {self.job:<18} {self.state:<8} {when:<17} {ago:<16} {self.said}".rstrip()
        )


def find(uri: str, depth: int) -> list[str]:
    """The run folders at or below a URI, so many levels down; a run's inside is not searched."""
    fs, path = io.filesystem(uri)
    fs.invalidate_cache(path)
    if fs.exists(f"{path}/{CONFIG}"):
        return [uri]
    if depth == 0 or not fs.isdir(path):
        return []
    below = sorted(e["name"] for e in fs.ls(path, detail=True) if e["type"] == "directory")
    names = [name.rstrip("/").rpartition("/")[2] for name in below]
    return [
        run
        for name in names
        if not name.startswith(".")
        for run in find(io.join(uri, name), depth - 1)
    ]


def status(uri: str) -> Status:
    """How the run in a folder stands.

    Raises:
        RunError: The folder is not a run.
    """
    run = Run(uri)
    io.filesystem(run.uri)[0].invalidate_cache()  # another machine writes it
    stored = run.config().get("config") or {}
    job = str(stored.get("type", "?")).rpartition(":")[2]
    events = read_events(run.uri)
    began = events[0]["time"] if events else 0.0
    last = events[-1]["time"] if events else 0.0
    done = run.done()
    if done is not None:
        said = ", ".join(f"{k} {v}" for k, v in _plain(done.get("summary", {}))[:3])
        return Status(uri=run.uri, job=job, state="done", began=began, last=last, said=said)
    lines = run.metrics()
    last = max(last, lines[-1]["time"] if lines else 0.0)
    figures = ", ".join(f"{k} {v}" for k, v in _plain(lines[-1])[:5]) if lines else ""
    holder = held_by(run.uri)
    if holder:
        said = f"{holder}; {figures}" if figures else holder
        return Status(uri=run.uri, job=job, state="running", began=began, last=last, said=said)
    if events and events[-1]["event"] == "failed":
        said = f"{events[-1]['kind']}: {events[-1]['message'].splitlines()[0]}"
        return Status(uri=run.uri, job=job, state="failed", began=began, last=last, said=said)
    why = events[-1].get("message", "") if events else ""
    said = "; ".join(x for x in (*why.splitlines()[:1], figures) if x)
    return Status(uri=run.uri, job=job, state="stopped", began=began, last=last, said=said)


def _plain(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (k, v)
        for k, v in values.items()
        if isinstance(v, int | float | str) and k not in ("time", "kind")
    ]


@dataclass(frozen=True, kw_only=True)
class ListRuns(Action):
    """Runs below a folder, newest last."""

    uri: Annotated[str, tyro.conf.Positional] = "runs"
    """A folder on any storage."""
    depth: int = 3
    """How many levels down to look."""

    def act(self) -> int:
        """Print a line a run."""
        base = io.absolute(self.uri)
        found = [status(run) for run in find(base, self.depth)]
        if not found:
            print(f"no run within {self.depth} levels of {io.redact(base)}")
        for one in sorted(found, key=lambda s: (s.began, s.uri)):
            print(io.redact(one.line(base)))
        return 0


@dataclass(frozen=True, kw_only=True)
class ShowRun(Action):
    """All that a run tells of itself."""

    uri: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    lines: int = 20
    """How many lines of its log to show."""

    def act(self) -> int:
        """Print the status, the config, the events and the end of the log."""
        run = Run(io.absolute(self.uri))
        one = status(run.uri)
        print(f"{io.redact(run.uri)}\n  {one.job}, {one.state}. {one.said}".rstrip())
        for name, value in run.config()["config"].items():
            if name != "type":
                print(f"  {name:<22} {json.dumps(value)}")
        print("events")
        for event in read_events(run.uri):
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event["time"]))
            rest = {k: v for k, v in event.items() if k not in ("time", "event")}
            print(f"  {when} {event['event']:<11} {json.dumps(rest)}")
        done = run.done()
        if done is not None:
            print("outputs")
            for name, entry in done["outputs"].items():
                print(f"  {name:<32} {entry['bytes']:>14,} bytes  sha256 {entry['sha256'][:16]}")
        print("log")
        print("\n".join(f"  {line}" for line in read_log(run.uri, self.lines)))
        return 0


@dataclass(frozen=True, kw_only=True)
class WatchRun(Action):
    """Follow a run until it ends: its figures, events and log lines, from wherever you are."""

    uri: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    every: float = 5.0
    """Seconds between looks."""
    patience: float = 120.0
    """Seconds that nobody may hold an unfinished run before the watch ends."""

    def act(self) -> int:
        """Print what is new until the end: 0 when done, 1 when it failed or was given up."""
        if self.every <= 0:
            raise BadInputError(f"every must be over 0, not {self.every}")
        run = Run(io.absolute(self.uri))
        seen_lines, seen_events, alone = 0, 0, time.monotonic()
        while True:
            one = status(run.uri)  # first, so that nothing is told after what is read here
            events, lines = read_events(run.uri), run.metrics()
            for event in events[seen_events:]:
                print(json.dumps(event))
            for line in lines[seen_lines:]:
                print(json.dumps(line))
            sys.stdout.flush()
            # A resume takes back lines that it will write again.
            seen_events, seen_lines = len(events), len(lines)
            if one.state in ("done", "failed"):
                print(f"{one.state}: {one.said}")
                return 0 if one.state == "done" else 1
            if one.state == "running":
                alone = time.monotonic()
            elif time.monotonic() - alone > self.patience:
                print(f"nobody has held it for {self.patience:.0f} s; the same command resumes it")
                return 1
            time.sleep(self.every)
