"""Counts of a corpus's ingest, and its report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.core.plan import human_bytes
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run


@dataclass
class DomainCounts:
    """What became of a domain's records."""

    dropped: Counter[str]
    asked: int = 0
    """Records read."""
    documents: int = 0
    """Of them, with a text."""
    kept: int = 0
    """Of them, after exact repeats."""
    kept_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Suffix -> files of its folders that were not read."""
    splits: dict[str, list[int]] = field(default_factory=dict)
    """Split -> documents and bytes."""

    def add(self, split: str, documents: int, size: int) -> None:
        """Count a file."""
        own = self.splits.setdefault(split, [0, 0])
        own[0] += documents
        own[1] += size

    def summary(self) -> dict[str, Any]:
        """As the manifest of the run lists it."""
        return {
            "records": self.asked,
            "dropped": dict(sorted(self.dropped.items())),
            "duplicates": self.documents - self.kept,
            "documents": self.kept,
            "bytes": self.kept_bytes,
            "files_not_read": dict(sorted(self.skipped.items())),
            **{split: {"documents": n, "bytes": b} for split, (n, b) in self.splits.items()},
        }


def report(run: Run, counts: Mapping[str, DomainCounts], corrupt: Sequence[str]) -> None:
    """Write report.html and the summary."""
    kept, size = sum(c.kept for c in counts.values()), sum(c.kept_bytes for c in counts.values())
    page = Report(
        title="Ingest of a corpus",
        subtitle=f"{kept:,} documents in {len(counts)} domains, {human_bytes(size)} of text",
    )
    if corrupt:
        page.warnings.append(f"{len(corrupt)} files could not be read: " + "; ".join(corrupt[:20]))
    _warn_of_skipped(page, counts)
    reasons = sorted({reason for c in counts.values() for reason in c.dropped})
    page.table(
        "Records by domain",
        ("domain", "records", *(f"dropped: {r}" for r in reasons), "exact repeats", "documents"),
        [
            (n, c.asked, *(c.dropped[r] for r in reasons), c.documents - c.kept, c.kept)
            for n, c in counts.items()
        ],
        note="The first numbers are what was read; the last is what the corpus holds.",
    )
    rows = []
    for name, own in counts.items():
        train, held = own.splits.get("train", [0, 0]), own.splits.get("validation", [0, 0])
        rows.append((name, *train, *held, own.kept_bytes / size))
    page.table(
        "Splits by domain",
        ("domain", "train documents", "bytes", "validation documents", "bytes", "share of bytes"),
        rows,
        note="Documents were shuffled before the split, by a hash of seed and text.",
    )

    def draw(axes: Any) -> None:
        axes.barh(list(counts), [c.kept_bytes / 1e6 for c in counts.values()])
        axes.invert_yaxis()
        axes.set_xlabel("megabytes of text")

    page.plot("Size by domain", draw)
    page.save(run.path(REPORT))
    run.set_summary(
        documents=kept,
        bytes=size,
        duplicates=sum(c.documents - c.kept for c in counts.values()),
        files_not_read=sum(c.skipped.total() for c in counts.values()),
        corrupt_slices=len(corrupt),
        domains={name: own.summary() for name, own in counts.items()},
    )


def _warn_of_skipped(page: Report, counts: Mapping[str, DomainCounts]) -> None:
    """Files of a folder that nobody reads, and what to do if they should be."""
    rows = [
        (name, suffix, count)
        for name, own in counts.items()
        for suffix, count in own.skipped.most_common()
    ]
    if not rows:
        return
    page.warnings.append(
        f"{sum(count for _, _, count in rows):,} files were not read, since their suffix says "
        "neither records nor text; if they are text, name their suffixes with --text-suffixes "
        "(which replaces the usual ones)."
    )
    page.table("Files not read, by suffix", ("domain", "suffix", "files"), rows)
