"""The reshard job: the pairs of a subset, as dense shards that any webdataset reader takes.

Two maps over slices. The first walks each input shard's headers and notes which samples the subset
lists and how often. Counts a shard give every kept sample a place in one global order (input shard,
then place in it), so output shard i holds places [i * shard_size, (i + 1) * shard_size). The second
map writes each output shard from the input shards that cover it. So the bytes of the output do not
depend on how many workers there were, and a kill costs at most the shards in hand.
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
from gristmill.pools.faces import gather_faces
from gristmill.pools.kept import KeptList
from gristmill.pools.pool import Pool
from gristmill.pools.reshard_workers import REPEATED, FindKept, WriteShard
from gristmill.pools.subset import Subset

SHARDS = "shards"
SHARD_FORMAT = "{:08d}.tar"
SAMPLE_IDS = "sample_ids.npy"
META = "meta.json"
SIZES = "sizes.json"
KEPT, PLACED = "kept", "placed"


@dataclass(frozen=True, kw_only=True)
class ReshardJob(Job):
    """Write a subset's pairs as new shards (DataComp's resharder, its known faults left out)."""

    uri_fields: ClassVar[tuple[str, ...]] = ("pool", "subset")
    pool: str
    """The pool whose shards hold the pairs."""
    subset: str
    """The subset file (.npy or bare array of u8,u8); a uid listed k times is written k times."""
    shard_size: int = 10_000
    """Samples in an output shard; the last may hold fewer."""
    shuffle_buffer: int = 0
    """Shuffle within consecutive windows of this many samples. 0 keeps the pool's order."""
    seed: int = 0
    """Of the shuffle."""
    blur_faces: bool = False
    """Blur the metadata's face_bboxes and store such pictures as WebP."""
    inject_faces: bool = False
    """Write the boxes into each sample's json as face_bboxes, for trainers that blur."""
    webp_quality: int = 100
    """Quality of re-encoded pictures, 1 to 100."""
    require_all: bool = False
    """Fail when a uid of the subset is in no shard, rather than count it."""
    skip_corrupt: bool = False
    """Go on past shards that cannot be read, counting what was lost."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_size < 1 or self.shuffle_buffer < 0:
            raise BadInputError("shard_size must be at least 1 and shuffle_buffer at least 0")
        if not 1 <= self.webp_quality <= 100:
            raise BadInputError(f"webp_quality must lie in 1 to 100, not {self.webp_quality}")

    def plan(self) -> Plan:
        """The dry run: sizes of the shards and the subset."""
        pool, subset = self._pool(), Subset.load(self.subset)
        sizes = sum(io.size_bytes(uri) for uri in pool.shard_files)
        share = min(len(subset) / max(pool.num_rows, 1), 1.0)
        return Plan(
            title=f"reshard {len(subset):,} of {pool.num_rows:,} pairs of {io.redact(self.pool)}",
            reads=[(f"{len(pool.shard_files)} shards", sizes)],
            writes=[(f"at most {-(-len(subset) // self.shard_size)} shards", int(sizes * share))],
            work=[("samples", f"{len(subset):,}")],
            cpu_hours=2 * sizes / 300e6 / 3600,
            basis="two passes at about 300 MB/s a core",
        )

    def _pool(self) -> Pool:
        pool = Pool(self.pool)
        if not pool.shard_files:
            raise BadInputError(f"{io.redact(self.pool)} has no shards/*.tar to reshard")
        return pool

    def execute(self, run: Run) -> None:
        """Find, place, write, publish."""
        pool, subset = self._pool(), Subset.load(self.subset)
        if not len(subset):
            raise BadInputError(f"the subset {io.redact(self.subset)} lists no uid")
        digest = io.sha256(self.subset)
        names = [uri.rsplit("/", 1)[-1] for uri in pool.shard_files]
        sizes = [io.size_bytes(uri) for uri in pool.shard_files]
        pin_input(run, "subset", {"sha256": digest, "uids": len(subset)})
        pin_input(run, "shards", {"names": names, "bytes": sizes})
        if self.blur_faces or self.inject_faces:
            pin_input(run, "pool", pool.identity())
        with session(self.execution):
            found = self._find(run, pool, sizes)
            counts, trimmed, repeated = _place(run, subset, found)
            written = sum(counts)
            if not written:
                raise BadInputError(
                    f"no uid of {io.redact(self.subset)} is in the shards of "
                    f"{io.redact(self.pool)}: it is another pool's subset"
                )
            missing = len(subset) - written
            if missing and self.require_all:
                raise BadInputError(f"{missing:,} entries of the subset are in no shard")
            faces = ""
            if self.blur_faces or self.inject_faces:
                faces = gather_faces(run, pool, self.subset, self.execution)
            shards = self._write(run, pool, counts, trimmed, faces)
        if repeated:
            found = [*found, {"dropped": {REPEATED: repeated}}]
        self._publish(run, found, shards, subset, missing)

    def _find(self, run: Run, pool: Pool, sizes: Sequence[int]) -> list[dict[str, Any]]:
        pieces = [
            Slice(name=f"{i:06d}", weight=size, payload={"uri": uri})
            for i, (uri, size) in enumerate(zip(pool.shard_files, sizes, strict=True))
        ]
        return map_slices(
            "find samples",
            pieces,
            FindKept(self.subset, run.scratch(KEPT)),
            ledger=run.scratch("indexed"),
            execution=self.execution,
            unit="bytes",
            skip_corrupt=self.skip_corrupt,
        )

    def _write(
        self, run: Run, pool: Pool, counts: list[int], trimmed: frozenset[int], faces: str
    ) -> list[dict[str, Any]]:
        ends = np.cumsum(counts)
        pieces = []
        for number, start in enumerate(range(0, int(ends[-1]), self.shard_size)):
            stop = min(start + self.shard_size, int(ends[-1]))
            payload = {"number": number, "start": start, "stop": stop}
            pieces.append(Slice(name=f"{number:08d}", weight=stop - start, payload=payload))
        worker = WriteShard(
            inputs=pool.shard_files,
            counts=counts,
            kept=run.scratch(KEPT),
            trimmed=trimmed,
            placed=run.scratch(PLACED),
            out=run.path(SHARDS),
            shard_format=SHARD_FORMAT,
            window=self.shuffle_buffer,
            seed=self.seed,
            faces=faces,
            blur=self.blur_faces,
            inject=self.inject_faces,
            webp_quality=self.webp_quality,
        )
        ledger = run.scratch("written")
        return map_slices(
            "reshard", pieces, worker, ledger=ledger, execution=self.execution, unit="samples"
        )

    def _publish(
        self,
        run: Run,
        found: Sequence[dict[str, Any]],
        shards: Sequence[dict[str, Any]],
        subset: Subset,
        missing: int,
    ) -> None:
        dropped = _dropped(found, shards)
        total = sum(s["samples"] for s in shards)
        for number, shard in enumerate(shards):
            name = f"{SHARDS}/{SHARD_FORMAT.format(number)}"
            run.add_output(name, sha256=shard["sha256"], num_bytes=shard["bytes"])
        subset.save(run.path(SHARDS, SAMPLE_IDS))
        io.write_json(
            run.path(SHARDS, SIZES),
            {SHARD_FORMAT.format(i): s["samples"] for i, s in enumerate(shards)},
        )
        # The names DataComp's own training script reads; it looks for them in a subfolder.
        io.write_json(
            run.path(SHARDS, META),
            {
                "output_shard_count": len(shards),
                "output_shard_format": SHARD_FORMAT,
                "output_count": total,
                "processed_count": sum(d.get("samples", 0) for d in found),
                "blur_count": sum(s["blurred"] for s in shards),
                "shard_size": self.shard_size,
                "subset_sha256": run_input(run, "subset")["sha256"],
            },
        )
        for name in (SAMPLE_IDS, SIZES, META):
            run.add_output(f"{SHARDS}/{name}")
        lost = sum("corrupt" in d for d in found)
        run.set_summary(
            samples=total,
            shards=len(shards),
            subset_entries=len(subset),
            not_in_shards=missing,
            blurred=sum(s["blurred"] for s in shards),
            dropped=dropped,
            dropped_total=sum(dropped.values()),
            corrupt_shards=lost,
        )
        _report(run, found, shards, len(subset), missing, dropped)


def run_input(run: Run, name: str) -> dict[str, Any]:
    """The identity that `pin_input` recorded."""
    return dict(io.read_json(run.scratch(f"input-{name}.json")))


def _place(
    run: Run, subset: Subset, found: Sequence[dict[str, Any]]
) -> tuple[list[int], frozenset[int], int]:
    """Samples each input shard gives, the shards trimmed, samples whose uid came earlier.

    A uid listed k times is written k times, from the first sample that bears it. A shard with
    later ones gets a second list without them; doing so twice changes nothing.
    """
    seen = np.zeros(len(subset), bool)
    counts, trimmed, repeated = [], [], 0
    for number, outcome in enumerate(found):
        if not outcome.get("found"):
            counts.append(0)
            continue
        kept = KeptList.load(run.scratch(KEPT, f"{number:06d}"))
        new = ~seen[kept.samples["entry"]]
        seen[kept.samples["entry"]] = True
        if not new.all():
            kept.only(new).save(run.scratch(PLACED, f"{number:06d}"))
            trimmed.append(number)
            repeated += int((~new).sum())
        counts.append(int(kept.samples["times"][new].sum()))
    return counts, frozenset(trimmed), repeated


def _dropped(found: Sequence[dict[str, Any]], shards: Sequence[dict[str, Any]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for outcome in (*found, *shards):
        for reason, count in outcome.get("dropped", {}).items():
            totals[reason] = totals.get(reason, 0) + count
    return dict(sorted(totals.items()))


def _report(
    run: Run,
    found: Sequence[dict[str, Any]],
    shards: Sequence[dict[str, Any]],
    listed: int,
    missing: int,
    dropped: dict[str, int],
) -> None:
    total = sum(s["samples"] for s in shards)
    page = Report(title="Reshard", subtitle=f"{total:,} samples in {len(shards):,} shards")
    corrupt = [d["corrupt"] for d in found if "corrupt" in d]
    if corrupt:
        page.warnings.append(f"{len(corrupt)} input shards were lost: " + "; ".join(corrupt[:20]))
    rows: list[Sequence[Any]] = [
        ("samples in the input shards", sum(d.get("samples", 0) for d in found)),
        ("entries in the subset", listed),
        ("of these in no shard", missing),
        ("samples written", total),
        ("pictures blurred", sum(s["blurred"] for s in shards)),
        *((f"dropped: {reason}", count) for reason, count in dropped.items()),
    ]
    page.table("Counts", ("what", "number"), rows)
    page.plot(
        "Bytes in each output shard",
        lambda axes: axes.plot([s["bytes"] for s in shards], drawstyle="steps-mid"),
    )
    page.save(run.path(REPORT))
