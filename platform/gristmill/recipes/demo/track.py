"""`gristmill demo`: both tracks on what the package brings along, each step a run of its own.

A noisy pool is made of real drawings, scored by a small CLIP trained on a disjoint clean split,
filtered three ways, resharded, trained on at equal samples seen, evaluated on held-out drawings,
and the best is packed and verified. Then the mixture track (mixture.py). Each step is a job like
any other, so a killed demo resumes.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.job import Job, run_job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.evaluation.evaluate import EvaluateJob
from gristmill.evaluation.submission import SubmitJob
from gristmill.evaluation.verify import VerifyJob
from gristmill.execution.session import Execution, session
from gristmill.pools.ingest import IngestJob, Tars
from gristmill.pools.inspection import InspectJob
from gristmill.pools.reshard import ReshardJob
from gristmill.pools.score import ScoreJob
from gristmill.pools.selection import SUBSET, FilterJob
from gristmill.recipes.demo import mixture, page
from gristmill.recipes.demo.settings import ARCH, DEMO_RANKS, FILTERS, SCORER, SHARD_SIZE
from gristmill.training.job import TrainClipJob
from gristmill.training.scales import SCALES

ROWS = 5000
SECONDS = {"clip": 330, "mix": 200}
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DemoJob(Job):
    """Filter, train, evaluate and submit on drawings; search a mixture on embedded texts."""

    out: str = "runs/demo"
    """Folder (local) that receives every step's run and report.html."""
    seed: int = 0
    """Of each participant's training."""
    pool_seed: int = 0
    """Of the pool's noise and of the scorer: another one makes another pool."""
    tracks: tuple[Literal["clip", "mix"], ...] = ("clip", "mix")
    """What to run: the CLIP track on drawings, the mixture search on texts."""
    rows: int = ROWS
    """Pairs in the noisy pool."""
    execution: Execution = field(default_factory=Execution)
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows < 100:
            raise BadInputError(f"rows must be at least 100, not {self.rows}")
        if not self.tracks or len(set(self.tracks)) < len(self.tracks):
            raise BadInputError("tracks names clip, mix or both, each once")

    def plan(self) -> Plan:
        """Steps and their size."""
        work = []
        if "clip" in self.tracks:
            seen = SCALES["demo"].train_num_samples
            work += [
                ("scorer", f"{SCORER.train_num_samples:,} samples seen"),
                ("models", f"{len(FILTERS)} of {seen:,} samples seen each"),
            ]
        if "mix" in self.tracks:
            work.append(("proxies", mixture.PLAN))
        return Plan(
            title=f"demo of the tracks {', '.join(self.tracks)} (a pool of {self.rows:,} pairs)",
            reads=[("the drawings and texts inside the installed packages", 0)],
            writes=[(f"{self.out}: pool, subsets, shards, models, reports", 400 << 20)],
            work=work,
            cpu_hours=2 * sum(SECONDS[track] for track in self.tracks) / 3600,
            basis="measured on two cores",
        )

    def execute(self, run: Run) -> None:
        """Every step in order, in one Ray session."""
        if not io.is_local(run.uri):
            raise BadInputError("the demo writes to a local folder; give --out one")
        said = []
        report = page.start(self.tracks)
        with session(self.execution):
            if "clip" in self.tracks:
                said.append(self._clip(run, report))
            if "mix" in self.tracks:
                found = mixture.search(run, seed=self.seed, execution=self.execution)
                mixture.write(run, report, found)
                run.set_summary(**mixture.summary(found))
                said.append(mixture.line(found))
        report.save(run.path(REPORT))
        print("\n\n".join(said))

    def _clip(self, run: Run, report: Report) -> str:
        """The CLIP track; its table for the terminal."""
        pool = self._scored_pool(run)
        results = {name: self._participant(run, pool, name) for name in FILTERS}
        best = max(results, key=lambda name: float(results[name]["average"]))
        self._submit(run, best)
        page.write(report, results, self._truth(run), best)
        run.set_summary(best=best, **{n: round(r["average"], 4) for n, r in results.items()})
        return page.table(results)

    def _raw(self, run: Run) -> Path:
        """Raw tars, clean split and evaluation sets: made once, then left alone."""
        from gristmill.demo.noise import write_clean_split, write_eval, write_raw_pool

        folder = Path(io.local_path(run.path("raw")))
        marker = run.path("raw", "made.json")
        if not io.exists(marker):
            logger.info("demo: making the noisy pool, the clean split and the evaluation sets")
            write_raw_pool(folder, seed=self.pool_seed, rows=self.rows)
            write_clean_split(folder / "clean", seed=self.pool_seed)
            write_eval(folder / "eval")
            io.write_json(marker, {"pool_seed": self.pool_seed, "rows": self.rows})
        return folder

    def _scored_pool(self, run: Run) -> str:
        """The pool with the scorer's similarity scores."""
        raw = self._raw(run)
        pool, scorer, scored = (run.path(name) for name in ("pool", "scorer", "scored"))
        step(IngestJob(source=Tars(source=str(raw / "raw")), out=pool))
        step(
            TrainClipJob(
                scale=SCORER,
                data=str(raw / "clean"),
                out=scorer,
                seed=self.pool_seed,
                num_checkpoints=2,
                loader_workers=1,
                allow_override=True,
                execution=Execution(workers=DEMO_RANKS),
            )
        )
        step(ScoreJob(pool=pool, arch=ARCH, weights=scorer, column="l14", out=scored))
        step(InspectJob(pool=scored, out=run.path("inspect")))
        return scored

    def _participant(self, run: Run, pool: str, name: str) -> dict[str, Any]:
        """Filter, reshard, train and evaluate; the evaluation's summary."""
        where = {s: run.path(name, s) for s in ("filter", "reshard", "train", "evaluate")}
        step(FilterJob(pool=pool, filter=FILTERS[name], out=where["filter"]))
        subset = io.join(where["filter"], SUBSET)
        step(ReshardJob(pool=pool, subset=subset, shard_size=SHARD_SIZE, out=where["reshard"]))
        step(
            TrainClipJob(
                scale=SCALES["demo"],
                data=where["reshard"],
                out=where["train"],
                seed=self.seed,
                num_checkpoints=2,
                loader_workers=1,
                execution=Execution(workers=DEMO_RANKS),
            )
        )
        data = run.path("raw", "eval")
        done = step(
            EvaluateJob(run=where["train"], benchmark="demo", eval_data=data, out=where["evaluate"])
        )
        kept = Run(where["filter"]).done() or {}
        return {**done["summary"], "kept": kept["summary"]["kept"]}

    def _submit(self, run: Run, name: str) -> None:
        """Pack the best and check the bundle as anyone could."""
        bundle = run.path("bundle")
        step(
            SubmitJob(
                method_name=name,
                author="Gristmill demo",
                email="demo@example.org",
                track="filtering",
                writeup=f"The demo's {name} filter.",
                filter_run=run.path(name, "filter"),
                reshard_run=run.path(name, "reshard"),
                train_run=run.path(name, "train"),
                eval_run=run.path(name, "evaluate"),
                out=bundle,
            )
        )
        step(VerifyJob(bundle=bundle, pool=run.path("scored"), out=run.path("verified")))

    def _truth(self, run: Run) -> dict[str, dict[str, int]]:
        """What each filter kept: filter -> kind of row -> rows. No filter sees the kinds."""
        return page.kept_by_kind(
            run.path("raw", "truth", "truth.parquet"),
            {name: run.path(name, "filter", SUBSET) for name in FILTERS},
        )


def step(job: Job) -> dict[str, Any]:
    """Run one job, or find it done; its manifest."""
    return run_job(job).done() or {}
