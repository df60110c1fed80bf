"""A resumable parallel map: the one way our data jobs run.

A job cuts its source into slices (a file and a range of row groups, a shard, an output shard). A
worker handles one slice, writes what it makes aside and publishes it, then commits a small JSON
marker named after the slice. Markers are the checkpoint: whoever is killed, and whenever, a rerun
does the slices without one. Results never depend on how many workers there were.
"""

import errno
import json
import logging
import os
import secrets
import signal
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError, GristmillError
from gristmill.core.progress import Progress
from gristmill.execution.session import Execution, cluster_cpus, cluster_gpus

READ_MARKERS_AT_ONCE = 16
RETRIES_AFTER_A_KILL = 5
DISK_FULL = "the disk is full; make room and run the same command again"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A piece of a source. `name` is unique within the map and sorts in source order."""

    name: str
    weight: int = 1
    """Units (rows, samples) in it, for the progress line."""
    payload: dict[str, Any] = field(default_factory=dict)
    """What the worker needs to find it; plain JSON values."""


class SliceWorker(ABC):
    """Handles slices. Pickled to the workers; `setup` then runs once in each."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def setup(self) -> None:  # noqa: B027 - most workers need none
        """Load models and the like."""

    @abstractmethod
    def process(self, piece: Slice) -> dict[str, Any]:
        """Handle one slice and publish its files; doing it twice must leave the same.

        Returns:
            Small JSON figures (counts by reason, hashes), kept in the slice's marker.

        Raises:
            CorruptDataError: The slice cannot be read; the message names the place.
        """


class SliceFailedError(GristmillError):
    """A slice failed; carries the worker's own words."""


_ERRORS: dict[str, type[GristmillError]] = {
    "corrupt": CorruptDataError,
    "bad input": BadInputError,
    "other": SliceFailedError,
}


def map_slices(
    title: str,
    pieces: Sequence[Slice],
    worker: SliceWorker,
    *,
    ledger: str,
    execution: Execution,
    unit: str = "rows",
    skip_corrupt: bool = False,
) -> list[dict[str, Any]]:
    """Handle every slice once, in parallel, going on from what an earlier run committed.

    Args:
        title: For the progress line.
        pieces: The slices; names must be unique.
        worker: Copied to the workers.
        ledger: Folder of the markers; one map a folder.
        execution: How many workers at most.
        unit: What `weight` counts.
        skip_corrupt: Note a slice that raises CorruptDataError and go on; its marker then has
            a `corrupt` entry.

    Returns:
        The marker of each slice, in the order of `pieces`.

    Raises:
        CorruptDataError: A slice cannot be read and `skip_corrupt` is off.
        BadInputError: A worker found input that cannot be right.
        SliceFailedError: A worker raised anything else.
    """
    done = committed(ledger)
    pending = [p for p in pieces if p.name not in done]
    already = sum(p.weight for p in pieces) - sum(p.weight for p in pending)
    if already:
        logger.info("%s: %s %s were done before", title, f"{already:,}", unit)
    total = already + sum(p.weight for p in pending)
    with Progress(title, total, unit, done=already) as progress:
        for outcome in _stream(pending, worker, ledger, execution, skip_corrupt):
            if "error" in outcome:
                raise _ERRORS[outcome["kind"]](outcome["error"])
            done[outcome["name"]] = outcome["result"]
            progress.advance(outcome["weight"])
    return [done[p.name] for p in pieces]


def committed(ledger: str) -> dict[str, dict[str, Any]]:
    """The markers that are there, by slice name."""
    files = io.list_files(ledger, ".json")
    with ThreadPoolExecutor(READ_MARKERS_AT_ONCE) as pool:
        markers = list(pool.map(io.read_json, files))
    return {
        os.path.basename(f).removesuffix(".json"): m for f, m in zip(files, markers, strict=True)
    }


def _stream(
    pending: Sequence[Slice],
    worker: SliceWorker,
    ledger: str,
    execution: Execution,
    skip_corrupt: bool,
) -> Iterator[dict[str, Any]]:
    if not pending:
        return
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [
        {"piece": json.dumps({"name": p.name, "weight": p.weight, "payload": p.payload})}
        for p in pending
    ]
    room = max(int(cluster_cpus() / worker.num_cpus), 1)
    if worker.num_gpus:  # more actors than GPUs would wait for one another
        room = max(min(room, int(cluster_gpus() / worker.num_gpus)), 1)
    width = min(len(rows), execution.workers or room, room)
    host = _Host(worker, ledger, skip_corrupt)
    shared: dict[str, Any] = {"batch_size": 1, "num_cpus": worker.num_cpus}
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    if worker.num_gpus:
        # Ray ends a GPU task's process with the task, and with it the model: so actors here.
        compute = ray.data.ActorPoolStrategy(size=width)
        data = data.map_batches(
            _HostActor,
            fn_constructor_args=(host,),
            compute=compute,
            num_gpus=worker.num_gpus,
            **shared,
        )
    else:
        # Tasks: their processes outlive the map, so a second one starts in 0.2 s instead of 2.5.
        compute = ray.data.TaskPoolStrategy(size=width)
        # Ray Data would start a task that kills its worker again for ever. Ray 2.60 deprecates this
        # way to say so and offers no other yet; the dependency ends before the version without it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bounded = {"max_retries": RETRIES_AFTER_A_KILL}
            data = data.map_batches(host, compute=compute, **shared, **bounded)
    for row in data.iter_rows():
        yield json.loads(row["outcome"])


class _Host:
    """Runs the worker, commits markers, turns errors into rows."""

    def __init__(self, worker: SliceWorker, ledger: str, skip_corrupt: bool) -> None:
        self._worker, self._ledger, self._skip_corrupt = worker, ledger, skip_corrupt
        self._key = secrets.token_hex(8)  # one a map: a later map's worker is another

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        piece = Slice(**json.loads(batch["piece"][0]))
        return {"outcome": [json.dumps(self._outcome(piece))]}

    def _ready_worker(self) -> SliceWorker:
        """The worker of this process for this map, set up once; the one of an earlier map goes."""
        if self._key not in _READY:
            _READY.clear()
            self._worker.setup()
            _READY[self._key] = self._worker
        return _READY[self._key]

    def _outcome(self, piece: Slice) -> dict[str, Any]:
        try:
            result = self._ready_worker().process(piece)
        except CorruptDataError as error:
            if not self._skip_corrupt:
                return {"error": str(error), "kind": "corrupt"}
            result = {"corrupt": str(error), "lost": piece.weight}
        except GristmillError as error:
            kind = "bad input" if isinstance(error, BadInputError) else "other"
            return {"error": str(error), "kind": kind}
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                return {"error": f"{DISK_FULL}: {error}", "kind": "other"}
            trace = "".join(traceback.format_exception(error)[-4:])
            return {"error": f"slice {piece.name}: {error!r}\n{trace}", "kind": "other"}
        fault_point(f"before-commit:{piece.name}")
        io.write_json(io.join(self._ledger, piece.name + ".json"), result)
        return {"name": piece.name, "weight": piece.weight, "result": result}


class _HostActor:
    """A host in an actor, for workers that hold a GPU."""

    def __init__(self, host: _Host) -> None:
        self._host = host

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self._host(batch)


_READY: dict[str, SliceWorker] = {}


def fault_point(name: str) -> None:
    """End this process here with SIGKILL, once, if the test setting GRISTMILL_FAULT asks for it.

    GRISTMILL_FAULT is `FOLDER:NAME`: a local folder whose marker file makes the fault happen only
    once, and the name of the point.
    """
    folder, _, wanted = os.environ.get("GRISTMILL_FAULT", "").partition(":")
    if wanted and wanted == name:
        try:
            os.close(os.open(os.path.join(folder, "struck"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
