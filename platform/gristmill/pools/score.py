"""The score job: CLIP features and similarity scores for every pair of a pool, as a new pool."""

from dataclasses import dataclass
from typing import ClassVar

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.execution.growth import most_gpus
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import map_slices
from gristmill.models.clip import ClipSpec, check_arch, checkpoint_uri
from gristmill.pools import derived
from gristmill.pools.score_worker import ScoreShard

PAIRS_PER_CPU_SECOND = 150.0
PAIRS_PER_GPU_SECOND = 1500.0


@dataclass(frozen=True, kw_only=True)
class ScoreJob(Job):
    """Add clip_{column}_similarity_score and features {column}_img, {column}_txt (DataComp)."""

    uri_fields: ClassVar[tuple[str, ...]] = ("pool", "weights")
    pool: str
    """A pool with shards."""
    arch: str
    """An open_clip architecture such as ViT-L-14, or gristmill-demo."""
    weights: str
    """Its weights: a file, or the folder of a `clip train` run."""
    column: str = "l14"
    """Names what is added: clip_{column}_similarity_score, {column}_img, {column}_txt. DataComp
    has b32 and l14."""
    batch_size: int = 64
    """Pairs through the model at once."""
    rebuild_metadata: bool = False
    """Where a shard has no metadata file of its own with its uids in order, take its rows from the
    samples' json; columns that these do not hold are lost. Without it such a shard is an error."""
    skip_corrupt: bool = False
    """Go on past shards that cannot be read, counting them."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.column.isidentifier() and self.column.islower()):
            raise BadInputError(f"column must be a short lower-case name, not {self.column!r}")
        if self.batch_size < 1:
            raise BadInputError(f"batch_size must be at least 1, not {self.batch_size}")

    def plan(self) -> Plan:
        """Rows, and forward passes."""
        pool = derived.pool_with_shards(self.pool)
        sizes = sum(map(io.size_bytes, pool.shard_files))
        return Plan(
            title=f"score {pool.num_rows:,} pairs of {io.redact(self.pool)} with {self.arch}",
            reads=[(f"{len(pool.shard_files)} shards", sizes)],
            writes=[("features and scores", pool.num_rows * 4 * 768)],
            work=[("pairs", f"{pool.num_rows:,}")],
            cpu_hours=pool.num_rows / PAIRS_PER_CPU_SECOND / 3600,
            gpu_hours=pool.num_rows / PAIRS_PER_GPU_SECOND / 3600,
            basis="one or the other; rough figures for small models, data loading included",
        )

    def execute(self, run: Run) -> None:
        """Score shard by shard; a model is loaded once a worker."""
        pool = derived.pool_with_shards(self.pool)
        check_arch(self.arch)
        weights = checkpoint_uri(self.weights)
        pin_input(run, "weights", {"sha256": io.sha256(weights), "arch": self.arch})
        pin_input(run, "pool", pool.identity())
        with session(self.execution):
            worker = ScoreShard(
                spec=ClipSpec(arch=self.arch, weights=weights),
                column=self.column,
                batch_size=self.batch_size,
                template=pool.metadata_files[0],
                rebuild=self.rebuild_metadata,
                out=run.uri,
                num_gpus=1.0 if most_gpus() else 0.0,
            )
            done = map_slices(
                "score",
                derived.shard_slices(pool),
                worker,
                ledger=run.scratch("scored"),
                execution=self.execution,
                unit="bytes",
                skip_corrupt=self.skip_corrupt,
            )
        found = derived.publish(run, pool, done)
        run.set_summary(**derived.summary(found), unscored=found.total("unscored"))
        _report(run, self.column, found)


def _report(run: Run, column: str, found: derived.Derived) -> None:
    rows, unscored = found.total("rows"), found.total("unscored")
    page = Report(
        title=f"Scores {column}", subtitle=f"{rows:,} pairs, {unscored:,} without a score"
    )
    found.warn(page)
    histograms = [outcome["histogram"] for outcome in found.whole]
    counts = [sum(column) for column in zip(*histograms, strict=True)]
    edges = [2 * i / len(counts) - 1 for i in range(len(counts) + 1)]
    page.plot("Similarity of image and caption", lambda axes: axes.stairs(counts, edges))
    page.save(run.path(REPORT))
