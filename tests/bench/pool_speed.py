"""Filters against a plain implementation on five million rows, in turns, in one run."""

import shutil
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROWS = 5_000_000
RUNS = 3
SLOW_ROWS = 40_000
"""Rows that the plain text_based gets, in two files; it takes a fixed and long time a row."""
HERE = Path(__file__).parent


def run(out, heading):
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "filters")]
    import big_pool
    import plain_filters
    from nltk_wordnet import debian_folder

    from gristmill.execution.session import Execution, session
    from gristmill.filters.basic import Basic
    from gristmill.filters.clip_score import ClipScore
    from gristmill.filters.text_based import TextBased

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    big_pool.write(out / "pool", ROWS)
    wordnet = debian_folder(out)
    files = sorted((out / "pool" / "metadata").glob("*.parquet"))
    few = [_head(file, out / file.name) for file in files[:2]]
    start = time.monotonic()
    with (
        session(Execution()),
        ProcessPoolExecutor(2, initializer=plain_filters.warm) as processes,
    ):
        ray_start = time.monotonic() - start
        start = time.monotonic()
        list(processes.map(plain_filters.ready, range(2)))
        plain_start = time.monotonic() - start

        def plain(rule, files, *more):
            return lambda: plain_filters.filtered(processes, rule, files, *more)

        rows = _compared(
            out, ClipScore(fraction=0.3), {"clip_score, fraction 0.3": plain("clip", files)}, RUNS
        )
        rows += _compared(out, Basic(), {"basic": plain("basic", files)}, RUNS)
        if wordnet:
            offsets = plain_filters.offsets()
            rules = {
                f"text_based, against a {words}": plain("text", few, str(wordnet), kind(offsets))
                for words, kind in (("list, as the reference", list), ("set", set))
            }
            rows += _compared(out, TextBased(), rules, 1, SLOW_ROWS)
    lines = [heading("Pools: filters", "make bench").rstrip(), ""]
    lines += [
        f"{ROWS:,} rows of metadata in {len(files)} files (shares like DataComp's: tests/bench/"
        "big_pool.py). The plain side takes a file a process, two at a time, in pandas, with one "
        f"language call a row (tests/bench/plain_filters.py); medians of {RUNS} runs in turns. Not "
        f"counted: Ray's start on our side ({ray_start:.1f} s), processes and imports on theirs "
        f"({plain_start:.1f} s). The plain text_based takes minutes, so it runs once on the first "
        f"{SLOW_ROWS:,} rows; with the reference's list of 21,841 offsets, and with a set.",
        "",
        "| job | plain, rows/s | ours, rows/s | ratio |",
        "| --- | --- | --- | --- |",
        *rows,
    ]
    if not wordnet:
        lines += ["", "text_based was left out: Debian's wordnet-base cannot be had here."]
    shutil.rmtree(out)
    return "\n".join(lines) + "\n"


def _head(file, target):
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(file).slice(0, SLOW_ROWS // 2), target)
    return target


def _compared(out, chosen, rules, plain_runs, plain_rows=ROWS):
    """Lines of the table: one filter of ours against plain rules, in turns."""
    _ours(out, chosen)  # warm
    mine, theirs = [], {name: [] for name in rules}
    for i in range(RUNS):  # in turns, so that the machine's moods fall on both
        mine.append(_timed(lambda: _ours(out, chosen)))
        if i < plain_runs:
            for name, rule in rules.items():
                theirs[name].append(_timed(rule))
        print(type(chosen).__name__, mine, theirs, flush=True)
    b = ROWS / statistics.median(mine)
    plain = {name: plain_rows / statistics.median(times) for name, times in theirs.items()}
    return [f"| {name} | {a:,.0f} | {b:,.0f} | {b / a:.2f} |" for name, a in plain.items()]


def _timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def _ours(out, chosen):
    from gristmill.core.job import run_job
    from gristmill.pools.selection import FilterJob

    job = FilterJob(pool=str(out / "pool"), filter=chosen, out=str(out / "f"))
    run_job(job, overwrite=True)
