"""How slices reach workers: Ray tasks for CPU work, a Ray Data actor pool for GPU work.

Only names and small JSON pass through Ray: what a slice reads and writes goes from and to storage
in the worker, so the object store cannot spill.
"""

import errno
import json
import logging
import os
import secrets
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from gristmill.core import io
from gristmill.core.errors import (
    DISK_FULL,
    BadInputError,
    CorruptDataError,
    GristmillError,
    TryAgainError,
)
from gristmill.core.run import current_logs
from gristmill.execution.growth import most_room
from gristmill.execution.session import Execution, cluster_cpus, machines_lost, node_rooms
from gristmill.execution.work import Slice, SliceFailedError, SliceWorker
from gristmill.execution.worker_log import copied

RETRIES_AFTER_A_KILL = 5
LOOK_EVERY_SECONDS = 1.0
AHEAD = 2
"""Tasks asked for a CPU: a worker never waits for the driver, and an autoscaler sees demand."""


def outcomes(
    pending: Sequence[Slice], host: "Host", execution: Execution
) -> Iterator[dict[str, Any]]:
    """What became of each slice, in the order they end.

    Raises:
        SliceFailedError: A slice's process died again and again, or its node did.
    """
    if not pending:
        return
    by = _by_actors if host.worker.num_gpus else _by_tasks
    for text in by([_line(piece) for piece in pending], host, execution):
        yield json.loads(text)


def _line(piece: Slice) -> str:
    return json.dumps({"name": piece.name, "weight": piece.weight, "payload": piece.payload})


def _by_tasks(lines: Sequence[str], host: "Host", execution: Execution) -> Iterator[str]:
    """Plain tasks: their processes outlive the map, so the next starts in some 15 ms."""
    import ray

    task = ray.remote(Host.run).options(
        num_cpus=host.worker.num_cpus,
        max_retries=RETRIES_AFTER_A_KILL,
        scheduling_strategy="SPREAD",
    )
    shared = ray.put(host)
    waiting = deque(lines)
    running: dict[Any, str] = {}
    width = _Width(host.worker, execution)
    try:
        while waiting or running:
            while waiting and len(running) < width.now():
                line = waiting.popleft()
                running[task.remote(shared, line)] = line
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                line = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise _failed(line, "could not start or report", error) from error
                except ray.exceptions.RayError as error:
                    if machines_lost(error):
                        name = json.loads(line)["name"]
                        raise TryAgainError(
                            f"slice {name} lost its machine again and again: {error}; the same "
                            "command goes on"
                        ) from error
                    times = f"failed in Ray, after up to {RETRIES_AFTER_A_KILL} retries"
                    raise _failed(line, times, error) from error
    finally:
        for reference in running:  # only when one failed: the others' work would be thrown away
            ray.cancel(reference)


class _Width:
    """Tasks in flight; looked up again every second, since clusters grow and shrink."""

    def __init__(self, worker: SliceWorker, execution: Execution) -> None:
        self._num_cpus, self._asked = worker.num_cpus, execution.workers
        self._found, self._until = 0, 0.0

    def now(self) -> int:
        """How many tasks may be out at this moment."""
        if not self._asked and time.monotonic() > self._until:
            self._found = AHEAD * max(int(cluster_cpus() / self._num_cpus), 1)
            self._until = time.monotonic() + LOOK_EVERY_SECONDS
        return self._asked or self._found


def _failed(line: str, how: str, error: Exception) -> SliceFailedError:
    name = json.loads(line)["name"]
    return SliceFailedError(f"slice {name} {how}: {str(error).strip() or type(error).__name__}")


def _by_actors(lines: Sequence[str], host: "Host", execution: Execution) -> Iterator[str]:
    """Ray ends a GPU task's process with the task, and with it the model: so actors here."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def fits(cpus: float, gpus: float) -> int:
        return int(min(cpus / host.worker.num_cpus, gpus / host.worker.num_gpus) + 1e-6)

    # More actors than GPUs would wait for one another; Ray Data starts more as machines come.
    most = max(most_room(fits), 1)
    most = min(len(lines), execution.workers or most, most)
    least = min(max(sum(fits(*room) for room in node_rooms()), 1), most)
    data = ray.data.from_items([{"piece": line} for line in lines], override_num_blocks=len(lines))
    data = data.map_batches(
        HostActor,
        fn_constructor_args=(host,),
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        num_gpus=host.worker.num_gpus,
        num_cpus=host.worker.num_cpus,
        batch_size=1,
        max_restarts=-1,  # of an actor, which does many slices
        max_task_retries=RETRIES_AFTER_A_KILL,
    )
    try:
        for row in data.iter_rows():
            yield row["outcome"]
    except ray.exceptions.RayError as error:
        if machines_lost(error):
            raise
        raise SliceFailedError(
            f"a slice failed in Ray, after up to {RETRIES_AFTER_A_KILL} retries: "
            f"{str(error).strip() or type(error).__name__}"
        ) from error


class Host:
    """Runs the worker, commits markers, turns errors into rows."""

    def __init__(self, worker: SliceWorker, ledger: str, skip_corrupt: bool) -> None:
        self.worker, self._ledger, self._skip_corrupt = worker, ledger, skip_corrupt
        self._key = secrets.token_hex(8)  # one a map: a later map's worker is another
        self._logs = current_logs()

    def run(self, line: str) -> str:
        """Handle one slice, given and answered as JSON."""
        with copied(self._logs):
            return json.dumps(self._outcome(Slice(**json.loads(line))))

    def _ready_worker(self) -> SliceWorker:
        """The worker of this process for this map, set up once; the one of an earlier map goes."""
        if self._key not in _READY:
            _READY.clear()
            self.worker.setup()
            _READY[self._key] = self.worker
        return _READY[self._key]

    def _outcome(self, piece: Slice) -> dict[str, Any]:
        try:
            result = self._result(piece)
            fault_point(f"before-commit:{piece.name}")
            io.write_json(io.join(self._ledger, piece.name + ".json"), result)
        except CorruptDataError as error:
            return {"error": str(error), "kind": "corrupt"}
        except TryAgainError as error:
            return {"error": str(error), "kind": "try again"}
        except GristmillError as error:
            kind = "bad input" if isinstance(error, BadInputError) else "other"
            return {"error": str(error), "kind": kind}
        except (ConnectionError, TimeoutError) as error:
            said = f"slice {piece.name}: {error!r}; the same command goes on"
            return {"error": said, "kind": "try again"}
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                return {"error": f"{DISK_FULL}: {error}", "kind": "other"}
            trace = "".join(traceback.format_exception(error)[-4:])
            return {"error": f"slice {piece.name}: {error!r}\n{trace}", "kind": "other"}
        return {"name": piece.name, "weight": piece.weight, "result": result}

    def _result(self, piece: Slice) -> dict[str, Any]:
        worker = self._ready_worker()
        try:
            return worker.process(piece)
        except CorruptDataError as error:
            if not self._skip_corrupt:
                raise
            return {"corrupt": str(error), "lost": piece.weight}


class HostActor:
    """A host in an actor, for workers that hold a GPU."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One slice a batch."""
        return {"outcome": [self._host.run(batch["piece"][0])]}


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
