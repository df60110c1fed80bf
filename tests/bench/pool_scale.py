"""How the filter job grows: seconds by stage and peak memory over rows, rows/s over workers."""

import logging
import re
import shutil
import statistics
import sys
import time
from pathlib import Path

ROWS = (500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000)
MEMORY_ROWS = (2_000_000, 20_000_000)
WORKERS = (1, 2, 3, 4)
TARGET_ROWS = 12.8e9


def run(out, heading):
    import big_pool

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    big_pool.write(out / "all", max(ROWS))
    for rows in ROWS:  # the first files of the largest pool, linked
        target = out / f"p{rows}" / "metadata"
        target.mkdir(parents=True)
        for number in range(rows // big_pool.ROWS_PER_FILE):
            name = f"{number:05d}.parquet"
            (target / name).hardlink_to(out / "all" / "metadata" / name)
    lines = [heading("Pools: how the filter job grows", "make bench").rstrip(), ""]
    lines += [*_stages(out), "", *_memory(out), "", *_nodes(out)]
    shutil.rmtree(out)
    return "\n".join(lines) + "\n"


def _filter(pool, chosen, out, workers=0):
    """Seconds of the whole job and of each stage, by title."""
    from gristmill.core.job import run_job
    from gristmill.execution.session import Execution
    from gristmill.pools.selection import FilterJob

    stages = {}

    class Listen(logging.Handler):
        def emit(self, record):
            message = record.getMessage()
            if found := re.match(r"(.+): [\d,]+ \w+ in ", message):
                now = time.monotonic()
                name = found[1]
                while name in stages:
                    name += "'"
                stages[name] = now

    handler, logger = Listen(), logging.getLogger("gristmill")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    start = time.monotonic()
    job = FilterJob(
        pool=str(pool), filter=chosen, out=str(out), execution=Execution(workers=workers)
    )
    run_job(job, overwrite=True)
    end = time.monotonic()
    logger.removeHandler(handler)
    spent, before = {}, start
    for name, at in stages.items():
        spent[name], before = at - before, at
    return end - start, {**spent, "report and the rest": end - before}


def _stages(out):
    from gristmill.execution.session import Execution, session
    from gristmill.filters.clip_score import ClipScore

    table = {}
    with session(Execution()):
        _filter(out / f"p{ROWS[0]}", ClipScore(fraction=0.3), out / "f")  # warm
        for rows in ROWS:
            runs = [_filter(out / f"p{rows}", ClipScore(fraction=0.3), out / "f") for _ in range(3)]
            names = list(runs[-1][1])
            table[rows] = (
                statistics.median(r[0] for r in runs),
                {n: statistics.median(r[1].get(n, 0.0) for r in runs) for n in names},
            )
    names = list(dict.fromkeys(n for _, stages in table.values() for n in stages))
    lines = [
        "## Seconds by stage over rows (clip_score, fraction 0.3; Ray's start not counted)",
        "",
        "| rows | whole job | rows/s | " + " | ".join(names) + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in names) + " |",
    ]
    for rows, (whole, stages) in table.items():
        cells = " | ".join(f"{stages.get(n, 0):.2f}" for n in names)
        lines.append(f"| {rows:,} | {whole:.2f} | {rows / whole:,.0f} | {cells} |")
    a, b = ROWS[-2], ROWS[-1]
    slope = (table[b][0] - table[a][0]) / (b - a)
    lines += [
        "",
        f"From {a:,} to {b:,} rows the time grows by {slope * 1e9:.0f} ns a row on two cores: by the "
        f"same slope 12.8 billion rows take {slope * TARGET_ROWS / 3600 * 2:.1f} core-hours, reading "
        "from a local disk's cache. What does not grow by rows alone: a slice leaves one marker and a "
        "part cut into key ranges, so ranged reads number slices times ranges. Slices grow to four "
        "million rows, so at 12.8 billion rows there are some 3,200 slices and 3,100 ranges, ten "
        "million reads of some 6 kB where 30 % are kept: minutes on local storage, a few dollars of "
        "requests on object storage.",
    ]
    return lines


def _memory(out):
    from memory import peak_of

    lines = [
        "## Peak memory of all processes (proportional set size, Ray's own included)",
        "",
        "| filter | " + " | ".join(f"{r:,} rows" for r in MEMORY_ROWS) + " | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for words in (
        ["clip_score", "--fraction", "0.3"],
        ["basic & clip_score(fraction=0.3)"],
        ["exact_duplicates(column=url)"],
    ):
        peaks = []
        for rows in MEMORY_ROWS:
            command = [sys.executable, "-m", "gristmill", "pool", "filter", *words, "--overwrite"]
            command += ["--pool", str(out / f"p{rows}"), "--out", str(out / "m")]
            peaks.append(peak_of(command)[0])
        cells = " | ".join(f"{p:,.0f} MB" for p in peaks)
        lines.append(f"| {' '.join(words)} | {cells} | {peaks[1] / peaks[0]:.2f} |")
    return lines


def _nodes(out):
    """Rows a second on two Ray nodes of two CPUs each, all on this machine's two cores."""
    import os

    import ray
    from ray.cluster_utils import Cluster

    from gristmill.execution.session import source_root
    from gristmill.filters.basic import Basic
    from gristmill.filters.clip_score import ClipScore

    os.environ["PYTHONPATH"] = source_root()
    node = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    pool, rows = out / "p2000000", 2_000_000
    lines = [
        "## Rows a second by workers, two nodes of two Ray CPUs on one machine of two cores",
        "",
        "| workers | clip_score, fraction 0.3 | basic |",
        "| --- | --- | --- |",
    ]
    _filter(pool, ClipScore(fraction=0.3), out / "f")  # warm
    for workers in WORKERS:
        cells = []
        for chosen in (ClipScore(fraction=0.3), Basic()):
            seconds = statistics.median(
                _filter(pool, chosen, out / "f", workers)[0] for _ in range(3)
            )
            cells.append(f"{rows / seconds:,.0f}")
        lines.append(f"| {workers} | {' | '.join(cells)} |")
    ray.shutdown()
    cluster.shutdown()
    return [*lines, "", "Two cores bound it: a third and fourth worker share them."]


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), lambda title, command: f"# {title}"))
