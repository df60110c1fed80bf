"""Rank 0's records become the run's metrics, a progress line, and the figures of the manifest."""

from typing import Any

from gristmill.core.progress import Progress
from gristmill.core.run import Run
from gristmill.training.steps import Steps


class Recorder:
    """Takes records in order; a `start` sets metrics back to where training resumes."""

    def __init__(self, run: Run, title: str, steps: Steps) -> None:
        self._run, self._title, self._steps = run, title, steps
        self._progress: Progress | None = None
        self._seen = 0

    def __call__(self, record: dict[str, Any]) -> None:
        """Handle one record."""
        if record["kind"] == "start":
            rewind(self._run, record["epoch"], record["step"])
            self._seen = record["step"] * self._steps.batch_size
            self._progress = Progress(self._title, self._steps.samples, "samples", done=self._seen)
            return
        if record["kind"] == "saved":
            self._saved(record)
            return
        self._run.log(**record)
        if record["kind"] == "step" and self._progress is not None:
            self._progress.advance(record["samples_seen"] - self._seen)
            self._seen = record["samples_seen"]
        if record["kind"] == "epoch":
            self._run.flush()  # what a resume keeps must be there if the driver dies

    def _saved(self, record: dict[str, Any]) -> None:
        if "step" not in record:
            self._run.event("checkpoint", epoch=record["epoch"] + 1)
        elif record["written"]:
            self._run.event("checkpoint", step=record["step"], why="a machine will be taken away")
        else:
            self._run.flush()


def rewind(run: Run, epoch: int, step: int) -> None:
    """Take out of the metrics what comes after `step` steps, in `epoch` (0-based) or later."""
    run.keep_metrics(
        lambda line: (
            line.get("epoch", -1) < epoch or (line["kind"] == "step" and line["step"] < step)
        )
    )


def steps_of(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of optimizer steps."""
    return [line for line in metrics if line.get("kind") == "step"]


def dropped_of(metrics: list[dict[str, Any]]) -> dict[str, int]:
    """Samples left out in the whole training, by reason."""
    total: dict[str, int] = {}
    for line in metrics:
        if line.get("kind") == "epoch":
            for reason, count in line["dropped"].items():
                total[reason] = total.get(reason, 0) + count
    return total
