"""Metadata of any size whose shares look like DataComp's: what cheap rules and `basic` keep.

At DataComp's `small`, basic keeps 3M of 12.8M rows (arXiv:2304.14108, table 3). Here about half the
captions are English, a fifth are too short, two fifths of the pictures too small or too long.
"""

import json
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROWS_PER_FILE = 250_000
ROW_GROUP = 62_500
GLUE = [
    "the",
    "a",
    "of",
    "in",
    "with",
    "on",
    "for",
    "and",
    "by",
    "from",
    "at",
    "new",
    "old",
    "best",
    "how",
    "to",
    "your",
]
SIZES = [(150, 150), (120, 90), (100, 140), (180, 240), (728, 90), (960, 240)] * 2 + [
    *[(300, 200), (640, 480), (1024, 768), (500, 500), (236, 354), (800, 600), (1200, 800)] * 2,
    *[(225, 225), (450, 600), (1920, 1080), (275, 183), (400, 400)],
]


def write(folder, rows, seed=0):
    """Write `rows` rows in files of ROWS_PER_FILE, two processes at a time."""
    target = Path(folder) / "metadata"
    target.mkdir(parents=True)
    files = range(-(-rows // ROWS_PER_FILE))
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(_file, str(target), i, rows, seed) for i in files]
        for job in jobs:
            job.result()


def _vocabulary():
    import gristmill.demo
    import gristmill.filters

    home = Path(next(iter(gristmill.filters.__path__)))
    import pyarrow.parquet as pq

    words = pq.read_table(home / "wordnet_words.parquet", columns=["word"])["word"].to_pylist()
    foreign = json.loads((Path(next(iter(gristmill.demo.__path__))) / "foreign.json").read_text())
    return [w for w in words if 3 <= len(w) <= 9 and w.isalpha()], foreign


def _captions(rng, count):
    words, foreign = _vocabulary()
    common = rng.sample(words, 4000)
    templates = [t for group in foreign["templates"].values() for t in group]
    found = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.50:  # English, 4 to 15 words
            pairs = ((rng.choice(GLUE), rng.choice(common)) for _ in range(rng.randint(2, 7)))
            found.append(" ".join(w for pair in pairs for w in pair))
        elif kind < 0.81:
            found.append(rng.choice(templates).format(noun=rng.choice(words)))
        elif kind < 0.91:
            found.append(f"IMG_{rng.randrange(10**5)}.jpg")
        else:
            found.append(f"{rng.choice(words)} {rng.randrange(999)}")
    return found


def _file(target, number, rows, seed):
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = min(ROWS_PER_FILE, rows - number * ROWS_PER_FILE)
    rng = np.random.default_rng([seed, number])
    digits = rng.bytes(16 * count).hex()
    size = np.array(SIZES)[rng.integers(0, len(SIZES), count)]
    table = pa.table(
        {
            "uid": [digits[i : i + 32] for i in range(0, 32 * count, 32)],
            "url": [f"http://example.invalid/{number}/{i}" for i in range(count)],
            "text": _captions(random.Random(f"{seed}-{number}"), count),
            "original_width": size[:, 0],
            "original_height": size[:, 1],
            "clip_b32_similarity_score": rng.normal(0.25, 0.05, count),
            "clip_l14_similarity_score": rng.normal(0.20, 0.05, count),
        }
    )
    pq.write_table(table, f"{target}/{number:05d}.parquet", row_group_size=ROW_GROUP)
