"""`clip evaluate`: the tasks of a benchmark, each on a Ray worker, resumable task by task."""

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.evaluation.aggregate import aggregate
from gristmill.evaluation.benchmark import find_benchmark, load_task
from gristmill.evaluation.candidate import Candidate, candidate_of_run, candidate_of_weights
from gristmill.evaluation.results import RESULTS, result_line, write_results
from gristmill.evaluation.tasks.base import MAIN, Task
from gristmill.execution.growth import most_gpus
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, committed, map_slices
from gristmill.models.clip import LoadedClip, load_clip

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(Job):
    """Zero-shot evaluation of one CLIP model."""

    uri_fields: ClassVar[tuple[str, ...]] = ("run", "weights", "eval_data")

    run: str = ""
    """Folder of a finished `clip train` run, whose last checkpoint is evaluated."""
    arch: str = ""
    """Instead of --run: an open_clip architecture."""
    weights: str = ""
    """With --arch: a weights file, or a folder with checkpoints/."""
    benchmark: str = "demo"
    """Which list of tasks."""
    eval_data: str = ""
    """Folder (any fsspec URI) of the wds_*_test evaluation sets; demo and digits bring theirs."""
    batch_size: int = 64
    """Pictures at once; does not change a result."""
    out: str = ""
    """Folder (any fsspec URI) for the results; empty takes evaluate/BENCHMARK in the --run."""
    execution: Execution = field(default_factory=Execution)
    """Where it runs."""

    def __post_init__(self) -> None:
        if self.out == "" and isinstance(self.run, str) and self.run:
            object.__setattr__(self, "out", io.join(self.run, "evaluate", self.benchmark))
        super().__post_init__()
        if bool(self.run) == bool(self.arch and self.weights) or bool(self.arch) != bool(
            self.weights
        ):
            raise BadInputError("give either --run, or --arch with --weights")
        if self.batch_size < 1:
            raise BadInputError(f"batch_size must be 1 or more, not {self.batch_size}")
        find_benchmark(self.benchmark)

    def plan(self) -> Plan:
        """Tasks, bytes read and warnings; hashes the checkpoint, decodes nothing."""
        candidate, tasks = self._candidate(), self._tasks()
        weights = candidate.spec.weights
        reads = [(f"weights {io.redact(weights)}", io.size_bytes(weights))]
        for task in tasks:
            tars = io.list_files(io.join(task.folder(self.eval_data), "test"), ".tar")
            reads.append((task.key, sum(map(io.size_bytes, tars))))
        return Plan(
            title=f"evaluate {candidate.spec.arch} on {find_benchmark(self.benchmark).label}",
            reads=reads,
            writes=[(f"{self.out}/{RESULTS}", 0)],
            work=[("tasks", str(len(tasks))), ("model", candidate.weights_sha256[:12])],
            warnings=candidate.warnings,
        )

    def execute(self, run: Run) -> None:
        """Evaluate what no earlier start has finished, then write results and averages."""
        from gristmill.evaluation.page import evaluation_report

        benchmark, candidate, tasks = (
            find_benchmark(self.benchmark),
            self._candidate(),
            self._tasks(),
        )
        markers = self._evaluate(run, candidate, benchmark.label)
        by_key = dict(zip([task.key for task in tasks], markers, strict=True))
        lines = [result_line(task, by_key[task.key]["metrics"]) for task in tasks]
        scores = aggregate(lines, tasks)
        write_results(run.path(RESULTS), lines)
        run.add_output(RESULTS)
        run.add_input("model", candidate.identity)
        for task, name in zip(tasks, benchmark.tasks, strict=True):
            run.add_input(f"eval_data/{task.key}", by_key[task.key]["inputs"])
            run.add_output(f"details/{name}.json")
        details = [io.read_json(run.path("details", f"{name}.json")) for name in benchmark.tasks]
        page = evaluation_report(candidate, benchmark.label, tasks, lines, details, scores)
        page.save(run.path("report.html"))
        run.set_summary(
            average=scores.average,
            **{f"average_{name}": value for name, value in scores.groups.items()},
            **scores.tasks,
            benchmark=benchmark.name,
            benchmark_version=benchmark.version,
            comparable=candidate.comparable,
            scale=candidate.scale,
            arch=candidate.spec.arch,
            weights_sha256=candidate.weights_sha256,
        )
        for line in lines:
            run.log(task=line["key"], main_metric=line["metrics"][MAIN])

    def _candidate(self) -> Candidate:
        if self.run:
            return candidate_of_run(self.run)
        return candidate_of_weights(self.arch, self.weights)

    def _tasks(self) -> list[Task]:
        """The tasks, each with its data in place."""
        tasks = find_benchmark(self.benchmark).load()
        for task in tasks:
            task.check(self.eval_data)
        return tasks

    def _evaluate(self, run: Run, candidate: Candidate, label: str) -> list[dict[str, Any]]:
        benchmark = find_benchmark(self.benchmark)
        pieces = [Slice(name=name, payload={"number": i}) for i, name in enumerate(benchmark.tasks)]
        # A ledger a model and version: a resumed run never mixes the scores of two checkpoints.
        ledger = run.scratch(f"tasks-{label}-{candidate.weights_sha256[:16]}")
        data = io.absolute(self.eval_data) if self.eval_data else ""
        _forget_changed(ledger, data)
        with session(self.execution):
            on_gpu = most_gpus() > 0
            worker = TaskWorker(candidate, data, self.batch_size, run.path("details"), on_gpu)
            return map_slices(
                "evaluate", pieces, worker, ledger=ledger, execution=self.execution, unit="tasks"
            )


def _forget_changed(ledger: str, data_root: str) -> None:
    """Drop the markers of tasks whose data changed since an earlier start, so they run again."""
    for name, marker in committed(ledger).items():
        if load_task(name).data_changed(data_root, marker["inputs"]):
            logger.warning("the data of task %s changed since it was scored; scoring anew", name)
            io.remove(io.join(ledger, f"{name}.json"))


class TaskWorker(SliceWorker):
    """Runs tasks on one model, loaded once."""

    def __init__(
        self, candidate: Candidate, data_root: str, batch_size: int, details: str, on_gpu: bool
    ) -> None:
        self._candidate, self._data_root, self._batch_size = candidate, data_root, batch_size
        self._details = details
        self.num_gpus = 1.0 if on_gpu else 0.0
        self._model: LoadedClip | None = None

    def setup(self) -> None:
        """Load the model, in fp32 through and through."""
        import torch

        torch.backends.cudnn.allow_tf32 = False  # on by default for convolutions: not fp32
        spec = self._candidate.spec
        self._model = load_clip(spec, device="cuda" if self.num_gpus else "cpu")
        digest = io.sha256(spec.weights)  # after loading: no change before or in it goes unseen
        if digest != self._candidate.weights_sha256:
            raise BadInputError(
                f"{io.redact(spec.weights)} changed while it was evaluated: its SHA-256 was "
                f"{self._candidate.weights_sha256[:12]}…, now {digest[:12]}…; evaluate again"
            )

    def process(self, piece: Slice) -> dict[str, Any]:
        """Evaluate one task; its marker holds metrics and input hashes."""
        assert self._model is not None, "setup comes first"
        result = load_task(piece.name).evaluate(self._model, self._data_root, self._batch_size)
        details = {"chance": result.chance, **result.details}
        io.write_json(io.join(self._details, f"{piece.name}.json"), details)
        return {"metrics": result.metrics, "inputs": result.inputs}
