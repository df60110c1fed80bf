"""A benchmark: a frozen, versioned list of tasks. Changing a list means a new version."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gristmill.core import plugins
from gristmill.core.errors import BadInputError

if TYPE_CHECKING:
    from gristmill.evaluation.tasks.base import Task

TASKS = "gristmill.evaluation.tasks"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A named list of tasks, whose unweighted mean is the score."""

    name: str
    version: int
    """Grows when the list, a task's data or a metric's definition changes."""
    tasks: tuple[str, ...]
    """File stems under `evaluation/tasks`, in the order of the results."""

    @property
    def label(self) -> str:
        """Name and version, such as `demo@1`."""
        return f"{self.name}@{self.version}"

    def load(self) -> "list[Task]":
        """The tasks, in order.

        Raises:
            BadInputError: A task is unknown, or two have the same key.
        """
        tasks = [load_task(name) for name in self.tasks]
        check_keys([task.key for task in tasks], self.label)
        return tasks


BENCHMARKS: dict[str, Benchmark] = {
    "demo": Benchmark(name="demo", version=1, tasks=("demo_drawings", "demo_retrieval")),
    "digits": Benchmark(name="digits", version=1, tasks=("digits",)),
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        BadInputError: Unknown; the message lists the known and the nearest.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise BadInputError(f"no benchmark named {name!r}{hint}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def load_task(name: str) -> "Task":
    """A task by its file stem, or `python:module:Class`."""
    from gristmill.evaluation.tasks.base import Task

    task: Task = plugins.find(TASKS, name, Task)()
    return task


def check_keys(keys: Sequence[str], label: str) -> None:
    """Refuse a list in which a key stands twice."""
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise BadInputError(f"benchmark {label} lists {', '.join(twice)} more than once")
