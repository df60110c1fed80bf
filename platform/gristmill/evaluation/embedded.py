"""The demo's evaluation sets, made from the drawings in the package when no folder holds them."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.evaluation.evalset import EvalSample, EvalSource, open_evalset

if TYPE_CHECKING:
    from gristmill.evaluation.tasks.base import Task


def open_embedded(task: "Task", *, classes: bool) -> EvalSource:
    """A demo task's set, written to a temporary folder that goes with the last sample.

    Args:
        task: One whose set `gristmill.demo.noise.write_eval` writes.
        classes: Whether it has class names and templates.
    """
    from gristmill.demo.noise import write_eval

    folder = tempfile.TemporaryDirectory(prefix="gristmill-eval-")
    write_eval(Path(folder.name))
    source = open_evalset(task.folder(folder.name), test_size=task.test_size, classes=classes)
    source.samples = _holding(folder, source.samples)
    return source


def _holding(
    folder: "tempfile.TemporaryDirectory[str]", samples: Iterable[EvalSample]
) -> Iterator[EvalSample]:
    with folder:
        yield from samples
