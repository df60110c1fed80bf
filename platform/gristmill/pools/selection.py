"""The filter job: a pool and a filter in, `subset.npy` and its funnel out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.errors import CorruptDataError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.execution.parts import ranges_for
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import map_slices
from gristmill.filters.base import Filter
from gristmill.pools import columns, funnel
from gristmill.pools.fitting import WholePool, check_storable, inputs_of
from gristmill.pools.judging import columns_of, parts_of
from gristmill.pools.merge import merge_parts
from gristmill.pools.pool import Pool
from gristmill.pools.selection_worker import JudgeSlice

SUBSET = "subset.npy"
STATS = "stats.json"
ROWS_PER_SECOND = {"language": 100_000.0, "other": 2_000_000.0}
"""Rough rates a core for `--plan`; docs/results/ has measured ones."""


@dataclass(frozen=True, kw_only=True)
class FilterJob(Job):
    """Choose uids of a pool by a filter (DataComp, arXiv:2304.14108, section 3)."""

    uri_fields: ClassVar[tuple[str, ...]] = ("pool",)
    pool: str
    """The pool: a folder (any fsspec URI) with metadata/*.parquet and perhaps shards/*.tar."""
    filter: Filter
    """The filter."""
    skip_corrupt: bool = False
    """Go on past parquet row groups that cannot be read, counting what was lost."""
    execution: Execution = Execution()
    """Where it runs."""

    def plan(self) -> Plan:
        """Rows and the columns' bytes, from the parquet footers."""
        pool = Pool(self.pool)
        pool.require(self.wanted)
        rate = ROWS_PER_SECOND["language" if columns.TEXT in self.wanted else "other"]
        return Plan(
            title=f"filter {pool.num_rows:,} rows of {io.redact(self.pool)}",
            reads=[(f"columns {', '.join(self.wanted)} of {len(pool.footers)} files", 0)],
            writes=[(f"{SUBSET}, at most", pool.num_rows * 16 + 128)],
            work=[("slices", str(len(pool.slices()))), ("rows", f"{pool.num_rows:,}")],
            cpu_hours=pool.num_rows / rate / 3600,
            basis=f"about {rate:,.0f} rows/s a core",
        )

    @property
    def wanted(self) -> list[str]:
        """Columns to read."""
        return list(dict.fromkeys((columns.UID, *columns_of(parts_of(self.filter)))))

    def execute(self, run: Run) -> None:
        """Fit, judge slice by slice, merge, report."""
        pool = Pool(self.pool)
        pool.require(self.wanted)
        # A corrupt row group then takes only itself along.
        pieces = pool.slices(1) if self.skip_corrupt else pool.slices()
        pin_input(run, "pool", pool.identity())
        if beside := pool.features_identity(self.wanted):
            pin_input(run, "features", beside)
        for name, identity in inputs_of(self.filter).items():
            pin_input(run, name, identity)
        peek = funnel.peek_shards(pool)
        ranges = ranges_for(pool.num_rows)
        with session(self.execution):
            facts = WholePool(pieces, run.scratch("facts"), self.execution, self.skip_corrupt)
            fitted = self.filter.fit(facts)
            check_storable(fitted)
            chain = facts.chain(parts_of(fitted), also=(columns.UID,))
            parts = run.scratch("parts")
            done = map_slices(
                "filter",
                pieces,
                JudgeSlice(chain, parts, ranges, sorted(p.uid for p in peek)),
                ledger=run.scratch("judged"),
                execution=self.execution,
                skip_corrupt=self.skip_corrupt,
            )
            if pieces and all("corrupt" in d for d in done):
                raise CorruptDataError(f"no row group could be read: {done[0]['corrupt']}")
            whole = [(p, d) for p, d in zip(pieces, done, strict=True) if "corrupt" not in d]
            listed = sum(d["listed"] for _, d in whole)
            sources = [io.join(parts, p.name) for p, _ in whole]
            merge_parts(run, sources, listed, ranges, SUBSET, self.execution)
        self._publish(run, fitted, done, peek, facts.pairs)

    def _publish(
        self,
        run: Run,
        fitted: Filter,
        done: Sequence[dict[str, Any]],
        peek: "Sequence[funnel.Peeked]",
        pairs: dict[str, list[list[str]]],
    ) -> None:
        stats = funnel.total(fitted.reasons, done)
        stats["filter"] = to_dict(fitted)
        io.write_json(run.path(STATS), stats)
        run.add_output(STATS)
        funnel.report(run, self.filter, stats, done, peek, pairs)
        run.set_summary(
            rows=stats["rows"],
            kept=stats["kept"],
            listed=stats["listed"],
            dropped=stats["rows"] - stats["kept"],
            lost_to_corruption=stats["lost"],
        )
