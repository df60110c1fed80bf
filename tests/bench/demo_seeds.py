"""Three training seeds on the embedded pool: does the clip-score subset beat no filtering?

Beyond the seeds' spread means: the worst seed with the filter is better than the best without.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time

SEEDS = (0, 1, 2)
NAMES = {"demo_drawings": "class recall", "demo_retrieval": "recall@10", "average": "average"}


def run(out, heading):
    shutil.rmtree(out, ignore_errors=True)
    table, seconds, kept = {}, [], {}
    for seed in SEEDS:
        start = time.monotonic()
        words = ["demo", "--seed", str(seed), "--out", str(out / str(seed))]
        subprocess.run([sys.executable, "-m", "gristmill", *words], check=True)
        seconds.append(time.monotonic() - start)
        for name in ("no_filter", "basic", "clip_score"):
            done = json.loads((out / str(seed) / name / "evaluate" / "DONE").read_text())["summary"]
            table.setdefault(name, []).append([done[m] for m in NAMES])
            filtered = json.loads((out / str(seed) / name / "filter" / "DONE").read_text())[
                "summary"
            ]
            kept.setdefault(name, []).append(filtered["kept"])
    lines = [heading("Demo: three filters, three training seeds", "make bench").rstrip(), ""]
    lines.append(
        "Each cell: seeds "
        + ", ".join(map(str, SEEDS))
        + "; then mean and range (largest less smallest)."
    )
    lines += [
        "",
        "| filter | rows kept | " + " | ".join(NAMES.values()) + " |",
        "| --- | --- |" + " --- |" * len(NAMES),
    ]
    for name, rows in table.items():
        cells = [_cell([r[i] for r in rows]) for i in range(len(NAMES))]
        lines.append(
            f"| {name} | {', '.join(f'{k:,}' for k in kept[name])} | " + " | ".join(cells) + " |"
        )
    lines += ["", "Clip score against no filter, seed by seed, and against the spread:", ""]
    for i, label in enumerate(NAMES.values()):
        lines.append(
            "- "
            + _verdict(
                label, [r[i] for r in table["no_filter"]], [r[i] for r in table["clip_score"]]
            )
        )
    lines += [
        "",
        f"Wall time of a demo on this machine: {', '.join(f'{s:.0f}' for s in seconds)} s.",
        "",
    ]
    return "\n".join(lines)


def _cell(values):
    shown = ", ".join(f"{v:.3f}" for v in values)
    return f"{shown}; {statistics.mean(values):.3f} ± {max(values) - min(values):.3f}"


def _verdict(label, none, clip):
    gaps = [c - n for c, n in zip(clip, none, strict=True)]
    holds = "beyond" if min(clip) > max(none) else "within"
    shown = ", ".join(f"{g:+.3f}" for g in gaps)
    return (
        f"{label}: worst clip score {min(clip):.3f}, best no filter {max(none):.3f}: {holds} the seeds' spread. "
        f"Gap at the same seed: {shown}; mean {statistics.mean(gaps):+.3f}, range {max(gaps) - min(gaps):.3f}."
    )
