"""The ingest of documents: text files from elsewhere to a text pool.

A text pool is a pool without shards: metadata/*.parquet with at least uid and text. A slice is a
file of the source, a range of bytes of a plain file of lines, or a few .txt files; it becomes one
metadata file of the same number. Whatever cannot become a document is counted by reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.core import io, source_files
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.records import record_files
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, map_slices
from gristmill.pools.documents_worker import DocumentSlice
from gristmill.pools.pool import MANIFEST


@dataclass(frozen=True, kw_only=True)
class DocumentsJob(Job):
    """Make a text pool: metadata/*.parquet with uid, text, url and source, and pool.json."""

    uri_fields: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    """A file or folder (any fsspec URI) of .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .txt files;
    subfolders count too. A .txt file is one document."""
    text_field: str = "text"
    """Field or column that holds the document."""
    url_field: str = "url"
    """Field or column that holds where it came from; documents without one get an empty url."""
    max_bytes: int = 10_000_000
    """Longer documents are dropped, in bytes of UTF-8."""
    keep_uids: bool = True
    """Keep a record's own `uid` or `id` when it has 32 hex digits."""
    skip_corrupt: bool = False
    """Go on past files that cannot be read to their end, counting them."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_bytes < 1:
            raise BadInputError(f"max_bytes must be at least 1, not {self.max_bytes}")

    def plan(self) -> Plan:
        """What there is to take in."""
        files = record_files(self.source)
        size = sum(source_files.sizes_of(files))
        return Plan(
            title="ingest documents",
            reads=[(f"{len(files)} files of {io.redact(self.source)}", size)],
            writes=[("metadata, at most about", size)],
            cpu_hours=size / 50e6 / 3600,
            basis="about 50 MB/s a core",
        )

    def execute(self, run: Run) -> None:
        """Take in slice by slice, then publish the manifest."""
        files = record_files(self.source)
        sizes = source_files.sizes_of(files)
        pin_input(run, "source", source_files.names_and_sizes(self.source, files, sizes))
        worker = DocumentSlice(
            out=run.uri,
            source=self.source,
            text_field=self.text_field,
            url_field=self.url_field,
            max_bytes=self.max_bytes,
            keep_uids=self.keep_uids,
        )
        with session(self.execution):
            done = map_slices(
                "ingest",
                list(document_slices(files, sizes)),
                worker,
                ledger=run.scratch("taken"),
                execution=self.execution,
                unit="bytes",
                skip_corrupt=self.skip_corrupt,
            )
        self._publish(run, done)

    def _publish(self, run: Run, done: Sequence[dict[str, Any]]) -> None:
        whole = [d for d in done if "corrupt" not in d]
        asked, kept = sum(d["asked"] for d in whole), sum(d["kept"] for d in whole)
        dropped: Counter[str] = Counter()
        for outcome in whole:
            dropped.update(outcome["dropped"])
        if not kept:
            raise BadInputError(
                f"none of {asked} records became a document: {dict(dropped)}; the text is looked "
                f"for in {self.text_field!r}"
            )
        files = {name: entry for d in whole for name, entry in d["files"].items()}
        for name, entry in files.items():
            run.add_output(name, sha256=entry["sha256"], num_bytes=entry["bytes"])
        io.write_json(run.path(MANIFEST), {"format": 1, "rows": kept, "files": files})
        run.add_output(MANIFEST)
        corrupt = [d["corrupt"] for d in done if "corrupt" in d]
        run.set_summary(
            asked=asked,
            kept=kept,
            dropped=dict(sorted(dropped.items())),
            dropped_total=dropped.total(),
            text_bytes=sum(d["text_bytes"] for d in whole),
            corrupt_slices=len(corrupt),
        )
        _report(run, asked, kept, dropped, corrupt)


def document_slices(files: Sequence[str], sizes: Sequence[int]) -> Iterator[Slice]:
    """The source cut, its pieces numbered."""
    for number, (payload, size) in enumerate(source_files.cut(files, sizes)):
        yield Slice(name=f"{number:08d}", weight=size, payload={"number": number, **payload})


def _report(run: Run, asked: int, kept: int, dropped: Counter[str], corrupt: Sequence[str]) -> None:
    share = 100 * kept / asked if asked else 0.0
    page = Report(
        title="Ingest of documents",
        subtitle=f"{kept:,} documents of {asked:,} records ({share:.1f} %)",
    )
    if corrupt:
        page.warnings.append(f"{len(corrupt)} files could not be read: " + "; ".join(corrupt[:20]))
    rows: list[tuple[str, Any]] = [
        ("records", asked),
        *((f"dropped: {reason}", count) for reason, count in sorted(dropped.items())),
        ("documents in the pool", kept),
    ]
    page.table("Records", ("what", "number"), rows)
    page.save(run.path(REPORT))
