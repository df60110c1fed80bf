"""The hash job: a perceptual hash for every picture of a pool, as a new pool.

Near-duplicate filters and decontamination read the column it adds.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools import columns, derived
from gristmill.pools.image import decode_rgb
from gristmill.pools.phash import phash
from gristmill.pools.tar import TarReader

PICTURES_PER_CPU_SECOND = 400.0
BITS = 64


@dataclass(frozen=True, kw_only=True)
class HashJob(Job):
    """Add the column phash: a 64-bit DCT hash of each picture (Zauner 2010), 16 hex digits.

    Pictures that cannot be decoded get null and are counted.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("pool",)
    pool: str
    """A pool with shards."""
    rebuild_metadata: bool = False
    """Where a shard has no metadata file of its own with its uids in order, take its rows from the
    samples' json; columns that these do not hold are lost. Without it such a shard is an error."""
    skip_corrupt: bool = False
    """Go on past shards that cannot be read, counting them."""
    execution: Execution = Execution()
    """Where it runs."""

    def plan(self) -> Plan:
        """Pictures to decode."""
        pool = derived.pool_with_shards(self.pool)
        sizes = sum(map(io.size_bytes, pool.shard_files))
        return Plan(
            title=f"hash {pool.num_rows:,} pictures of {io.redact(self.pool)}",
            reads=[(f"{len(pool.shard_files)} shards", sizes)],
            writes=[("hashes, beside a copy of the metadata", pool.num_rows * 16)],
            work=[("pictures", f"{pool.num_rows:,}")],
            cpu_hours=pool.num_rows / PICTURES_PER_CPU_SECOND / 3600,
            basis=f"about {PICTURES_PER_CPU_SECOND:,.0f} pictures of 512 px a second a core",
        )

    def execute(self, run: Run) -> None:
        """Hash shard by shard."""
        pool = derived.pool_with_shards(self.pool)
        pin_input(run, "pool", pool.identity())
        with session(self.execution):
            done = map_slices(
                "hash",
                derived.shard_slices(pool),
                _HashShard(pool.metadata_files[0], self.rebuild_metadata, run.uri),
                ledger=run.scratch("hashed"),
                execution=self.execution,
                unit="bytes",
                skip_corrupt=self.skip_corrupt,
            )
        found = derived.publish(run, pool, done)
        run.set_summary(**derived.summary(found), unhashed=found.total("unhashed"))
        _report(run, found)


@dataclass
class _HashShard(SliceWorker):
    """Hashes the pictures of one shard."""

    template: str
    rebuild: bool
    out: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write metadata/N.parquet and what features there were; returns counts and hashes."""
        import pyarrow as pa

        rows: list[dict[str, Any]] = []
        hashes: list[str | None] = []
        with TarReader(piece.payload["uri"]) as reader:
            for sample in reader.samples():
                rows.append(derived.row_of(reader, sample))
                where = f"{io.redact(reader.uri)}: {sample.key}"
                hashes.append(_hash(derived.picture_bytes(reader, sample), where))
        made = derived.metadata_of(piece, rows, template=self.template, rebuild=self.rebuild)
        made = made.with_column(columns.PHASH, pa.array(hashes, pa.string()))
        bits = [int(word, 16).bit_count() for word in hashes if word is not None]
        return {
            "rows": len(rows),
            "unhashed": len(rows) - len(bits),
            "aligned": made.aligned,
            "bits": np.bincount(bits, minlength=BITS + 1).tolist(),
            "files": made.save(self.out, f"metadata/{piece.name}"),
        }


def _hash(data: bytes, where: str) -> str | None:
    try:
        return phash(decode_rgb(data, where=where))
    except CorruptDataError:
        return None


def _report(run: Run, found: derived.Derived) -> None:
    page = Report(
        title="Perceptual hashes",
        subtitle=f"{found.total('rows'):,} pictures, {found.total('unhashed'):,} without a hash",
    )
    found.warn(page)
    counts = [sum(column) for column in zip(*(d["bits"] for d in found.whole), strict=True)]
    page.plot(
        "Set bits of the hashes",
        lambda axes: axes.bar(range(BITS + 1), counts),
        note="A proper hash has about 32 of 64; flat pictures have next to none.",
    )
    page.save(run.path(REPORT))
