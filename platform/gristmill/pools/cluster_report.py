"""The page of a cluster run: the objective, the sizes, and what a few clusters look like."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core.arrays import from_column
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.filters._nearest import Nearest
from gristmill.pools import columns
from gristmill.pools.funnel import Peeked, peek_shards, shown
from gristmill.pools.pool import Pool, read_slice

SHOWN_CLUSTERS = 6
PICTURES = 8
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def write(
    run: Run,
    pool: Pool,
    column: str,
    history: Sequence[dict[str, Any]],
    sizes: npt.NDArray[np.int64],
    centroids: npt.NDArray[np.float32],
) -> None:
    """Write report.html."""
    page = Report(
        title=f"Clusters of {column}",
        subtitle=f"{len(sizes):,} clusters of {int(sizes.sum()):,} rows",
    )
    steps = [line["iteration"] for line in history]
    page.plot(
        "Objective by iteration",
        lambda axes: axes.plot(steps, [line["objective"] for line in history], marker="o"),
        note="mean inner product of a row and its centroid (it falls at first, since means are "
        "shorter than the rows that stood for them), or mean squared distance (l2)",
    )
    page.table(
        "Iterations",
        ("iteration", "objective", "empty clusters that were split"),
        [[line["iteration"], line["objective"], line["split"]] for line in history],
    )
    values = np.percentile(sizes, QUANTILES)
    page.table(
        "Rows a cluster",
        ("percentile", "rows"),
        [[q, float(v)] for q, v in zip(QUANTILES, values, strict=True)],
    )
    page.plot(
        "Clusters by size",
        lambda axes: axes.hist(sizes, bins=min(60, max(len(sizes), 1))),
        note="clusters with that many rows",
    )
    for number, pictures in _members(pool, column, centroids):
        title = f"Cluster {number}: {int(sizes[number]):,} rows"
        page.thumbnails(title, shown(pictures[:PICTURES]), note="from the first shard")
    page.save(run.path(REPORT))


def _members(
    pool: Pool, column: str, centroids: npt.NDArray[np.float32]
) -> list[tuple[int, list[Peeked]]]:
    """Pictures of the clusters that have most of the first shard's, by cluster number.

    Their rows are looked for in the first slice of metadata; elsewhere they go unseen.
    """
    pictures = {p.uid: p for p in peek_shards(pool)}
    found: dict[int, list[Peeked]] = {}
    nearest = Nearest(centroids)
    for piece in pool.slices()[:1] if pictures else []:
        for _, table in read_slice(piece, [columns.UID, column]):
            uids = table[columns.UID].to_pylist()
            mine = np.array([i for i, uid in enumerate(uids) if uid in pictures], np.int64)
            cluster = nearest.find(from_column(table[column], column)[mine])
            for row, number in zip(mine.tolist(), cluster.tolist(), strict=True):
                found.setdefault(number, []).append(pictures[uids[row]])
    found.pop(-1, None)
    most = sorted(found, key=lambda number: (-len(found[number]), number))
    return [(number, found[number]) for number in most[:SHOWN_CLUSTERS]]
