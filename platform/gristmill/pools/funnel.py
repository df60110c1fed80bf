"""The filter's report: rows in, kept, dropped by each rule, with examples of what each dropped."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.errors import BadInputError
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.filters.base import Filter
from gristmill.pools.examples import LONGEST_CAPTION
from gristmill.pools.image import thumbnail
from gristmill.pools.pool import Pool
from gristmill.pools.tar import Member, Sample, TarReader, read_record
from gristmill.pools.uid import uid_of_hex

PEEK_SAMPLES = 1500
PEEK_SHARD_BYTES = 1 << 30
PEEK_IMAGE_BYTES = 1 << 20
PICTURES_PER_REASON = 12


@dataclass(frozen=True)
class Peeked:
    """A sample near the start of the shards, kept as a picture for reports."""

    uid: str
    image: bytes = field(repr=False)
    text: str


def peek_shards(pool: Pool, limit: int = PEEK_SAMPLES) -> list[Peeked]:
    """The first samples of the first shard, bounded; empty when the pool has no shards.

    A shard that cannot be read gives none: pictures decorate a report, they do not make a result.
    """
    found: list[Peeked] = []
    for uri in pool.shard_files[:1]:
        if not io.is_local(uri) and io.size_bytes(uri) > PEEK_SHARD_BYTES:
            continue
        try:
            with TarReader(uri) as reader:
                for sample in itertools.islice(reader.samples(), limit):
                    picture = sample.members.get(sample.image_extension)
                    if picture is None or picture.size > PEEK_IMAGE_BYTES:
                        continue
                    uid = read_record(reader, sample).get("uid", "")
                    uid_of_hex(uid)
                    found.append(Peeked(uid, reader.read(picture), _caption(reader, sample)))
        except BadInputError:
            continue
    return found


def _caption(reader: TarReader, sample: Sample) -> str:
    member = sample.members.get("txt")
    if member is None:
        return ""
    start = Member(member.name, member.offset, min(member.size, 4 * LONGEST_CAPTION))
    return reader.read(start).decode("utf-8", "replace")


def shown(pictures: Sequence[Peeked]) -> list[tuple[bytes, str]]:
    """Pictures small enough for a report, with captions cut short; the unreadable are left out."""
    small = [(thumbnail(p.image), p.text[:LONGEST_CAPTION]) for p in pictures]
    return [(image, text) for image, text in small if image]


def total(reasons: Sequence[str], done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all slices: rows, kept, dropped by reason, lost to corruption."""
    whole = [d for d in done if "corrupt" not in d]
    counts = np.sum([d["counts"] for d in whole] or [[0] * (len(reasons) + 1)], axis=0)
    return {
        "rows": int(counts.sum()),
        "kept": int(counts[0]),
        "listed": sum(d["listed"] for d in whole),
        "dropped": {reason: int(n) for reason, n in zip(reasons, counts[1:], strict=True)},
        "lost": sum(d["lost"] for d in done if "corrupt" in d),
        "corrupt": [d["corrupt"] for d in done if "corrupt" in d],
    }


def report(
    run: Run,
    chosen: Filter,
    stats: dict[str, Any],
    done: Sequence[dict[str, Any]],
    peek: Sequence[Peeked],
    pairs: dict[str, list[list[str]]],
) -> None:
    """Write report.html."""
    rows, kept = stats["rows"], stats["kept"]
    share = 100 * kept / rows if rows else 0.0
    page = Report(
        title="Filter",
        subtitle=f"{kept:,} of {rows:,} rows kept ({share:.2f} %). {_describe(chosen)}",
    )
    if stats["lost"]:
        page.warnings.append(
            f"{stats['lost']:,} rows were lost to unreadable row groups: "
            + "; ".join(stats["corrupt"])
        )
    page.table("Funnel", ("step", "dropped", "left", "left %"), _funnel_rows(stats))
    if stats["dropped"]:
        page.plot("Rows left after each rule", lambda axes: _draw(axes, stats))
    pictures = {p.uid: p for p in peek}
    verdicts = {u: v for d in done for u, v in d.get("peeked", {}).items()}
    for code, reason in enumerate(stats["dropped"], 1):
        seen = [pictures[u] for u, v in sorted(verdicts.items()) if v == code and u in pictures]
        if seen:
            page.thumbnails(
                f"Dropped: {reason}",
                shown(seen[:PICTURES_PER_REASON]),
                note=f"from the first {len(peek)} samples of the shards",
            )
        else:
            _table_of_examples(page, reason, done)
    for name, found in pairs.items():
        if found:
            _pairs(page, name, found, pictures)
    kept_seen = [pictures[u] for u, v in sorted(verdicts.items()) if v == 0 and u in pictures]
    if kept_seen:
        page.thumbnails("Kept", shown(kept_seen[:PICTURES_PER_REASON]))
    page.save(run.path(REPORT))


def _pairs(
    page: Report, name: str, found: Sequence[Sequence[str]], pictures: dict[str, Peeked]
) -> None:
    page.table(f"{name}: repeats", ("dropped", "first of its group"), found)
    seen = [pictures[uid] for pair in found for uid in pair if all(u in pictures for u in pair)]
    if seen:
        page.thumbnails(f"{name}: dropped, kept, dropped, kept ...", shown(seen))


def _table_of_examples(page: Report, reason: str, done: Sequence[dict[str, Any]]) -> None:
    found = sorted(e for d in done for e in d.get("examples", {}).get(reason, []))
    if found:
        page.table(f"Dropped: {reason}", ("uid", "row"), found[:PICTURES_PER_REASON])


def _describe(chosen: Filter) -> str:
    parts = getattr(chosen, "parts", (chosen,))
    words = []
    for part in parts:
        fields = {k: v for k, v in to_dict(part).items() if k != "type" and v not in (None, "")}
        values = ", ".join(f"{k}={v}" for k, v in fields.items())
        words.append(f"{type(part).__name__}({values})")
    return "Filter: " + " & ".join(words)


def _funnel_rows(stats: dict[str, Any]) -> list[list[Any]]:
    left = stats["rows"]
    rows: list[list[Any]] = [["pool", 0, left, 100.0]]
    for reason, count in stats["dropped"].items():
        left -= count
        rows.append([reason, count, left, 100 * left / stats["rows"] if stats["rows"] else 0.0])
    return rows


def _draw(axes: Any, stats: dict[str, Any]) -> None:
    rows = _funnel_rows(stats)
    axes.barh([r[0] for r in rows][::-1], [r[2] for r in rows][::-1])
    axes.set_xlabel("rows left")
