"""Zero-shot classification with prompt ensembling, DataComp's and CLIP_benchmark's definitions.

A class is the mean of its normalised prompt features, normalised again (Radford et al. 2021,
arXiv:2103.00020, section 3.1.4). Equal scores go to the class that stands first.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.evaluation.evalset import PLACEHOLDER, EvalSource, open_evalset, pinned
from gristmill.evaluation.features import image_batches, text_batches
from gristmill.evaluation.gallery import Gallery
from gristmill.evaluation.intervals import mean_recall_interval, wilson
from gristmill.evaluation.tasks.base import Metrics, Task, TaskResult

if TYPE_CHECKING:
    from gristmill.evaluation.evalset import EvalSample
    from gristmill.models.clip import LoadedClip

TOP = 5
CONFUSION_CLASSES = 64
"""With more classes the report shows the most confused pairs instead of the matrix."""
CONFUSED_PAIRS = 20


@dataclass
class Predictions:
    """What the model said, sample by sample."""

    labels: Any
    """Classes, int64 [N]."""
    top: Any
    """Best classes, best first, int64 [N, min(5, C)]."""
    num_classes: int
    records: list[dict[str, bytes]]
    """The sample's other members (not picture or label): regions, slides, incomes."""

    @property
    def right(self) -> Any:
        """Whether the best class is the label, bool [N]."""
        return self.top[:, 0] == self.labels

    @property
    def support(self) -> Any:
        """Samples a class, int64 [C]."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @property
    def correct(self) -> Any:
        """Right predictions a class, int64 [C]."""
        return np.bincount(self.labels[self.right], minlength=self.num_classes)

    def accuracy(self, k: int) -> float | None:
        """Share of samples whose label is among the best k; None with fewer classes than k."""
        if k > self.num_classes:
            return None
        return float((self.top[:, :k] == self.labels[:, None]).any(axis=1).mean())

    def mean_per_class_recall(self) -> float:
        """Unweighted mean of the recall of every class that has samples (balanced accuracy)."""
        seen = self.support > 0
        return float((self.correct[seen] / self.support[seen]).mean())


class ZeroShotClassification(Task):
    """A task whose set has labels, class names and prompt templates."""

    metric: str = "acc1"

    def evaluate(self, model: "LoadedClip", data_root: str, batch_size: int) -> TaskResult:
        """Score a model: acc1, acc5 (null under 5 classes), mean_per_class_recall."""
        source = pinned(self.open(data_root), self.digest)
        gallery = Gallery()
        seen = predict(model, source, batch_size, gallery)
        metrics: Metrics = {
            "acc1": seen.accuracy(1),
            "acc5": seen.accuracy(TOP),
            "mean_per_class_recall": seen.mean_per_class_recall(),
            "num_samples": len(seen.labels),
            **self.more_metrics(seen),
        }
        return self.result(
            metrics,
            interval=self.interval(seen),
            chance=1 / seen.num_classes,
            inputs=source.digests,
            details=describe(seen, source.classnames, gallery),
        )

    def open(self, data_root: str) -> EvalSource:
        """The samples; a task that brings its own overrides this."""
        return open_evalset(self.folder(data_root), test_size=self.test_size, classes=True)

    def more_metrics(self, seen: Predictions) -> Metrics:  # noqa: ARG002 - for children
        """Metrics of this task alone, such as the accuracy of the worst region."""
        return {}

    def interval(self, seen: Predictions) -> tuple[float, float]:
        """95 % interval of the main metric; a task with its own main metric brings its own."""
        if self.metric == "mean_per_class_recall":
            return mean_recall_interval(seen.correct, seen.support)
        return wilson(int(seen.right.sum()), len(seen.labels))


def predict(
    model: "LoadedClip", source: EvalSource, batch_size: int, gallery: Gallery
) -> Predictions:
    """Classify every sample of a source."""
    names = source.classnames
    classifier = zero_shot_classifier(model, names, source.templates, batch_size)
    labels: list[int] = []
    tops, records = [], []
    for batch, features in image_batches(model, source.samples, batch_size):
        top = best_classes(features @ classifier.T)
        truth = [sample.label(len(names)) for sample in batch]
        for sample, label, best in zip(batch, truth, top[:, 0], strict=True):
            right = label == best
            text = names[label] if right else f"{names[best]}, but it is {names[label]}"
            gallery.offer(sample, right=right, text=text)
            records.append(_other_members(sample))
        labels += truth
        tops.append(top)
    return Predictions(np.array(labels), np.concatenate(tops), len(names), records)


def _other_members(sample: "EvalSample") -> dict[str, bytes]:
    return {
        e: data
        for e, data in sample.members.items()
        if data is not sample.image_bytes and e != "cls"
    }


def zero_shot_classifier(
    model: "LoadedClip", classnames: list[str], templates: list[str], batch_size: int
) -> Any:
    """One unit vector a class, float32 [C, D]."""
    prompts = [t.replace(PLACEHOLDER, name) for name in classnames for t in templates]
    owner: Any = np.repeat(np.arange(len(classnames)), len(templates))
    sums, start = None, 0
    for features in text_batches(model, prompts, batch_size):
        if sums is None:
            sums = np.zeros((len(classnames), features.shape[1]))
        np.add.at(sums, owner[start : start + len(features)], features)
        start += len(features)
    assert sums is not None, "an evaluation set has at least one class and template"
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)


def best_classes(scores: Any) -> Any:
    """Classes of the five best scores a row, equal ones in class order, int64 [B, min(5, C)]."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]


def describe(seen: Predictions, classnames: list[str], gallery: Gallery) -> dict[str, Any]:
    """What the report shows of a classification."""
    support, correct = seen.support, seen.correct
    best = seen.top[:, 0]
    details: dict[str, Any] = {
        "kind": "classification",
        "classnames": classnames,
        "support": support.tolist(),
        "correct": correct.tolist(),
        "pictures": gallery.pictures(),
    }
    pair, times = np.unique(
        np.stack([seen.labels, best])[:, ~seen.right], axis=1, return_counts=True
    )
    order = np.argsort(-times, kind="stable")[:CONFUSED_PAIRS]
    details["confused"] = [[int(pair[0, i]), int(pair[1, i]), int(times[i])] for i in order]
    if seen.num_classes <= CONFUSION_CLASSES:
        matrix: Any = np.zeros((seen.num_classes, seen.num_classes), int)
        np.add.at(matrix, (seen.labels, best), 1)
        details["confusion"] = matrix.tolist()
    return details
