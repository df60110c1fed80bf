"""The extract job: the metadata rows of a subset as a new pool.

For a text pool this is what reshard is for pictures: after it the pool holds what was chosen, in
the source's order, a uid listed k times k times. Two maps over slices: the first reads uids alone
and notes which rows the subset lists; the second copies those rows with all their columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, map_slices
from gristmill.pools import columns
from gristmill.pools.extract_workers import CopyRows, FindRows, read_rows, write_rows
from gristmill.pools.pool import MANIFEST, Pool
from gristmill.pools.subset import Subset

FOUND, PLACED = "rows-found", "rows-placed"


@dataclass(frozen=True, kw_only=True)
class ExtractJob(Job):
    """Write a subset's metadata rows as a new pool, metadata/*.parquet and pool.json.

    Features beside the metadata (.npz) and shards are not copied: reshard is for those.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("pool", "subset")
    pool: str
    """The pool whose rows are wanted."""
    subset: str
    """The subset file (.npy or bare array of u8,u8). A uid listed k times is written k times, from
    the first row that bears it."""
    require_all: bool = False
    """Fail when a uid of the subset is in no row, rather than count it."""
    skip_corrupt: bool = False
    """Go on past parquet row groups that cannot be read, counting them."""
    execution: Execution = Execution()
    """Where it runs."""

    def plan(self) -> Plan:
        """Rows of the pool and the subset, bytes of the metadata."""
        pool, subset = Pool(self.pool), Subset.load(self.subset)
        size = sum(footer.num_bytes for footer in pool.footers)
        share = len(subset) / max(pool.num_rows, 1)
        return Plan(
            title=f"extract {len(subset):,} of {pool.num_rows:,} rows of {io.redact(self.pool)}",
            reads=[(f"{len(pool.footers)} files of metadata", size)],
            writes=[("metadata, about", int(size * share))],
            cpu_hours=size / 50e6 / 3600,
            basis="about 50 MB/s a core, packed",
        )

    def execute(self, run: Run) -> None:
        """Find, place, copy, publish."""
        pool, subset = Pool(self.pool), Subset.load(self.subset)
        if not len(subset):
            raise BadInputError(f"the subset {io.redact(self.subset)} lists no uid")
        pool.require([columns.UID])
        # A corrupt row group then takes only itself along.
        pieces = pool.slices(1) if self.skip_corrupt else pool.slices()
        pin_input(run, "pool", pool.identity())
        pin_input(run, "subset", {"sha256": io.sha256(self.subset), "uids": len(subset)})
        with session(self.execution):
            found = self._map(run, "find rows", pieces, FindRows(self.subset, run.scratch(FOUND)))
            counts, repeated = _place(run, subset, pieces, found)
            missing = len(subset) - sum(counts)
            if missing == len(subset):
                raise BadInputError(
                    f"no uid of {io.redact(self.subset)} is in {io.redact(self.pool)}: it is "
                    "another pool's subset"
                )
            if missing and self.require_all:
                raise BadInputError(f"{missing:,} entries of the subset are in no row")
            wanted = [
                Slice(name=f"{i:08d}", weight=count, payload=piece.payload | {"rows": piece.name})
                for i, (piece, count) in enumerate(zip(pieces, counts, strict=True))
                if count
            ]
            done = self._map(run, "extract", wanted, CopyRows(run.scratch(PLACED), run.uri))
        self._publish(run, [*found, *done], len(subset), missing, repeated)

    def _map(
        self, run: Run, title: str, pieces: Sequence[Slice], worker: FindRows | CopyRows
    ) -> list[dict[str, Any]]:
        return map_slices(
            title,
            pieces,
            worker,
            ledger=run.scratch(title.replace(" ", "-")),
            execution=self.execution,
            skip_corrupt=self.skip_corrupt,
        )

    def _publish(
        self, run: Run, done: Sequence[dict[str, Any]], listed: int, missing: int, repeated: int
    ) -> None:
        files = {name: entry for d in done for name, entry in d.get("files", {}).items()}
        for name, entry in files.items():
            run.add_output(name, sha256=entry["sha256"], num_bytes=entry["bytes"])
        rows = sum(d.get("written", 0) for d in done)
        io.write_json(run.path(MANIFEST), {"format": 1, "rows": rows, "files": files})
        run.add_output(MANIFEST)
        corrupt = [d["corrupt"] for d in done if "corrupt" in d]
        figures = {
            "rows": rows,
            "subset_entries": listed,
            "not_in_pool": missing,
            "rows_of_a_uid_seen_before": repeated,
            "corrupt_row_groups": len(corrupt),
        }
        run.set_summary(**figures)
        page = Report(title="Extract", subtitle=f"{rows:,} rows of {listed:,} in the subset")
        if corrupt:
            page.warnings.append(f"{len(corrupt)} row groups were lost: " + "; ".join(corrupt[:20]))
        page.table(
            "Rows", ("what", "number"), [(k.replace("_", " "), v) for k, v in figures.items()]
        )
        page.save(run.path(REPORT))


def _place(
    run: Run, subset: Subset, pieces: Sequence[Slice], found: Sequence[dict[str, Any]]
) -> tuple[list[int], int]:
    """Rows to write from each slice, and how many rows bear a uid that an earlier one bears.

    Each slice's list is written anew without the latter; doing so twice changes nothing.
    """
    seen = np.zeros(len(subset), bool)
    counts, repeated = [], sum(d.get("repeated", 0) for d in found)
    for piece, outcome in zip(pieces, found, strict=True):
        if not outcome.get("found"):
            counts.append(0)
            continue
        rows = read_rows(run.scratch(FOUND), piece.name)
        new = ~seen[rows["entry"]]
        seen[rows["entry"]] = True
        write_rows(run.scratch(PLACED), piece.name, rows[new])
        repeated += int((~new).sum())
        counts.append(int(rows["times"][new].sum()))
    return counts, repeated
