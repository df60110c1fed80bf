"""The filter job: a pool and a filter in, `subset.npy` and its funnel out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.filters.base import Filter
from gristmill.pools import columns, funnel
from gristmill.pools.facts import ColumnFacts
from gristmill.pools.merge import merge_parts, save_part
from gristmill.pools.pool import Pool, read_slice
from gristmill.pools.uid import UidArray, hex_of_uid, make_uids, parse_uids

SUBSET = "subset.npy"
STATS = "stats.json"
SAMPLES_PER_REASON = 12
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
        return list(dict.fromkeys((columns.UID, *self.filter.columns)))

    def execute(self, run: Run) -> None:
        """Fit, judge slice by slice, merge, report."""
        pool = Pool(self.pool)
        pool.require(self.wanted)
        # A corrupt row group then takes only itself along.
        pieces = pool.slices(1) if self.skip_corrupt else pool.slices()
        funnel.pin_input(run, "pool", pool.identity())
        for name, identity in self.filter.inputs().items():
            funnel.pin_input(run, name, identity)
        peek = funnel.peek_shards(pool)
        with session(self.execution):
            facts = ColumnFacts(pieces, run.scratch("facts"), self.execution, self.skip_corrupt)
            fitted = self.filter.fit(facts)
            worker = _Judge(fitted, self.wanted, run.scratch("parts"), sorted(p.uid for p in peek))
            done = map_slices(
                "filter",
                pieces,
                worker,
                ledger=run.scratch("judged"),
                execution=self.execution,
                skip_corrupt=self.skip_corrupt,
            )
            if pieces and all("corrupt" in d for d in done):
                raise CorruptDataError(f"no row group could be read: {done[0]['corrupt']}")
            whole = [(p, d) for p, d in zip(pieces, done, strict=True) if "corrupt" not in d]
            kept = sum(d["kept"] for _, d in whole)
            parts = [io.join(run.scratch("parts"), p.name) for p, _ in whole]
            merge_parts(run, parts, kept, SUBSET, self.execution)
        self._publish(run, fitted, done, peek)

    def _publish(
        self,
        run: Run,
        fitted: Filter,
        done: Sequence[dict[str, Any]],
        peek: "Sequence[funnel.Peeked]",
    ) -> None:
        stats = funnel.total(fitted.reasons, done)
        stats["filter"] = to_dict(fitted)
        io.write_json(run.path(STATS), stats)
        run.add_output(STATS)
        funnel.report(run, self.filter, stats, done, peek)
        run.set_summary(
            rows=stats["rows"],
            kept=stats["kept"],
            dropped=stats["rows"] - stats["kept"],
            lost_to_corruption=stats["lost"],
        )


@dataclass
class _Judge(SliceWorker):
    """Judges the rows of a slice and writes the kept uids."""

    filter: Filter
    wanted: list[str]
    parts: str
    peek: list[str]
    _peek_uids: UidArray | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Load what the filter needs."""
        self.filter.setup()
        self._peek_uids = make_uids(self.peek)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Counts by reason, a few examples of each, verdicts of rows whose picture we have."""
        counts = np.zeros(len(self.filter.reasons) + 1, np.int64)
        kept: list[UidArray] = []
        examples = funnel.Examples(self.filter.reasons, SAMPLES_PER_REASON)
        peeked: dict[str, int] = {}
        for row, table in read_slice(piece, self.wanted):
            uids = parse_uids(table[columns.UID], where=piece.payload["uri"], first_row=row)
            try:
                verdict = self.filter.judge(table)
            except UnicodeDecodeError as error:
                where = f"{io.redact(piece.payload['uri'])}, rows from {row}"
                raise CorruptDataError(f"{where}: a caption is not UTF-8: {error}") from error
            if verdict.shape != uids.shape or (verdict < 0).any() or (verdict >= len(counts)).any():
                raise BadInputError(
                    f"{type(self.filter).__name__}.judge must give one verdict a row, from 0 to "
                    f"{len(counts) - 1}; it gave {verdict.shape} for {len(uids)} rows"
                )
            counts += np.bincount(verdict, minlength=len(counts))
            kept.append(uids[verdict == 0])
            examples.add(uids, verdict, table)
            if self._peek_uids is not None and len(self._peek_uids):
                hits = np.flatnonzero(np.isin(uids, self._peek_uids))
                peeked.update({hex_of_uid(uids[i]): int(verdict[i]) for i in hits})
        uids = np.concatenate(kept)
        save_part(io.join(self.parts, piece.name), uids)
        return {
            "rows": int(counts.sum()),
            "kept": len(uids),
            "counts": counts.tolist(),
            "examples": examples.found,
            "peeked": peeked,
        }
