"""The contract of an evaluation task: a metric with its data, in one file.

A task of a known kind is a dozen lines: derive from `ZeroShotClassification` or `Retrieval` and
state the fields. One with a metric of its own overrides `more_metrics` of its kind, or `evaluate`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.evaluation.evalset import is_set_file

if TYPE_CHECKING:
    from gristmill.models.clip import LoadedClip

Group = Literal["imagenet", "shifts", "vtab", "retrieval", "other"]
Metrics = dict[str, float | int | None]
MAIN, LOW, HIGH = "main_metric", "main_metric_low", "main_metric_high"


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What one task gives; plain JSON values throughout."""

    metrics: Metrics
    """By name, with `main_metric` and its 95 % interval; null where a metric has no meaning."""
    chance: float
    """Main metric of a guesser."""
    inputs: dict[str, str]
    """SHA-256 of every file that was read, by name inside the evaluation set."""
    details: dict[str, Any] = field(default_factory=dict)
    """For the report: recalls, confusion, sample predictions."""


class Task(ABC):
    """One evaluation task. Children set the fields as class attributes."""

    name: str
    """What people call it, such as `ImageNet 1k`; the `dataset` of its result line."""
    key: str
    """Its name in results and folders, such as `vtab/caltech101`."""
    test_size: int = 0
    """Samples in the set when that is fixed; 0 takes any number above none."""
    digest: str = ""
    """Expected content digest of the set (see `evalset.pinned`); empty takes any set."""
    chance: float = 0.0
    """Main metric of a guesser; 0 lets the task work it out from the set."""
    group: Group = "other"
    """Which average it belongs to, beside the overall one."""
    metric: str
    """Which of its metrics is the main one; empty for a task that is run but not scored."""

    def folder(self, data_root: str) -> str:
        """Its evaluation set: `wds_{key, with / as -}_test` under the root (DataComp's layout)."""
        return io.join(data_root, f"wds_{self.key.replace('/', '-')}_test")

    def check(self, data_root: str) -> None:
        """Refuse at once when the data is not there.

        Raises:
            BadInputError: The root is not given, or the task's folder is missing.
        """
        if not data_root:
            raise BadInputError(
                f"task {self.key} reads a data set; give --eval-data its root folder"
            )
        if not io.exists(io.join(self.folder(data_root), "test", "nshards.txt")):
            raise BadInputError(
                f"no evaluation set at {io.redact(self.folder(data_root))}: "
                "test/nshards.txt is missing"
            )

    @abstractmethod
    def evaluate(self, model: "LoadedClip", data_root: str, batch_size: int) -> TaskResult:
        """Score a model. The batch size must not change the result.

        Raises:
            BadInputError: The set is not what the task says it is.
            CorruptDataError: A file of the set cannot be read; the message names it.
        """

    def data_changed(self, data_root: str, inputs: Mapping[str, str]) -> bool:
        """Whether a file that an earlier evaluation read, by its `inputs`, has other bytes now."""
        if not data_root:
            return False
        files = {n: io.join(self.folder(data_root), n) for n in inputs if is_set_file(n)}
        return any(
            not io.exists(uri) or io.sha256(uri) != inputs[name] for name, uri in files.items()
        )

    def result(
        self,
        metrics: Mapping[str, float | int | None],
        *,
        interval: tuple[float, float],
        chance: float,
        inputs: dict[str, str],
        details: dict[str, Any],
    ) -> TaskResult:
        """Add the main metric and its interval to a task's metrics."""
        complete: Metrics = dict(metrics)
        main = metrics[self.metric] if self.metric else None
        complete[MAIN] = main
        if main is not None:
            complete[LOW], complete[HIGH] = interval
        return TaskResult(
            metrics=complete, chance=self.chance or chance, inputs=inputs, details=details
        )
