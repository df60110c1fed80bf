"""Filters against a plain implementation, and reshard against a copy of the kept bytes, in one run."""

import json
import shutil
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROWS = 1_000_000
RUNS = 3


def run(out, heading):
    sys.path.insert(0, str(Path(__file__).parents[1] / "pools"))
    from made_up import write_metadata, write_pool

    from gristmill.execution.session import Execution, session
    from gristmill.filters.basic import Basic
    from gristmill.filters.clip_score import ClipScore

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_metadata(out / "pool", ROWS, files=8, row_group=62_500, null=0, nan=0, repeat=0)
    write_pool(out / "shards", shards=8, per_shard=2500)
    lines = [heading("Pools: filters and reshard", "make bench").rstrip(), ""]
    lines += [
        f"{ROWS:,} rows of metadata; median of {RUNS} runs; Ray's start is not counted, nor the plain side's.",
        "",
    ]
    lines += ["| job | plain, rows/s | ours, rows/s | ratio |", "| --- | --- | --- | --- |"]
    with session(Execution()):
        for name, ours, plain in [
            ("clip_score, fraction 0.3", ClipScore(fraction=0.3), _plain_clip_score),
            ("basic", Basic(), _plain_basic),
        ]:
            _ours(out, ours, 0)  # warm
            mine, theirs = [], []
            for i in range(RUNS):  # in turns, so that the machine's moods fall on both
                mine.append(_ours(out, ours, i))
                theirs.append(_timed(lambda plain=plain: plain(out / "pool" / "metadata")))
            a, b = ROWS / statistics.median(theirs), ROWS / statistics.median(mine)
            lines.append(f"| {name} | {a:,.0f} | {b:,.0f} | {b / a:.2f} |")
        lines += ["", *_reshard(out)]
    return "\n".join(lines) + "\n"


def _timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def _ours(out, chosen, i):
    from gristmill.core.job import run_job
    from gristmill.pools.selection import FilterJob

    job = FilterJob(pool=str(out / "pool"), filter=chosen, out=str(out / f"f{i}"))
    return _timed(lambda: run_job(job, overwrite=True))


def _plain_clip_score(folder):
    """DataComp's way: all scores in one array for the cut, then a process a file, two at a time."""
    import numpy as np
    import pandas as pd

    files = sorted(folder.glob("*.parquet"))
    scores = pd.concat([pd.read_parquet(f, columns=["clip_l14_similarity_score"]) for f in files])
    values = scores["clip_l14_similarity_score"].to_numpy()
    cut = -np.sort(-values)[int(len(values) * 0.3)]
    with ProcessPoolExecutor(2) as pool:
        return np.sort(np.concatenate(list(pool.map(_score_file, files, [cut] * len(files)))))


def _score_file(file, cut):
    import numpy as np
    import pandas as pd

    table = pd.read_parquet(file, columns=["uid", "clip_l14_similarity_score"])
    kept = table[table["clip_l14_similarity_score"] >= cut]["uid"]
    return np.array([(int(u[:16], 16), int(u[16:], 16)) for u in kept], np.dtype("u8,u8"))


def _plain_basic(folder):
    """A process a file, two at a time; one language call a row, as the reference."""
    import numpy as np

    with ProcessPoolExecutor(2) as pool:
        return np.sort(
            np.concatenate(list(pool.map(_basic_file, sorted(folder.glob("*.parquet")))))
        )


def _basic_file(file):
    import numpy as np
    import pandas as pd
    from reference import Language

    table = pd.read_parquet(file, columns=["uid", "text", "original_width", "original_height"])
    model = Language()
    language = table["text"].apply(model.of)
    words = table["text"].apply(lambda t: len(t.split()))
    characters = table["text"].apply(len)
    small = np.minimum(table["original_width"], table["original_height"])
    large = np.maximum(table["original_width"], table["original_height"])
    keep = (
        (language == "en") & (words > 2) & (characters > 5) & (small >= 200) & (large / small <= 3)
    )
    return np.array(
        [(int(u[:16], 16), int(u[16:], 16)) for u in table["uid"][keep]], np.dtype("u8,u8")
    )


def _reshard(out):
    from gristmill.core.job import run_job
    from gristmill.filters.clip_score import ClipScore
    from gristmill.pools.reshard import ReshardJob
    from gristmill.pools.selection import FilterJob

    pool = str(out / "shards")
    run_job(FilterJob(pool=pool, filter=ClipScore(threshold=0.5), out=str(out / "half")))
    ours, copies = [], []
    for i in range(RUNS):
        job = ReshardJob(
            pool=pool, subset=str(out / "half" / "subset.npy"), shard_size=2500, out=str(out / "r")
        )
        ours.append(_timed(lambda job=job: run_job(job, overwrite=True)))
        kept = sorted((out / "r" / "shards").glob("*.tar"))
        size = sum(f.stat().st_size for f in kept)
        copies.append(
            _timed(lambda kept=kept, i=i: [shutil.copy(f, out / f"copy{i}") for f in kept])
        )
    done = json.loads((out / "r" / "DONE").read_text())["summary"]
    a, b = statistics.median(ours), statistics.median(copies)
    return [
        f"Reshard: {done['samples']:,} of 20,000 small pairs (1.5 kB pictures), {size / 1e6:.0f} MB kept, {a:.2f} s; "
        f"a copy of the kept bytes takes {b:.2f} s (ratio {b / a:.2f}; from cache, fixed costs included).",
    ]
