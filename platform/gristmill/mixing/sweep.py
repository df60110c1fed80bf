"""Train many proxies at once on Ray Tune. The one door to Tune.

Tune chooses where a trial runs, uses its actors again (0.1 s a trial instead of 2), retries and,
if asked, ends hopeless trials early. It keeps nothing of ours: the worker itself writes a proxy's
result as it ends, and a sweep begins by reading what is there.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.progress import Progress
from gristmill.core.run import current_logs
from gristmill.execution.growth import most_room
from gristmill.execution.hosting import fault_point
from gristmill.execution.session import Execution, node_rooms
from gristmill.execution.worker_log import copied
from gristmill.mixing.proxy import DivergedError, Proxy, ProxyBench, Trial
from gristmill.mixing.results import Result, file_name, load_results
from gristmill.mixing.retries import load_retries, note_retry

PIECES = 8
"""A proxy reports this often: for progress, and where ASHA may end it."""
ASHA_GRACE, ASHA_FACTOR = 2, 2
"""ASHA looks first after this many pieces, then each time their number has doubled."""
MEAN = "mean"
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must end the command, not only the sweep
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # its state is never read back, so it need not be written
}
RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Timeout|Died)\b.*")
"""The line of a traceback that has the exception itself."""
COLOUR = re.compile(r"\x1b\[[\d;]*m")
NOWHERE = "ended without a result: on several machines --out must be storage that all share"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is to be trained, how, and where results go."""

    trials: tuple[Trial, ...]
    """Indexes are unique."""
    bench: ProxyBench
    """Copied to the workers."""
    logs: str = field(default_factory=current_logs)
    """Folder for what the workers say."""
    folder: str
    """Of the results."""
    cpus: float = 1.0
    """CPUs of a proxy."""
    gpus: float = 0.0
    """GPUs of a proxy; a fraction lets several share one."""
    retries: int = 2
    """How often a trial that raises, or whose process dies, is begun again."""
    asha: str = ""
    """Target whose loss decides which trials end early, or `mean`. Empty: none do. ASHA compares a
    trial with those that came before it, so which end early depends on how many run at once; one
    that is trained to its end has the same losses whatever the others did."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of all trials."""

    results: Mapping[str, Result]
    """Those that came to an end."""
    failed: Mapping[str, str]
    """Those that did not, retries included: index -> what was raised last."""
    retried: Mapping[str, int]
    """How often a trial was begun again, in all runs of the command."""


class TrialWorker:
    """What the actor does; it handles trial after trial with one bench."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._ready = sweep, False
        self._trials = {trial.index: trial for trial in sweep.trials}

    def begin(self, index: str) -> None:
        """Take up a trial; the work itself starts in `piece`, where Tune counts what raises."""
        self._trial, self._seconds = self._trials[index], 0.0
        self._proxy: Proxy | None = None

    def piece(self) -> dict[str, Any]:
        """Train on, and report. Writes the result at the end."""
        if io.exists(io.join(self._sweep.folder, file_name(self._trial.index))):
            return self._over()  # the process died after writing it
        started = time.monotonic()
        proxy = self._started()
        settings = self._sweep.bench.settings
        losses, train_loss = {}, 0.0
        try:
            train_loss = proxy.advance(-(-settings.steps // PIECES))
            over = proxy.step >= settings.steps
            if over or self._sweep.asha:
                losses = proxy.losses()
        except DivergedError as error:
            self._seconds += time.monotonic() - started
            self._result("diverged", proxy, why=str(error)).save(self._sweep.folder)
            return self._over()
        self._seconds += time.monotonic() - started
        found = self._result(
            "done" if over else "stopped", proxy, losses=losses, train_loss=train_loss
        )
        if over:
            found.save(self._sweep.folder)
        report: dict[str, Any] = {"done": over, "over": over, "tokens": self._tokens(proxy.step)}
        if self._sweep.asha:
            report |= {"loss": _aim(losses, self._sweep.asha), "result": vars(found)}
        return report

    def _over(self) -> dict[str, Any]:
        """The report of a trial without losses; ASHA wants a number from every one."""
        return {
            "done": True,
            "over": True,
            "tokens": self._sweep.bench.settings.tokens,
            "loss": 1e9,
        }

    def _started(self) -> Proxy:
        if not self._ready:
            self._sweep.bench.setup()
            self._ready = True
        if self._proxy is None:
            self._proxy = self._sweep.bench.begin(self._trial)
        fault_point(f"proxy:{self._trial.index}:{self._proxy.step}")
        return self._proxy

    def _tokens(self, steps: int) -> int:
        settings = self._sweep.bench.settings
        return steps * settings.batch_size * settings.seq_len

    def _result(self, status: Any, proxy: Proxy, **more: Any) -> Result:
        return Result(
            index=self._trial.index,
            status=status,
            step=proxy.step,
            tokens=self._tokens(proxy.step),
            seconds=round(self._seconds, 3),
            **more,
        )


def run_sweep(sweep: Sweep, execution: Execution) -> Outcome:
    """Train what has no result yet. Needs a Ray session.

    Raises:
        BadInputError: No machine of the cluster has room for a proxy.
    """
    done = load_results(sweep.folder)
    wanted = [trial.index for trial in sweep.trials]
    pending = [index for index in wanted if index not in done]
    if done:
        logger.info("%d of %d proxies were trained before", len(wanted) - len(pending), len(wanted))
    failed: dict[str, str] = {}
    if pending:
        require_room(sweep.cpus, sweep.gpus)
        tokens = sweep.bench.settings.tokens
        before = (len(wanted) - len(pending)) * tokens
        with Progress("proxies", len(wanted) * tokens, "tokens", done=before) as progress:
            failed = _until_settled(sweep, pending, execution, progress)
    results = load_results(sweep.folder)
    return Outcome(
        results={index: results[index] for index in wanted if index in results},
        failed={index: failed.get(index, NOWHERE) for index in pending if index not in results},
        retried=load_retries(sweep.folder),
    )


def require_room(cpus: float, gpus: float) -> None:
    """Refuse proxies that would wait for ever.

    Raises:
        BadInputError: No machine of the cluster has room for one.
    """
    if most_room(lambda *room: _fits(room, cpus, gpus)):
        return
    rooms = node_rooms()
    largest = ", ".join(f"{c:g} CPUs and {g:g} GPUs" for c, g in sorted(set(rooms), reverse=True))
    raise BadInputError(
        f"a proxy asks for {cpus:g} CPUs and {gpus:g} GPUs of one machine, and the cluster's have "
        f"{largest or 'none'}, nor would any that may come: it would wait for ever; ask for less, "
        "or join a larger cluster with --address"
    )


def _fits(room: tuple[float, float], cpus: float, gpus: float) -> int:
    """Proxies at once on a machine of so many CPUs and GPUs. One never spans two GPUs."""
    found = room[0] / cpus + 1e-6 if cpus else room[0]
    if gpus:
        found = min(found, room[1] * int(1 / gpus + 1e-6))
    return int(found)


def _width(sweep: Sweep, execution: Execution) -> int:
    """Trials at once. A bound of our own: idle actors that hold every CPU can hang Tune."""
    room = most_room(lambda *one: _fits(one, sweep.cpus, sweep.gpus))
    return max(min(execution.workers or room, room), 1)


def _until_settled(
    sweep: Sweep, pending: Sequence[str], execution: Execution, progress: Progress
) -> dict[str, str]:
    """Train all of them. A trial that fails while Tune has it wait for its next try, as when the
    death of one process is told twice, is given up at once, whatever retries are left: we go on."""
    failed: dict[str, str] = {}
    left = list(pending)
    while left:
        found, early = _tune(sweep, left, execution, progress)
        failed |= found
        times = load_retries(sweep.folder)
        left = [index for index in early if times.get(index, 0) < sweep.retries]
        for index in left:
            note_retry(sweep.folder, index)
            logger.warning("proxy %s was given up early and is begun again", index)
    return failed


def _tune(
    sweep: Sweep, pending: Sequence[str], execution: Execution, progress: Progress
) -> tuple[dict[str, str], list[str]]:
    """What the failed ones raised; and those of them that had tries left."""
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are told below, once
    asha = {"max_t": PIECES, "grace_period": ASHA_GRACE, "reduction_factor": ASHA_FACTOR}
    scheduler = ASHAScheduler(**asha) if sweep.asha else FIFOScheduler()
    trainable = tune.with_resources(
        tune.with_parameters(_trainable(), sweep=sweep), {"cpu": sweep.cpus, "gpu": sweep.gpus}
    )
    watch = _watch(sweep, progress)
    with tempfile.TemporaryDirectory(prefix="gristmill-tune-") as folder:
        tune.Tuner(
            trainable,
            param_space={"index": tune.grid_search(list(pending))},
            tune_config=tune.TuneConfig(
                metric="loss" if sweep.asha else None,
                mode="min" if sweep.asha else None,
                scheduler=scheduler,
                reuse_actors=True,
                max_concurrent_trials=_width(sweep, execution),
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=sweep.retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[watch],
            ),
        ).fit()
        failed = {  # by now Tune has stored what they raised
            index: _kept(sweep.folder, index, trial.get_pickled_error() or trial.get_error())
            for index, trial in watch.failed.items()
        }
    early = [i for i, trial in watch.failed.items() if trial.num_failures <= sweep.retries]
    return failed, early


def _trainable() -> Any:
    from ray.tune import Trainable

    class ProxyTrial(Trainable):
        """Tune's side of a TrialWorker."""

        def setup(self, config: dict[str, Any], sweep: Sweep) -> None:
            self._worker, self._logs = TrialWorker(sweep), sweep.logs
            self._worker.begin(config["index"])

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._worker.begin(new_config["index"])
            return True

        def step(self) -> dict[str, Any]:
            with copied(self._logs):
                return self._worker.piece()

    return ProxyTrial


def _watch(sweep: Sweep, progress: Progress) -> Any:
    from ray.tune import Callback

    class Watch(Callback):
        """Counts, and keeps what ASHA ended: only the driver knows of that."""

        def __init__(self) -> None:
            self._counted: dict[str, int] = {}
            self.failed: dict[str, Any] = {}

        def on_trial_result(self, *_: Any, trial: Any, result: Any, **__: Any) -> None:
            self._count(str(trial.config["index"]), int(result.get("tokens", 0)))

        def _count(self, index: str, tokens: int) -> None:
            progress.advance(tokens - self._counted.get(index, 0))
            self._counted[index] = tokens

        def on_trial_recover(self, *_: Any, trial: Any, **__: Any) -> None:
            index = str(trial.config["index"])
            self._count(index, 0)
            note_retry(sweep.folder, index)
            logger.warning("proxy %s failed and is begun again", index)

        def on_trial_error(self, *_: Any, trial: Any, **__: Any) -> None:
            index = str(trial.config["index"])
            self.failed[index] = trial
            self._count(index, 0)

        def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:
            last = trial.last_result or {}
            if "result" in last and not last.get("over"):
                Result(**last["result"]).save(sweep.folder)

    return Watch()


def _aim(losses: Mapping[str, float], target: str) -> float:
    return sum(losses.values()) / len(losses) if target == MEAN else losses[target]


def _kept(folder: str, index: str, error: BaseException) -> str:
    """What a trial raised, and where its traceback is kept."""
    uri = io.join(folder, "failed", file_name(index).removesuffix(".json") + ".txt")
    io.write_bytes(uri, COLOUR.sub("", str(error)).encode("utf-8", "replace"))
    return f"{_said(error)} (traceback: {io.redact(uri)})"


def _said(error: BaseException) -> str:
    """Type and message of what a trial raised: Tune hands its traceback on as the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [number for number, line in enumerate(lines) if RAISED.match(line)]
    return " ".join(lines[own[-1] :]) if own else (lines or [type(error).__name__])[-1]
