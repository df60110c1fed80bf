"""The inspect job: what a pool holds, before anyone decides what to keep."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.execution.parts import ranges_for
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools import columns
from gristmill.pools.duplicates import count_duplicates, save_keys
from gristmill.pools.funnel import Peeked, peek_shards, shown
from gristmill.pools.pool import Pool, read_slice

LANGUAGES_OF = 100_000
"""Rows whose language is told, spread evenly; language costs more than all else together."""
BINS = 80
PICTURES = 48
STATS = "stats.json"


@dataclass(frozen=True, kw_only=True)
class InspectJob(Job):
    """Counts, sizes, languages, score histograms, duplicate and broken rows of a pool."""

    uri_fields: ClassVar[tuple[str, ...]] = ("pool",)
    pool: str
    """The pool: a folder (any fsspec URI)."""
    language_model: str = ""
    """Another fastText file than the bundled lid.176.ftz."""
    skip_corrupt: bool = True
    """Count row groups that cannot be read as broken rather than stop at one."""
    execution: Execution = Execution()
    """Where it runs."""

    def plan(self) -> Plan:
        """Rows and files."""
        pool = Pool(self.pool)
        return Plan(
            title=f"inspect {pool.num_rows:,} rows of {io.redact(self.pool)}",
            reads=[(f"{len(pool.footers)} metadata files", sum(f.num_bytes for f in pool.footers))],
            writes=[("stats.json, report.html", 0)],
            cpu_hours=pool.num_rows / 500_000 / 3600,
            basis="about 500,000 rows/s a core",
        )

    def execute(self, run: Run) -> None:
        """Count slice by slice, find duplicates, report."""
        pool = Pool(self.pool)
        pool.require([columns.UID])
        names = list(dict.fromkeys(n for f in pool.footers for n in f.names))
        pin_input(run, "pool", pool.identity())
        pieces = pool.slices()
        step = max(pool.num_rows // LANGUAGES_OF, 1)
        ranges = ranges_for(pool.num_rows)
        with session(self.execution):
            worker = _Look(_wanted(names), step, self.language_model, run.scratch("keys"), ranges)
            done = map_slices(
                "inspect",
                pieces,
                worker,
                ledger=run.scratch("looked"),
                execution=self.execution,
                skip_corrupt=self.skip_corrupt,
            )
            whole = [p for p, d in zip(pieces, done, strict=True) if "corrupt" not in d]
            twice = {
                kind: count_duplicates(
                    [io.join(run.scratch("keys"), kind, p.name) for p in whole],
                    pool.num_rows,
                    ranges,
                    run.scratch("twice", kind),
                    self.execution,
                )
                for kind in (columns.UID, columns.SHA256)
                if kind in names
            }
        stats = _total(done, twice, pool)
        io.write_json(run.path(STATS), stats)
        run.add_output(STATS)
        run.set_summary(**{k: v for k, v in stats.items() if isinstance(v, int)})
        _report(run, stats, peek_shards(pool, PICTURES))
        _print(stats)


def _wanted(names: Sequence[str]) -> list[str]:
    known = (columns.UID, columns.TEXT, columns.WIDTH, columns.HEIGHT, columns.SHA256)
    scores = [n for n in names if n.startswith("clip_") and n.endswith("_similarity_score")]
    return [n for n in known if n in names] + scores


@dataclass
class _Look(SliceWorker):
    """Counts one slice."""

    wanted: list[str]
    step: int
    language_model: str
    keys: str
    ranges: int

    def process(self, piece: Slice) -> dict[str, Any]:
        """Figures that add up over slices."""
        counts: Counter[str] = Counter()
        languages: Counter[str] = Counter()
        histograms: dict[str, np.ndarray] = {}
        keys: dict[str, list[Any]] = {columns.UID: [], columns.SHA256: []}
        for row, table in read_slice(piece, self.wanted):
            counts["rows"] += table.num_rows
            for name in set(self.wanted) - set(table.column_names):
                counts[f"{name}_no_column"] += table.num_rows
            for kind in keys:
                if kind in table.column_names:
                    keys[kind].append(table[kind])
            if columns.TEXT in table.column_names:
                self._captions(table[columns.TEXT], row, counts, languages, histograms)
            if {columns.WIDTH, columns.HEIGHT} <= set(table.column_names):
                _sizes(table, counts, histograms)
            for name in table.column_names:
                if name.endswith("_similarity_score"):
                    _scores(table[name], name, counts, histograms)
        for kind, chunks in keys.items():
            if chunks:
                counts[f"broken_{kind}"] += save_keys(
                    io.join(self.keys, kind, piece.name), chunks, self.ranges
                )
        return {
            "counts": dict(counts),
            "languages": dict(languages),
            "histograms": {name: values.tolist() for name, values in histograms.items()},
        }

    def _captions(
        self,
        column: Any,
        row: int,
        counts: Counter[str],
        languages: Counter[str],
        histograms: dict[str, np.ndarray],
    ) -> None:
        import pyarrow.compute as pc

        from gristmill.filters import _language

        counts["caption_missing"] += column.null_count
        lengths = pc.utf8_length(column).fill_null(0).to_numpy()
        counts["caption_empty"] += int((lengths == 0).sum()) - column.null_count
        _add(histograms, "caption characters", np.clip(lengths, 0, 199), (0, 200))
        first = -row % self.step
        some = column.take(np.arange(first, len(column), self.step))
        sampled = [text for text in some.to_pylist() if text]
        languages.update(_language.languages(sampled, self.language_model))


def _sizes(table: Any, counts: Counter[str], histograms: dict[str, np.ndarray]) -> None:
    width = table[columns.WIDTH].cast("float64").to_numpy()
    height = table[columns.HEIGHT].cast("float64").to_numpy()
    broken = ~((width > 0) & (height > 0))
    counts["size_broken"] += int(broken.sum())
    small = np.minimum(width, height)[~broken]
    large = np.maximum(width, height)[~broken]
    counts["side_under_200"] += int((small < 200).sum())
    counts["aspect_over_3"] += int((large / small > 3).sum())
    _add(histograms, "smaller side, pixels", np.clip(small, 0, 1999), (0, 2000))
    _add(histograms, "aspect ratio", np.clip(large / small, 1, 5.99), (1, 6))


def _scores(
    column: Any, name: str, counts: Counter[str], histograms: dict[str, np.ndarray]
) -> None:
    values = column.cast("float64").to_numpy()
    finite = np.isfinite(values)
    counts[f"{name}_missing"] += int((~finite).sum())
    _add(histograms, name, np.clip(values[finite], -1, 1), (-1, 1))


def _add(
    histograms: dict[str, np.ndarray], name: str, values: np.ndarray, span: tuple[float, float]
) -> None:
    counted = np.histogram(values, bins=BINS, range=span)[0]
    histograms[name] = histograms.get(name, np.zeros(BINS, np.int64)) + counted


SPANS = {
    "caption characters": (0.0, 200.0),
    "smaller side, pixels": (0.0, 2000.0),
    "aspect ratio": (1.0, 6.0),
}


def _total(done: Sequence[dict[str, Any]], twice: dict[str, int], pool: Pool) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    histograms: dict[str, Any] = {}
    for outcome in done:
        counts.update(outcome.get("counts", {}))
        languages.update(outcome.get("languages", {}))
        for name, values in outcome.get("histograms", {}).items():
            histograms[name] = np.array(values) + histograms.get(name, 0)
    corrupt = [d["corrupt"] for d in done if "corrupt" in d]
    return {
        "rows": 0,
        **{name: int(value) for name, value in counts.items()},
        "metadata_files": len(pool.metadata_files),
        "shards": len(pool.shard_files),
        "rows_in_corrupt_row_groups": sum(d["lost"] for d in done if "corrupt" in d),
        **{f"duplicate_{kind}": count for kind, count in twice.items()},
        "languages": dict(languages.most_common()),
        "histograms": {name: values.tolist() for name, values in histograms.items()},
        "corrupt": corrupt,
    }


def _print(stats: dict[str, Any]) -> None:
    total = sum(stats["languages"].values()) or 1
    for code, count in list(stats["languages"].items())[:8]:
        print(f"language {code or 'none'}: {100 * count / total:.1f} %")


def _report(run: Run, stats: dict[str, Any], samples: Sequence[Peeked]) -> None:
    page = Report(title="Pool", subtitle=f"{stats['rows']:,} rows, {stats['shards']} shards")
    if stats["corrupt"]:
        page.warnings.append("row groups that cannot be read: " + "; ".join(stats["corrupt"][:20]))
    rows = [(k.replace("_", " "), v) for k, v in stats.items() if isinstance(v, int)]
    page.table("Counts", ("what", "number"), rows)
    total = sum(stats["languages"].values()) or 1
    top = [(c or "none", n, 100 * n / total) for c, n in list(stats["languages"].items())[:20]]
    if top:
        page.table(
            "Languages of captions", ("label", "captions", "%"), top, note="fastText lid.176"
        )
    for name, values in stats["histograms"].items():
        low, high = SPANS.get(name, (-1.0, 1.0))
        edges = np.linspace(low, high, len(values) + 1)
        page.plot(name, lambda axes, v=values, e=edges: axes.stairs(v, e, fill=True))  # type: ignore[misc]
    if samples:
        page.thumbnails("Samples", shown(samples))
    page.save(run.path(REPORT))
