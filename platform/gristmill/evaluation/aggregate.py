"""Averages over a benchmark: the unweighted mean over all its scored tasks, and one a group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.evaluation.results import main_metrics
from gristmill.evaluation.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """The scores of one evaluation."""

    average: float
    """Unweighted mean of the main metrics."""
    groups: dict[str, float]
    """Unweighted mean a group; `other` has none."""
    tasks: dict[str, float | None]
    """Main metric by task key."""


def aggregate(lines: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> Aggregate:
    """Average the results of every task of a benchmark (DataComp).

    Raises:
        BadInputError: A task is missing, twice or unknown: a part of a benchmark has no average.
    """
    scores = main_metrics(lines, tasks)
    scored = {key: value for key, value in scores.items() if value is not None}
    groups: dict[str, list[float]] = {}
    for task in tasks:
        if task.key in scored and task.group != "other":
            groups.setdefault(task.group, []).append(scored[task.key])
    return Aggregate(
        average=_mean(list(scored.values())),
        groups={name: _mean(values) for name, values in sorted(groups.items())},
        tasks=scores,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
