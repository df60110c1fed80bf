"""`eval_results.jsonl`: one line a task, DataComp's own format."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.evaluation.tasks.base import MAIN, Metrics, Task

RESULTS = "eval_results.jsonl"
MAX_BYTES = 64 << 20
LARGEST = sys.float_info.max


def result_line(task: Task, metrics: Metrics) -> dict[str, Any]:
    """A task's line: key, dataset, metrics."""
    return {"key": task.key, "dataset": task.name, "metrics": metrics}


def write_results(uri: str, lines: Sequence[dict[str, Any]]) -> None:
    """Write the lines in order; a number that is not finite is our own mistake."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    io.write_bytes(uri, text.encode())


def read_results(uri: str) -> list[dict[str, Any]]:
    """Read and check the lines.

    Raises:
        CorruptDataError: A line is not JSON, or not a result; names the line.
    """
    shown = io.redact(uri)
    if io.exists(uri) and io.size_bytes(uri) > MAX_BYTES:
        raise CorruptDataError(f"{shown} has more than {MAX_BYTES} bytes")
    lines = []
    for number, text in enumerate(io.read_bytes(uri).splitlines(), 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also a number too long
            raise CorruptDataError(f"{shown}, line {number} is not JSON: {error}") from error
        _check_line(line, f"{shown}, line {number}")
        lines.append(line)
    return lines


def _check_line(line: Any, where: str) -> None:
    if not isinstance(line, dict) or set(line) != {"key", "dataset", "metrics"}:
        raise CorruptDataError(f"{where} has not exactly the keys key, dataset and metrics")
    metrics = line["metrics"]
    if not isinstance(metrics, dict) or MAIN not in metrics or not isinstance(line["key"], str):
        raise CorruptDataError(f"{where} has no {MAIN}")
    for name, value in metrics.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Compared, not converted: a number of 400 digits has no float. NaN compares false.
        if value is not None and not (number and -LARGEST <= value <= LARGEST):
            raise CorruptDataError(
                f"{where}: {name} is {value!r}, neither a finite number nor null"
            )


def main_metrics(lines: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> dict[str, float | None]:
    """The main metric of each task of a benchmark, by key, in its order.

    Raises:
        BadInputError: A task is missing, listed twice or unknown, or its main metric is not the
            one that the task names, or lies outside 0..1, or comes from another number of samples.
    """
    keys = [line["key"] for line in lines]
    known = [task.key for task in tasks]
    for key in keys:
        if keys.count(key) > 1:
            raise BadInputError(f"task {key} has {keys.count(key)} results; it needs one")
        if key not in known:
            raise BadInputError(f"task {key} is not in the benchmark ({', '.join(known)})")
    missing = [key for key in known if key not in keys]
    if missing:
        raise BadInputError(
            f"no result for {', '.join(missing)}: an average needs all {len(known)} tasks"
        )
    by_key = {line["key"]: line["metrics"] for line in lines}
    return {task.key: _main_metric(task, by_key[task.key]) for task in tasks}


def _main_metric(task: Task, metrics: Metrics) -> float | None:
    count = metrics.get("num_samples")
    if task.test_size and count != task.test_size:
        raise BadInputError(f"task {task.key}: num_samples is {count}, not {task.test_size}")
    value = metrics[MAIN]
    if not task.metric:
        return None
    if value is None or not 0 <= value <= 1:
        raise BadInputError(f"task {task.key}: {MAIN} is {value}, not a number from 0 to 1")
    if metrics.get(task.metric) != value:
        raise BadInputError(
            f"task {task.key}: {MAIN} {value} is not its {task.metric} {metrics.get(task.metric)}"
        )
    return value
