"""The demo's table and its report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.core.report import Report
from gristmill.pools.subset import Subset
from gristmill.pools.uid import make_uids

SHOWN = ("demo_drawings", "demo_retrieval")


def metrics_of(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tasks' names among an evaluation's figures, in order."""
    first = next(iter(results.values()))
    return [name for name in first if name.startswith("demo")] + ["average"]


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The result as lines for a terminal."""
    names = metrics_of(results)
    width = max(len(name) for name in results) + 2
    lines = [f"{'filter':<{width}}{'kept':>8}" + "".join(f"{n:>24}" for n in names)]
    for name, row in results.items():
        cells = "".join(f"{row[n]:>24.4f}" for n in names)
        lines.append(f"{name:<{width}}{row['kept']:>8,}{cells}")
    return "\n".join(lines)


def kept_by_kind(truth: str, subsets: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Rows of each kind in the pool and in each subset."""
    import pyarrow.parquet as pq

    rows = pq.read_table(truth, columns=["uid", "kind"]).to_pydict()
    uids = make_uids(rows["uid"])
    found = {"pool": dict(Counter(rows["kind"]))}
    for name, uri in subsets.items():
        inside = Subset.load(uri).counts(uids) > 0
        kinds = np.array(rows["kind"], dtype=object)[inside]
        found[name] = dict(Counter(kinds.tolist()))
    return found


def start(tracks: Sequence[str]) -> Report:
    """An empty page."""
    what = {
        "clip": "One noisy pool of public-domain drawings, three filters, one training recipe at "
        "equal samples seen, held-out drawings to test on.",
        "mix": "Text domains of the installed packages, small models on many mixtures of them, "
        "and the mixture that a fit of their losses proposes.",
    }
    return Report(title="Gristmill demo", subtitle=" ".join(what[track] for track in tracks))


def write(
    page: Report,
    results: Mapping[str, Mapping[str, Any]],
    kinds: Mapping[str, Mapping[str, int]],
    best: str,
) -> None:
    """The CLIP track's part."""
    names = metrics_of(results)
    rows = [[name, r["kept"], *(float(r[n]) for n in names)] for name, r in results.items()]
    page.table("Filters", ("filter", "rows kept", *names), rows, note=f"best average: {best}")
    page.plot("Scores", lambda axes: _bars(axes, results, names))
    order = list(kinds["pool"])
    page.table(
        "What each filter kept, by the truth that no filter sees",
        ("kind", *kinds),
        [[kind, *(kinds[name].get(kind, 0) for name in kinds)] for kind in order],
    )
    links = {"the pool": "inspect/report.html", "the scores": "scored/report.html"}
    for name in results:
        for part in ("filter", "reshard", "train", "evaluate"):
            links[f"{name}: {part}"] = f"{name}/{part}/report.html"
    links["the bundle's check"] = "verified/report.html"
    page.links("Every step's own report: the CLIP track", links)


def _bars(axes: Any, results: Mapping[str, Mapping[str, Any]], names: list[str]) -> None:
    place = np.arange(len(names))
    width = 0.8 / len(results)
    for i, (name, row) in enumerate(results.items()):
        axes.bar(place + i * width, [float(row[n]) for n in names], width, label=name)
    axes.set_xticks(place + 0.4 - width / 2, names)
    axes.legend(frameon=False)
