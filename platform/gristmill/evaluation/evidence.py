"""What stands behind a submission: runs, subset and results, checked against one another."""

from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.run import Run
from gristmill.evaluation import lineage
from gristmill.evaluation.aggregate import Aggregate, aggregate
from gristmill.evaluation.benchmark import Benchmark, find_benchmark
from gristmill.evaluation.candidate import checkpoint_of
from gristmill.evaluation.lineage import RunRecord
from gristmill.evaluation.results import RESULTS, read_results


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a bundle is made of, found consistent."""

    folders: dict[str, str]
    """Run folder by verb."""
    records: dict[str, RunRecord]
    scale: str
    comparable: bool
    benchmark: Benchmark
    scores: Aggregate
    results: str
    """URI of eval_results.jsonl."""
    subset: str
    """URI of the subset file; empty when there is none."""
    subset_size: int
    checkpoint: str
    """URI of the evaluated weights."""
    warnings: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The record of all main metrics."""
        return score_record(
            self.benchmark, self.scores, scale=self.scale, comparable=self.comparable
        )


def score_record(
    benchmark: Benchmark, scores: Aggregate, *, scale: str, comparable: bool
) -> dict[str, Any]:
    """Main metrics and averages as the bundle's record has them."""
    return {
        "scale": scale,
        "comparable": comparable,
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "average": scores.average,
        "groups": scores.groups,
        "tasks": scores.tasks,
    }


def gather(
    *, track: str, train_run: str, eval_run: str, filter_run: str, reshard_run: str, subset: str
) -> Evidence:
    """Read runs, subset and results, and check every link between them.

    Raises:
        BadInputError: A run is not finished, a task has no result, or a link does not hold.
    """
    given = {"filter": filter_run, "reshard": reshard_run, "train": train_run, "evaluate": eval_run}
    folders = {verb: uri for verb, uri in given.items() if uri}
    records = {verb: lineage.read_record(uri, verb) for verb, uri in folders.items()}
    train, evaluate = records["train"], records["evaluate"]
    subset = subset or (io.join(filter_run, lineage.SUBSET) if filter_run else "")
    size, digest = _checked_subset(subset)
    results = io.join(eval_run, RESULTS)
    check_chain(records, digest, io.sha256(results), track)
    benchmark = benchmark_of(
        evaluate.summary.get("benchmark"), evaluate.summary.get("benchmark_version")
    )
    tasks = benchmark.load()
    lineage.check_eval_data(evaluate, tasks)
    comparable = lineage.comparable_of(train, evaluate)
    lineage.check_scale(train, comparable)
    return Evidence(
        folders=folders,
        records=records,
        scale=lineage.scale_of(train),
        comparable=comparable,
        benchmark=benchmark,
        scores=aggregate(read_results(results), tasks),
        results=results,
        subset=subset,
        subset_size=size,
        checkpoint=checkpoint_of(Run(train_run), train.done),
        warnings=tuple(_warnings(records, comparable, subset)),
    )


def check_chain(
    records: dict[str, RunRecord], subset_sha256: str, results_sha256: str, track: str
) -> None:
    """Every link of the lineage that the given runs allow to check."""
    for record in records.values():
        lineage.check_config(record)
    if subset_sha256 and "filter" in records:
        lineage.check_filter(records["filter"], subset_sha256)
    if subset_sha256 and "reshard" in records:
        lineage.check_reshard(records["reshard"], subset_sha256)
    if "reshard" in records:
        lineage.check_train(records["train"], records["reshard"], only=track == "filtering")
    lineage.check_eval(records["evaluate"], records["train"], results_sha256, RESULTS)


def benchmark_of(name: Any, version: Any) -> Benchmark:
    """The benchmark of a name, if this program knows that version.

    Raises:
        BadInputError: Another version: its tasks or metrics may differ.
    """
    found = find_benchmark(str(name))
    if version != found.version:
        raise BadInputError(
            f"the results are of {name}@{version}, this program has {found.label}; "
            "use the version of gristmill that made them, or evaluate again"
        )
    return found


def _checked_subset(uri: str) -> tuple[int, str]:
    from gristmill.pools.subset import Subset

    if not uri:
        return 0, ""
    count = len(Subset.load(uri))
    if not count:
        raise BadInputError(f"the subset {io.redact(uri)} is empty")
    return count, io.sha256(uri)


def _warnings(records: dict[str, RunRecord], comparable: bool, subset: str) -> list[str]:
    found = []
    if not comparable:
        found.append("Non-comparable: training or evaluation departs from the scale's rules.")
    if subset and "filter" not in records:
        found.append("No filter run: nothing says how the subset was chosen.")
    if "reshard" not in records:
        found.append("No reshard run: nothing ties the training to the subset.")
    return found
