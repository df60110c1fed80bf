"""Start the ranks of a training with Ray Train. The only importer of `ray.train`.

Ray Train places the ranks, connects them, and restarts all of them when one dies. Everything that
outlives a restart is ours: checkpoints lie in the run's folder, where the new ranks look for the
newest, and records go through a mailbox to the driver, the only writer of the run's metrics. So a
rank that outlives a killed driver for a moment cannot write beside the next one.
"""

import contextlib
import errno
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.torch
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gristmill.core import errors, io
from gristmill.core.errors import GristmillError, RunError, TryAgainError
from gristmill.core.run import current_logs
from gristmill.execution.allocator import keep_freed_memory
from gristmill.execution.follower import followed
from gristmill.execution.growth import growth
from gristmill.execution.session import machines_lost
from gristmill.training import checkpoint
from gristmill.training.deaths import DEATH, FailureReport, log_kind, tell_of_death
from gristmill.training.place import Place

if TYPE_CHECKING:
    from gristmill.training.loop import TrainSpec

POLL_SECONDS = 0.25
SETTLE_SECONDS = 0.05
WAITED_FOR = ("epoch", "saving", "saved")
"""Kinds of records after which a rank waits until the driver has dealt with all so far."""
START_TIMEOUT, START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 1800
"""Ray Train's minute is over before a cloud has started a machine; each try anew asks for all."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a restart does not mend."""
Post = Callable[[dict[str, Any]], None]
logger = logging.getLogger(__name__)


class _Mailbox:
    """Records on their way from rank 0 to the driver, and why the training must not be retried."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._fatal: dict[str, Any] | None = None
        self._waiting = 0

    def post(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        self._waiting += 1

    def written(self, count: int) -> None:
        self._waiting -= count

    def settled(self) -> bool:
        return self._waiting == 0

    def post_fatal(self, why: dict[str, Any]) -> None:
        self._fatal = self._fatal or why

    def take(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        taken, self._records = self._records, []
        return taken, self._fatal

    def fatal(self) -> dict[str, Any] | None:
        return self._fatal


def launch(
    spec: "TrainSpec",
    *,
    name: str,
    num_workers: int,
    use_gpu: bool,
    max_failures: int,
    on_record: Callable[[dict[str, Any]], None],
) -> None:
    """Train to the end; returns when every rank has.

    Args:
        spec: What the ranks do.
        name: Of the training, for Ray's own logs.
        num_workers: Ranks.
        use_gpu: One GPU a rank, over NCCL; else one CPU, over Gloo.
        max_failures: How many times a dead rank may restart the group.
        on_record: Gets rank 0's records of starts, steps and epochs in this thread, in order.

    Raises:
        GristmillError: What a rank raised about its input; or RunError when ranks kept failing,
            the disk is full, or checkpoints land where this process does not see them.
    """
    run_ranks(
        _train_clip,
        spec,
        name=name,
        scaling=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        max_failures=max_failures,
        deliver=_Delivery(spec, on_record),
    )


def _train_clip(spec: "TrainSpec", place: Place, post: Post) -> None:
    from gristmill.training.loop import train

    train(spec, place, post)


def run_ranks(
    train: Callable[[Any, Place, Post], None],
    spec: Any,
    *,
    name: str,
    scaling: Any,
    max_failures: int,
    deliver: Post,
) -> None:
    """Run `train(spec, place, post)` as ranks; returns when every rank has.

    Args:
        train: A module's function, the same for every rank.
        spec: What it needs; has `checkpoints`, the URI of their folder.
        name: Of the training, for Ray's own logs.
        scaling: Ray's ScalingConfig. Ranks with GPUs speak NCCL, others Gloo.
        max_failures: How many times Ray may restart the group; -1: without end.
        deliver: Gets what the ranks post, and what is known of dead ranks, in this thread; what one
            posts in order.

    Raises:
        GristmillError: What a rank raised about its input; or RunError when ranks kept failing.
    """
    _warn_of_private_disks(spec.checkpoints)
    mailbox = _make_mailbox()
    config = {"train": train, "spec": spec, "mailbox": mailbox, "logs": current_logs()}

    def told(record: dict[str, Any]) -> None:
        if record["kind"] == DEATH:
            tell_of_death(record)
        deliver(record)

    with tempfile.TemporaryDirectory(
        prefix="gristmill-train-", ignore_cleanup_errors=True
    ) as private:
        trainer = ray.train.torch.TorchTrainer(
            _rank_main,
            train_loop_config=config,
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
            scaling_config=scaling,
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=private,
                failure_config=ray.train.FailureConfig(max_failures=max_failures),
                callbacks=[FailureReport(mailbox)],
            ),
        )
        with _patience(scaling):
            failure = _fit(trainer, mailbox, told)
    if failure is not None:
        causes = [failure, *(getattr(failure, "worker_failures", None) or {}).values()]
        kind = TryAgainError if any(map(machines_lost, causes)) else RunError
        raise kind(
            f"training failed for good: {_first_line(failure)}; the same command resumes from the "
            "newest checkpoint"
        ) from failure


@contextlib.contextmanager
def _patience(scaling: Any) -> Iterator[None]:
    """Let Ray Train wait for machines as long as clouds take; its controller inherits the setting.

    Not an elastic group: that one begins smaller when its time is over.
    """
    before = os.environ.get(START_TIMEOUT)
    if before is None and isinstance(scaling.num_workers, int):
        os.environ[START_TIMEOUT] = str(START_SECONDS)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(START_TIMEOUT, None)


def _make_mailbox() -> Any:
    """A mailbox on this process's own machine, so that it lives as long as this process."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()


def _warn_of_private_disks(checkpoints: str) -> None:
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    many = f"{nodes} machines" if nodes > 1 else "machines that come and go"
    if io.is_local(checkpoints) and (nodes > 1 or growth() is not None):
        logger.warning(
            "--out is a local path on a cluster of %s: each of them must see the same "
            "folder at %s (a shared file system), or give --out a URI such as s3://bucket/run",
            many,
            checkpoints,
        )


class _Delivery:
    """Hands records to the run, and looks for each checkpoint that a rank says it has saved."""

    def __init__(self, spec: "TrainSpec", on_record: Callable[[dict[str, Any]], None]) -> None:
        self._checkpoints, self._on_record = spec.checkpoints, on_record

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] == DEATH:
            return  # Ray counts them, and restarts the group
        if record["kind"] == "saved":
            self._look_for(record["epoch"] + 1)
        try:
            self._on_record(record)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise RunError(disk_error(error)) from error

    def _look_for(self, epoch: int) -> None:
        here = checkpoint.epochs_done(self._checkpoints)
        if max(here, default=0) < epoch:  # an older one may have been removed since
            raise RunError(
                f"a worker saved epoch_{epoch}.pt in {io.redact(self._checkpoints)}, but it is not "
                "there for the driver: they run on machines with disks of their own; give --out a "
                "folder that all of them share, or a URI such as s3://bucket/run"
            )


def _fit(trainer: Any, mailbox: Any, deliver: Post) -> BaseException | None:
    """Run the trainer in a thread and deliver records meanwhile; what it raised, if anything.

    Raises what a rank left in the mailbox as fatal.

    In a thread because `fit` takes over Ctrl-C when it owns the main thread, and then exits with
    status 0; here Ctrl-C ends the driver as it ends every command.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # Ray raises SystemExit when it is told to go
            raised.append(error)

    thread = threading.Thread(target=run, name="ray-train-fit", daemon=True)
    thread.start()
    running = True
    while running:
        thread.join(POLL_SECONDS)
        running = thread.is_alive()
        fatal = _deliver_all(mailbox, deliver)
        if fatal is not None:  # the group that Ray restarts now sees it too and ends by itself
            raise _rebuilt(fatal)
    return raised[0] if raised else None


def _deliver_all(mailbox: Any, deliver: Post) -> dict[str, Any] | None:
    """Deliver what has come in; why the training must end, if it must.

    Raises:
        RunError: The mailbox has died, or a record cannot be delivered.
    """
    try:
        records, fatal = ray.get(mailbox.take.remote())
    except RayActorError as error:
        raise TryAgainError(
            f"the process that carries the workers' records died ({_first_line(error)}); "
            "the same command resumes from the newest checkpoint"
        ) from error
    try:
        for record in records:
            deliver(record)
    except BaseException:
        ray.kill(mailbox)  # ranks that wait for their records end, rather than train on unheard
        raise
    mailbox.written.remote(len(records))
    return fatal


def _rank_main(config: dict[str, Any]) -> None:
    """One rank. An error that a retry cannot mend is left in the mailbox for the driver."""
    spec, mailbox = config["spec"], config["mailbox"]
    if ray.get(mailbox.fatal.remote()) is not None:
        return  # Ray Train restarts the group whatever was raised; this ends the restart at once
    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
    )
    if place.device.type == "cpu":
        keep_freed_memory()
    try:
        with followed(config["logs"], log_kind(place.rank)):
            config["train"](spec, place, lambda record: _send(mailbox, record))
    except (GristmillError, OSError) as error:
        why = {"kind": type(error).__name__, "text": str(error)}
        if isinstance(error, OSError):
            if error.errno not in DISK_ERRORS:
                raise
            why = {"kind": RunError.__name__, "text": disk_error(error)}
        ray.get(mailbox.post_fatal.remote(why))
        if place.world_size > 1:
            raise  # the other ranks wait for this one; only a failure of the group frees them


def _send(mailbox: Any, record: dict[str, Any]) -> None:
    """Post a record; on those around a checkpoint, wait until the driver has dealt with it."""
    mailbox.post.remote(record)  # calls of one caller arrive in order
    if record["kind"] in WAITED_FOR:
        while not ray.get(mailbox.settled.remote()):
            time.sleep(SETTLE_SECONDS)


def _rebuilt(fatal: dict[str, Any]) -> GristmillError:
    """The error a rank left, as it would have been raised here."""
    kind = getattr(errors, fatal["kind"], RunError)
    error: GristmillError = kind.__new__(kind, fatal["text"])
    error.args = (fatal["text"],)
    return error


def disk_error(error: OSError) -> str:
    """What to say when a file cannot be written for want of room."""
    if error.errno == errno.EFBIG:
        return f"a file is larger than this system lets it be ({error}); raise that limit (ulimit)"
    return f"{errors.DISK_FULL}: {error}"


def _first_line(error: BaseException) -> str:
    """The cause inside Ray's report of it: its last line that names an error."""
    failures = getattr(error, "worker_failures", None)
    cause = next(iter(failures.values())) if failures else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else repr(cause)


def announced() -> bool:
    """Whether Ray says that a node of this training will be taken away; rank 0's word, for all."""
    ask = getattr(ray.train, "get_preemption_info", None)  # not in every Ray that we allow
    return ask is not None and ask() is not None
