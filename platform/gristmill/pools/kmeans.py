"""K-means over groups of slices, each step resumable.

An iteration is two maps: groups are assigned and added up, then ranges of centroids are summed over
the groups. The sums are exact, so the centroids depend on rows, seed and settings alone.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.arrays import RowReader
from gristmill.core.errors import BadInputError
from gristmill.core.run import Run
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.filters._nearest import Engine
from gristmill.pools.cluster_workers import (
    KEY_WORDS,
    NORM_GRID,
    AddRanges,
    Assigner,
    AssignRows,
    ChooseRows,
    CountRows,
    Metric,
    load,
    save,
)

RANGE_BYTES = 64 << 20
SPLIT_BY = 1 / 1024
ENGLISH_SHARE = 0.25
"""Rows that the caption rule is reckoned to keep; too high a guess costs one more pass."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to cluster and how; ClusterJob documents each."""

    column: str
    clusters: int
    iterations: int
    sample: float
    english: bool
    metric: Metric
    seed: int
    engine: Engine


class KMeans:
    """Lloyd's algorithm over groups, each step resumable in a run's scratch folder."""

    def __init__(
        self, settings: Settings, run: Run, groups: Sequence[Slice], execution: Execution
    ) -> None:
        self._settings, self._run, self._execution = settings, run, execution
        self._groups = list(groups)
        self._sources: list[Slice] = []
        self.counts = {"rows": 0, "chosen": 0, "unusable": 0}
        self.history: list[dict[str, Any]] = []
        self.centroids = ""
        """Where the latest centroids are."""

    def fit(self) -> npt.NDArray[np.int64]:
        """Run to the end; returns how many clustered rows are nearest to each final centroid."""
        self._choose()
        for iteration in range(self._settings.iterations):
            state = self._run.scratch(f"iteration-{iteration:04d}.json")
            target = self._run.scratch(f"centroids-{iteration + 1:04d}.npy")
            if not io.exists(state):
                folder = self._run.scratch(f"pass-{iteration:04d}")
                io.write_json(state, self._iterate(folder, target))
                io.remove(folder)
                io.remove(self.centroids)
            self.centroids = target
            self.history.append({"iteration": iteration + 1, **io.read_json(state)})
            self._run.log(**self.history[-1])
        return self._count()

    def _choose(self) -> None:
        """Choose rows and first centroids, with more candidates if there were too few."""
        job = self._settings
        expected = sum(g.weight for g in self._groups) * job.sample
        expected *= ENGLISH_SHARE if job.english else 1
        # Enough but once in many thousand seeds: the count is binomial.
        share = (job.clusters + 6 * job.clusters**0.5 + 32) / max(expected, 1)
        self.centroids = self._run.scratch("centroids-0000.npy")
        for attempt in range(64):
            folder = self._run.scratch(f"chosen-{attempt}")
            self._chosen_groups(folder, share)
            if io.exists(self._run.scratch("iteration-0000.json")):
                return
            if self._first_centroids(folder):
                return
            if share >= 1:
                break
            share *= 4
        raise BadInputError(
            f"{self.counts['chosen']:,} of {self.counts['rows']:,} rows are to be clustered, and "
            f"they have too few different uids for {job.clusters:,} clusters; take fewer clusters "
            "or a larger sample"
        )

    def _chosen_groups(self, folder: str, share: float) -> None:
        job = self._settings
        aside = job.sample < 1 or job.english
        worker = ChooseRows(
            column=job.column,
            seed=job.seed,
            sample=job.sample,
            candidates=share,
            english=job.english,
            set_aside=aside,
            out=io.join(folder, "parts"),
        )
        done = self._map("choose rows", worker, io.join(folder, "done"), self._groups)
        self.counts = {name: sum(d[name] for d in done) for name in self.counts}
        self._sources = [
            Slice(
                name=g.name,
                weight=d["chosen"],
                payload={"aside": io.join(folder, "parts", f"{g.name}-rows.npy")}
                if aside
                else g.payload,
            )
            for g, d in zip(self._groups, done, strict=True)
            if d["chosen"]
        ]

    def _first_centroids(self, folder: str) -> bool:
        """The rows of the least hashes, one a uid; False if there are too few candidates."""
        parts = [io.join(folder, "parts", s.name) for s in self._sources]
        keys = [np.zeros((0, KEY_WORDS), np.uint64), *(load(f"{p}-keys.npy") for p in parts)]
        starts = np.cumsum([0, *(len(k) for k in keys[1:])])
        _, first = np.unique(np.concatenate(keys), axis=0, return_index=True)
        chosen = first[: self._settings.clusters]  # unique sorts by hash, then uid
        if len(chosen) < self._settings.clusters:
            return False
        centroids: npt.NDArray[np.float32] | None = None
        for part, low, high in zip(parts, starts[:-1], starts[1:], strict=True):
            mine = np.flatnonzero((chosen >= low) & (chosen < high))
            rows = load(f"{part}-candidates.npy")[chosen[mine] - low].astype(np.float32)
            if centroids is None:
                centroids = np.empty((len(chosen), rows.shape[1]), np.float32)
            centroids[mine] = rows
        assert centroids is not None
        save(self.centroids, centroids)
        return True

    def _iterate(self, folder: str, target: str) -> dict[str, Any]:
        """Assign, add up, write the next centroids; returns the figures of the pass."""
        job, parts = self._settings, io.join(folder, "parts")
        ledger = io.join(folder, "assigned")
        assigned = self._map(
            "assign rows", AssignRows(self._assigner(), job.column, parts), ledger, self._sources
        )
        ranges = _ranges(self.centroids)
        worker = AddRanges(
            [
                io.join(parts, s.name)
                for s, d in zip(self._sources, assigned, strict=True)
                if d["rows"]
            ],
            self.centroids,
            io.join(folder, "means"),
        )
        added = self._map("move centroids", worker, io.join(folder, "added"), ranges)
        means = [io.join(folder, "means", r.name) for r in ranges]
        counts = np.concatenate([load(f"{m}-counts.npy") for m in means])
        centroids = np.concatenate([load(f"{m}-means.npy") for m in means])
        split = split_largest(centroids, counts)
        save(target, centroids)
        return {"objective": _objective(job.metric, assigned, added), "split": split}

    def _assigner(self) -> Assigner:
        return Assigner(self.centroids, self._settings.metric, self._settings.engine)

    def _count(self) -> npt.NDArray[np.int64]:
        job, parts = self._settings, self._run.scratch("sizes")
        worker = CountRows(self._assigner(), job.column, parts)
        self._map("count rows", worker, self._run.scratch("counted"), self._sources)
        sizes = np.zeros(job.clusters, np.int64)
        for source in self._sources:
            sizes += load(io.join(parts, f"{source.name}-counts.npy"))
        return sizes

    def _map(
        self, title: str, worker: SliceWorker, ledger: str, pieces: Sequence[Slice]
    ) -> list[dict[str, Any]]:
        return map_slices(title, pieces, worker, ledger=ledger, execution=self._execution)


def _ranges(centroids: str) -> list[Slice]:
    """Ranges of centroids whose sums a worker can hold."""
    with RowReader(centroids) as reader:
        count, size = reader.header.shape
    step = max(RANGE_BYTES // (8 * size), 1)
    return [
        Slice(
            name=f"{first:09d}",
            weight=min(step, count - first),
            payload={"first": first, "stop": min(first + step, count)},
        )
        for first in range(0, count, step)
    ]


def _objective(
    metric: Metric, assigned: Sequence[dict[str, Any]], added: Sequence[dict[str, Any]]
) -> float:
    """Mean inner product of a row and its centroid, or mean squared distance (l2)."""
    rows = max(sum(d["rows"] for d in assigned), 1)
    products = sum(d["products"] for d in added)
    if metric == "inner_product":
        return products / rows
    norms = sum(d["norms"] for d in assigned) / NORM_GRID
    return (norms - 2 * products + sum(d["squares"] for d in added)) / rows


def split_largest(centroids: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> int:
    """Give each empty cluster half of the largest one, in place; returns how many were empty.

    The two get the centroid with its numbers raised and lowered by 1/1024 in turn, as faiss does;
    faiss draws the cluster to split at random, here it is the largest (of equal ones the first).
    """
    left = counts.copy()
    largest = [(-int(n), i) for i, n in enumerate(left) if n > 1]
    heapq.heapify(largest)
    shift = np.where(np.arange(centroids.shape[1]) % 2, -SPLIT_BY, SPLIT_BY).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    for place in empty:
        if not largest:
            break
        count, donor = heapq.heappop(largest)
        centroids[place] = centroids[donor] * (1 + shift)
        centroids[donor] = centroids[donor] * (1 - shift)
        half = -count // 2
        for number, index in ((half, int(place)), (-count - half, donor)):
            if number > 1:
                heapq.heappush(largest, (-number, index))
    return len(empty)
