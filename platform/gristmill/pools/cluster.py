"""The cluster job: centroids of a pool's image features, for image_based and SemDeDup."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from gristmill.core import io
from gristmill.core.arrays import RowReader
from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan, human_bytes
from gristmill.core.run import Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice
from gristmill.filters import _language
from gristmill.filters._nearest import Engine
from gristmill.pools import cluster_report, columns, features
from gristmill.pools.cluster_workers import Metric, load, save
from gristmill.pools.kmeans import KMeans, Settings
from gristmill.pools.pool import Pool

CENTROIDS, SIZES = "centroids.npy", "sizes.npy"
ROWS_PER_GROUP = 1 << 18
FLOPS_PER_CPU = 5e10
FEW_ROWS = 39
"""Fewer rows a centroid than this give poor centroids; faiss warns at the same number."""


@dataclass(frozen=True, kw_only=True)
class ClusterJob(Job):
    """K-means centroids of a pool's features (DataComp, arXiv:2304.14108, section 3).

    DataComp clustered the rows that pass image_based's caption rule, by L2 distance, and assigned
    by inner product when it filtered; `--captions english --metric l2` does the same.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("pool",)
    pool: str
    """A pool with features beside its metadata (gristmill pool score adds them)."""
    column: str = "l14_img"
    """Which features; taken as they are, not scaled."""
    clusters: int = 100_000
    """Number of centroids."""
    iterations: int = 20
    """Passes of Lloyd's algorithm."""
    sample: float = 1.0
    """Share of the rows to cluster, in (0, 1], chosen by hashes of uid and seed."""
    captions: Literal["all", "english"] = "all"
    """Cluster all rows, or those whose caption passes image_based's rule, as DataComp's script."""
    metric: Metric = "inner_product"
    """A row joins the centroid of largest inner product, or of least distance (l2)."""
    seed: int = 0
    """Chooses the sample and the first centroids."""
    engine: Engine = "numpy"
    """What multiplies. Both give the same centroids; faiss is an extra and may be faster."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 1 or self.iterations < 1:
            raise BadInputError(
                f"clusters ({self.clusters}) and iterations ({self.iterations}) must be at least 1"
            )
        if not 0 < self.sample <= 1:
            raise BadInputError(f"sample must lie in (0, 1], not {self.sample}")
        if not 0 <= self.seed < 1 << 63:
            raise BadInputError(f"seed must be a whole number from 0 to 2**63, not {self.seed}")

    @property
    def wanted(self) -> list[str]:
        """Columns to read."""
        text = [columns.TEXT] if self.captions == "english" else []
        return [columns.UID, self.column, *text]

    def plan(self) -> Plan:
        """Rows, passes, operations and memory."""
        pool = Pool(self.pool)
        pool.require(self.wanted)
        rows = int(pool.num_rows * self.sample)
        size = self._size(pool)
        flops = 2.0 * rows * self.clusters * size * (self.iterations + 1)
        memory = self.clusters * size * (8 + 4 + (4 if self.engine == "faiss" else 0))
        warnings = [f"a worker holds centroids and sums of {human_bytes(memory)}"]
        if rows < FEW_ROWS * self.clusters:
            warnings.append(
                f"{rows:,} rows for {self.clusters:,} clusters are fewer than {FEW_ROWS} each; "
                "take fewer clusters or a larger sample"
            )
        return Plan(
            title=f"cluster {rows:,} of {pool.num_rows:,} rows of {io.redact(self.pool)}",
            reads=[(f"{self.column} of {len(pool.footers)} files", pool.num_rows * size * 2)],
            writes=[(CENTROIDS, self.clusters * size * 4)],
            work=[
                ("passes", f"{self.iterations + 2}, one over the pool's features each"),
                ("FLOPs", f"{flops:.2e}"),
            ],
            cpu_hours=flops / FLOPS_PER_CPU / 3600,
            basis=f"{FLOPS_PER_CPU:.0e} float32 operations a second a core",
            warnings=warnings,
        )

    def _size(self, pool: Pool) -> int:
        """Numbers in a row of features."""
        uri = pool.metadata_files[0]
        if self.column not in features.missing([self.column], pool.footers[0].names):
            raise BadInputError(f"pool cluster takes {self.column} from the .npz beside {uri}")
        with RowReader(features.beside(uri), self.column) as reader:
            return reader.require_features().header.shape[1]

    @property
    def _settings(self) -> Settings:
        return Settings(
            column=self.column,
            clusters=self.clusters,
            iterations=self.iterations,
            sample=self.sample,
            english=self.captions == "english",
            metric=self.metric,
            seed=self.seed,
            engine=self.engine,
        )

    def execute(self, run: Run) -> None:
        """Choose rows, iterate, count, report."""
        if self.engine == "faiss":
            _require_faiss()
        pool = Pool(self.pool)
        pool.require(self.wanted)
        pin_input(run, "pool", pool.identity())
        pin_input(run, "features", pool.features_identity([self.column]))
        if self.captions == "english":
            pin_input(run, "language_model", _language.identity())
        run.keep_metrics(lambda line: "iteration" not in line)
        with session(self.execution):
            groups = _groups(pool, self.clusters)
            means = KMeans(self._settings, run, groups, self.execution)
            sizes = means.fit()
        io.write_bytes(run.path(CENTROIDS), io.read_bytes(means.centroids))
        save(run.path(SIZES), sizes)
        for name in (CENTROIDS, SIZES):
            run.add_output(name)
        run.set_summary(
            rows=means.counts["rows"],
            clustered=means.counts["chosen"],
            unusable=means.counts["unusable"],
            clusters=self.clusters,
            empty_clusters=int((sizes == 0).sum()),
            objective=means.history[-1]["objective"],
        )
        cluster_report.write(run, pool, self.column, means.history, sizes, load(means.centroids))


def _require_faiss() -> None:
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("faiss", "faiss") from error


def _groups(pool: Pool, clusters: int) -> list[Slice]:
    """Neighbouring slices joined until a group's sums cost less than its features."""
    most = max(min(max(ROWS_PER_GROUP, 4 * clusters), -(-pool.num_rows // 16)), 1)
    groups: list[Slice] = []
    held: list[Slice] = []
    pieces = pool.slices(most)
    for i, piece in enumerate(pieces):
        held.append(piece)
        rows = sum(p.weight for p in held)
        if i + 1 == len(pieces) or rows + pieces[i + 1].weight > most:
            payload = {"pieces": [p.payload for p in held]}
            groups.append(Slice(name=f"{len(groups):06d}", weight=rows, payload=payload))
            held = []
    return groups
