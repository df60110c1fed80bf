"""The ingest job: image-text pairs from elsewhere to a pool in DataComp's form.

A slice is an input tar (or up to `shard_size` files of a folder) and becomes one shard, one parquet
file and one stats file of the same number. Whatever cannot become a pair is counted by reason.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, map_slices
from gristmill.pools.ingest_worker import IngestSlice
from gristmill.pools.pool import MANIFEST
from gristmill.pools.tar import IMAGE_EXTENSIONS


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where pairs come from."""

    @abstractmethod
    def pieces(self, shard_size: int, scratch: str) -> list[Slice]:
        """The source cut into slices, after fetching what must be fetched."""

    @abstractmethod
    def sizes(self) -> tuple[str, int]:
        """(what there is, in words; its bytes, or 0), without fetching anything."""

    def availability(self, scratch: str) -> dict[str, int]:  # noqa: ARG002
        """Rows asked for, failed and mismatched before any pair reached us."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Tars(Source):
    """Webdataset tars: {key}.jpg|png|webp, {key}.txt and perhaps {key}.json."""

    source: str
    """Folder of *.tar files, any fsspec URI."""

    def pieces(self, shard_size: int, scratch: str) -> list[Slice]:  # noqa: ARG002
        """A slice a tar."""
        return tar_slices(self.source)

    def sizes(self) -> tuple[str, int]:
        """Number and bytes of the tars."""
        files = _tars(self.source)
        return f"{len(files)} tars of {io.redact(self.source)}", sum(map(io.size_bytes, files))


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """A folder of images with captions in {name}.txt beside each."""

    source: str
    """The folder; subfolders count too."""

    def pieces(self, shard_size: int, scratch: str) -> list[Slice]:  # noqa: ARG002
        """Slices of up to `shard_size` images in name order."""
        files = self._images()
        return [
            Slice(
                name=f"{n:08d}",
                weight=len(files[i : i + shard_size]),
                payload={"number": n, "files": files[i : i + shard_size]},
            )
            for n, i in enumerate(range(0, len(files), shard_size))
        ]

    def sizes(self) -> tuple[str, int]:
        """Number of the images."""
        return f"{len(self._images())} images of {io.redact(self.source)}", 0

    def _images(self) -> list[str]:
        files = io.list_files(io.absolute(self.source), recursive=True)
        found = [f for f in files if f.lower().rpartition(".")[2] in IMAGE_EXTENSIONS]
        if not found:
            raise BadInputError(
                f"no images ({', '.join(IMAGE_EXTENSIONS)}) under {io.redact(self.source)}"
            )
        return found


def _tars(source: str) -> list[str]:
    files = io.list_files(io.absolute(source), ".tar")
    if not files:
        raise BadInputError(f"no *.tar files in {io.redact(source)}")
    return files


def tar_slices(source: str) -> list[Slice]:
    """A slice for each tar of a folder, in name order."""
    return [
        Slice(name=f"{n:08d}", weight=io.size_bytes(uri), payload={"number": n, "tar": uri})
        for n, uri in enumerate(_tars(source))
    ]


@dataclass(frozen=True, kw_only=True)
class IngestJob(Job):
    """Make a pool: metadata/*.parquet, shards/*.tar and pool.json, in DataComp's form."""

    source: Source
    """Where the pairs come from."""
    shard_size: int = 10_000
    """Most samples a shard made of loose files or urls; a tar's samples stay together."""
    keep_uids: bool = True
    """Keep a sample's own uid when its json has one of 32 hex digits (DataComp's shards do)."""
    face_boxes: bool = False
    """Carry face_bboxes from each sample's json; a sample without them is dropped."""
    skip_corrupt: bool = False
    """Go on past tars that cannot be read, counting them."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_size < 1:
            raise BadInputError(f"shard_size must be at least 1, not {self.shard_size}")

    def plan(self) -> Plan:
        """What there is to take in."""
        what, size = self.source.sizes()
        return Plan(
            title="ingest a pool",
            reads=[(what, size)],
            writes=[("shards and metadata", size)],
            cpu_hours=size / 20e6 / 3600,
            basis="about 20 MB/s a core: each picture is decoded once to see that it can be",
        )

    def execute(self, run: Run) -> None:
        """Take in slice by slice, then publish the manifest."""
        pieces = self.source.pieces(self.shard_size, run.scratch("fetched"))
        origin = [[p.payload.get("tar") or len(p.payload["files"]), p.weight] for p in pieces]
        pin_input(run, "source", {"slices": origin})
        worker = IngestSlice(out=run.uri, keep_uids=self.keep_uids, face_boxes=self.face_boxes)
        with session(self.execution):
            done = map_slices(
                "ingest",
                pieces,
                worker,
                ledger=run.scratch("taken"),
                execution=self.execution,
                unit="bytes" if "tar" in pieces[0].payload else "files",
                skip_corrupt=self.skip_corrupt,
            )
        self._publish(run, done)

    def _publish(self, run: Run, done: Sequence[dict[str, Any]]) -> None:
        whole = [d for d in done if "corrupt" not in d]
        asked, kept = sum(d["asked"] for d in whole), sum(d["kept"] for d in whole)
        if not kept:
            raise BadInputError(f"none of {asked} samples became a pair: {dict(_dropped(whole))}")
        files = {name: entry for d in whole for name, entry in d["files"].items()}
        for name, entry in files.items():
            run.add_output(name, sha256=entry["sha256"], num_bytes=entry["bytes"])
        io.write_json(run.path(MANIFEST), {"format": 1, "rows": kept, "files": files})
        run.add_output(MANIFEST)
        before = self.source.availability(run.scratch("fetched"))
        corrupt = [d["corrupt"] for d in done if "corrupt" in d]
        dropped = _dropped(whole)
        summary = {
            "asked": before.get("asked", asked),
            "kept": kept,
            "failed_to_fetch": before.get("failed", 0),
            "hash_mismatches": before.get("hash_mismatches", 0),
            "dropped": dict(dropped),
            "dropped_total": dropped.total(),
            "corrupt_tars": len(corrupt),
        }
        run.set_summary(**summary)
        _report(run, summary, corrupt)


def _dropped(done: Sequence[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for outcome in done:
        total.update(outcome["dropped"])
    return total


def _report(run: Run, summary: dict[str, Any], corrupt: Sequence[str]) -> None:
    share = 100 * summary["kept"] / summary["asked"] if summary["asked"] else 0.0
    page = Report(
        title="Ingest",
        subtitle=f"{summary['kept']:,} pairs of {summary['asked']:,} asked for ({share:.1f} %)",
    )
    if corrupt:
        page.warnings.append(f"{len(corrupt)} tars could not be read: " + "; ".join(corrupt[:20]))
    rows: list[tuple[str, Any]] = [
        ("asked for", summary["asked"]),
        ("failed to fetch", summary["failed_to_fetch"]),
        ("sha256 did not match", summary["hash_mismatches"]),
        *((f"dropped: {reason}", n) for reason, n in sorted(summary["dropped"].items())),
        ("pairs in the pool", summary["kept"]),
    ]
    note = (
        "DataComp's pools lose 6 to 86 % of their pictures to dead links; a score on what is left "
        "is comparable only with scores on the same uids."
    )
    page.table("Availability", ("what", "number"), rows, note=note)
    page.save(run.path(REPORT))
