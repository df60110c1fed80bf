"""Image and text retrieval, DataComp's and CLIP_benchmark's definitions. N images, T captions.

Image R@k: share of captions whose picture is among the k pictures nearest to them. Text R@k: share
of pictures with one of their captions among the k nearest captions. Equal scores are taken in
order. Scores are made a block of rows at a time, never N x T at once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.evaluation.evalset import EvalSource, open_evalset, pinned
from gristmill.evaluation.features import image_batches, text_features
from gristmill.evaluation.gallery import Gallery, place
from gristmill.evaluation.intervals import ratio_interval
from gristmill.evaluation.tasks.base import Group, Metrics, Task, TaskResult

if TYPE_CHECKING:
    from gristmill.evaluation.evalset import EvalSample
    from gristmill.models.clip import LoadedClip

CUTS = (1, 5, 10)
CANDIDATES = 64
"""Samples among which the report finds right and wrong ones."""
BLOCK_SCORES = 1 << 24
"""Scores in memory at once: 64 MiB."""


@dataclass
class Ranks:
    """Where the right answer came, 0 for first."""

    image: Any
    """Rank of its picture, a caption, int64 [T]."""
    text: Any
    """Rank of the best of its captions, a picture, int64 [N]."""
    best_text: Any
    """The nearest caption, a picture, int64 [N]."""


class Retrieval(Task):
    """A task whose set pairs pictures with captions."""

    group: Group = "retrieval"
    metric: str = "mean_recall@1"
    cut: int = 1
    """The main metric's k: a find among the first k counts. DataComp's is 1."""

    def evaluate(self, model: "LoadedClip", data_root: str, batch_size: int) -> TaskResult:
        """Score a model: image and text R@1, 5, 10, and the mean of the two at each."""
        source = pinned(self.open(data_root), self.digest)
        shown, captions, owner, images = _embed_images(model, source, batch_size)
        ranks = rank(images, text_features(model, captions, batch_size), owner)
        per_image = np.bincount(owner, minlength=len(images))
        hits = np.bincount(owner, weights=ranks.image < self.cut, minlength=len(images))
        return self.result(
            recalls(ranks) | {"num_samples": len(images), "num_captions": len(captions)},
            interval=ratio_interval(
                np.stack([ranks.text < self.cut, hits], axis=1),
                np.stack([np.ones(len(images)), per_image], axis=1),
            ),
            chance=_chance(per_image, self.cut),
            inputs=source.digests,
            details=_describe(shown, captions, owner, ranks),
        )

    def open(self, data_root: str) -> EvalSource:
        """The samples; a task that brings its own overrides this."""
        return open_evalset(self.folder(data_root), test_size=self.test_size, classes=False)


def recalls(ranks: Ranks) -> Metrics:
    """Recalls at 1, 5 and 10, each way and the mean of the two."""
    found: Metrics = {}
    for k in CUTS:
        found[f"image_retrieval_recall@{k}"] = float((ranks.image < k).mean())
        found[f"text_retrieval_recall@{k}"] = float((ranks.text < k).mean())
        found[f"mean_recall@{k}"] = float(((ranks.image < k).mean() + (ranks.text < k).mean()) / 2)
    return found


def _chance(per_image: Any, cut: int) -> float:
    """The mean recall of a random order: a picture's first find among its captions, and back."""
    total, count = int(per_image.sum()), len(per_image)
    miss = np.ones(count)
    for i in range(min(cut, total)):  # the i-th pick, too, is none of the picture's captions
        miss *= np.clip((total - i - per_image) / (total - i), 0, 1)
    return (float((1 - miss).mean()) + min(cut / count, 1.0)) / 2


def rank(images: Any, texts: Any, owner: Any) -> Ranks:
    """Ranks of the right answers.

    Args:
        images: Unit vectors, float32 [N, D].
        texts: Unit vectors, float32 [T, D].
        owner: The picture of each caption, ascending, int64 [T].
    """
    image_ranks = [
        _rank_of(scores, owner[start : start + len(scores)])
        for start, scores in _blocks(texts, images)
    ]
    first: Any = np.searchsorted(owner, np.arange(len(images)))
    counts = np.bincount(owner, minlength=len(images))
    text_ranks, nearest = [], []
    for start, scores in _blocks(images, texts):
        right = [
            first[i] + np.argmax(scores[row, first[i] : first[i] + counts[i]])
            for row, i in enumerate(range(start, start + len(scores)))
        ]
        text_ranks.append(_rank_of(scores, np.array(right)))
        nearest.append(scores.argmax(axis=1))
    return Ranks(np.concatenate(image_ranks), np.concatenate(text_ranks), np.concatenate(nearest))


def _blocks(rows: Any, columns: Any) -> Any:
    step = max(1, BLOCK_SCORES // len(columns))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step] @ columns.T


def _rank_of(scores: Any, right: Any) -> Any:
    """Columns ahead of the right one: higher scores, and equal ones that stand before it."""
    value = np.take_along_axis(scores, right[:, None], axis=1)
    before = np.arange(scores.shape[1])[None, :] < right[:, None]
    return (scores > value).sum(axis=1) + ((scores == value) & before).sum(axis=1)


def _embed_images(
    model: "LoadedClip", source: EvalSource, batch_size: int
) -> "tuple[dict[int, EvalSample], list[str], Any, Any]":
    """Some samples to show by number, all captions, each caption's picture, and image features."""
    shown: dict[int, EvalSample] = {}
    captions: list[str] = []
    owner: list[int] = []
    features = []
    count = 0
    for batch, values in image_batches(model, source.samples, batch_size):
        for sample in batch:
            own = sample.captions()
            owner += [count] * len(own)
            captions += own
            shown[count] = sample
            count += 1
        if len(shown) > CANDIDATES:  # encoded pictures of a whole set can be gigabytes
            best = sorted(shown, key=lambda i: place(shown[i].key))[:CANDIDATES]
            shown = {i: shown[i] for i in best}
        features.append(values)
    return shown, captions, np.array(owner), np.concatenate(features)


def _describe(
    shown: "dict[int, EvalSample]", captions: list[str], owner: Any, ranks: Ranks
) -> dict[str, Any]:
    gallery = Gallery()
    for i, sample in shown.items():
        nearest = captions[ranks.best_text[i]]
        right = bool(owner[ranks.best_text[i]] == i)
        text = nearest if right else f"{nearest}; its own: {sample.captions()[0]}"
        gallery.offer(sample, right=right, text=text)
    return {"kind": "retrieval", "pictures": gallery.pictures()}
