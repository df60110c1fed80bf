"""Rank 0's records become the run's metrics, a progress line, and TensorBoard's curves if asked."""

import itertools
import logging
from collections.abc import Callable
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.core.progress import Progress
from gristmill.core.run import Run

logger = logging.getLogger(__name__)


class Recorder:
    """Takes records in order; a `start` or `rewind` takes back what will be done again."""

    def __init__(
        self, run: Run, title: str, *, steps: int, step_tokens: int, boards: "Boards | None"
    ) -> None:
        self._run, self._title, self._boards = run, title, boards
        self._board: Any = None
        self._steps, self._step_tokens = steps, step_tokens
        self._progress: Progress | None = None
        self._seen = 0

    def __call__(self, record: dict[str, Any]) -> None:
        """Handle one record."""
        kind = record["kind"]
        if kind in ("start", "rewind"):
            rewind(self._run, record)
            if self._boards is not None:
                self.close()
                self._board = self._boards(record["step"])
            self._seen = record["step"] * self._step_tokens
            total = self._steps * self._step_tokens
            self._progress = Progress(self._title, total, "tokens", done=self._seen)
        if kind == "saved":
            self._run.flush()  # what a resume keeps must be there if the driver dies
            self._run.event("checkpoint", step=record["step"])
            return
        if kind == "notice":
            self._run.event("notice", step=record["step"], why="a machine will be taken away")
            logger.warning("a machine will be taken away; saving after step %d", record["step"])
            return
        self._run.log(**record)
        if kind == "step" and self._progress is not None:
            self._progress.advance(record["tokens"] - self._seen)
            self._seen = record["tokens"]
        if self._board is not None:
            self._draw(record)

    def _draw(self, record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            for name in ("loss", "lr", "grad_norm", "tokens_per_second", "mfu"):
                if isinstance(record[name], int | float):
                    self._board.add_scalar(name, record[name], record["step"])
        if record["kind"] == "validation":
            for domain, loss in record["loss"].items():  # at the last step that came before it
                self._board.add_scalar(f"validation/{domain}", loss, record["step"] - 1)

    def close(self) -> None:
        """End TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def rewind(run: Run, record: dict[str, Any]) -> None:
    """Take out of the metrics what will be written again from a step, or a guard's event, on.

    A rewind keeps the guard's lines: they say why. A validation after n steps says step n.
    """
    step, events = record["step"], record["events"]

    def keep(line: dict[str, Any]) -> bool:
        if line["kind"] == "step":
            return int(line["step"]) < step
        if line["kind"] == "validation":
            return int(line["step"]) <= step
        return line["kind"] != "guard" or int(line["event"]) < events

    run.keep_metrics(keep)


Boards = Callable[[int], Any]
"""Makes a TensorBoard writer that goes on from a step: points from there on are taken back."""


def boards_of(run: Run) -> Boards:
    """TensorBoard writers in the run's folder.

    Raises:
        BadInputError: The run is on an object store.
        MissingExtraError: tensorboardX is not installed.
    """
    if not io.is_local(run.uri):
        raise BadInputError("--tensorboard needs a local --out; metrics.jsonl has the same figures")
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboardX", "tensorboard") from error
    folder, numbers = io.local_path(run.path("tensorboard")), itertools.count()
    # Files are named by the second, and a rewind may come within one.
    return lambda step: SummaryWriter(folder, purge_step=step, filename_suffix=f".{next(numbers)}")


def lines_of(metrics: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The lines of a kind."""
    return [line for line in metrics if line.get("kind") == kind]
