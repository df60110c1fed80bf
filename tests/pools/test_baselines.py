"""`gristmill pool filter BASELINE` gives the uids of DataComp's rules, byte for byte, on 200,000 rows.

The rules are written down row by row below and in reference.py. Captions are in several languages,
scores have ties at the cut, NaN and null, uids repeat.
"""

import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference
from made_up import made_features, write_features, write_metadata

from gristmill.recipes.commands import main

sys.path.insert(0, str(Path(__file__).parents[1] / "filters"))
import nltk_wordnet

pytestmark = pytest.mark.ray
ROWS, FILES, ROW_GROUP = 200_000, 5, 9_000
FRACTION = 0.3


class Pool:
    """The pool's rows, and what the plain rules need to know of each."""

    def __init__(self, folder):
        self.folder = folder
        table = write_metadata(folder, ROWS, files=FILES, row_group=ROW_GROUP)
        self.is_entity = nltk_wordnet.expected()
        texts = list(captions(list(self.is_entity), ROWS))
        texts = [
            None if old is None else new
            for old, new in zip(table["text"].to_pylist(), texts, strict=True)
        ]
        table = table.set_column(table.column_names.index("text"), "text", pa.array(texts))
        first = 0
        for path in sorted((folder / "metadata").glob("*.parquet")):
            count = pq.read_metadata(path).num_rows
            pq.write_table(table.slice(first, count), path, row_group_size=ROW_GROUP)
            first += count
        self.features = write_features(folder)["l14_img"]
        self.rows = table.to_pylist()
        language, known = reference.Language(), {}
        for text in texts:
            if text is not None and text not in known:
                known[text] = language.of(text)
        self.english = [text is not None and known[text] == "en" for text in texts]
        self.centroids = made_features(40, seed=5, dtype=np.float32)
        np.save(folder / "centroids.npy", self.centroids)
        targets = made_features(15, seed=6)
        np.save(folder / "targets.npy", targets)
        self.on_target = {self.nearest(target) for target in targets}

    def nearest(self, feature):
        return int(np.argmax(self.centroids.astype(np.float64) @ feature.astype(np.float64)))


def captions(words, count):
    """A frame in one of three languages with words of the table in it, or only a few of these."""
    rng = random.Random(7)
    for _ in range(count):
        chosen = [rng.choice(words) for _ in range(rng.randint(0, 3))]
        if rng.random() < 0.8:
            frame = rng.choice(nltk_wordnet.FRAMES).split()
            cut = rng.randint(0, len(frame))
            chosen = frame[:cut] + chosen + frame[cut:]
        yield rng.choice((" ", " ", " ", "\n", "  ")).join(chosen)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return Pool(tmp_path_factory.mktemp("baselines"))


def cut(pool, column="clip_l14_similarity_score"):
    return reference.threshold([row[column] for row in pool.rows], FRACTION)


def enough(row, threshold, column="clip_l14_similarity_score"):
    return row[column] is not None and row[column] >= threshold


def basic(pool, i):
    row = pool.rows[i]
    small = min(row["original_width"], row["original_height"])
    large = max(row["original_width"], row["original_height"])
    text = row["text"]
    return (
        pool.english[i]
        and len(text.split()) > 2
        and len(text) > 5
        and small >= 200
        and large / small <= 3
    )


def text_based(pool, i):
    return pool.english[i] and any(pool.is_entity[w] for w in pool.rows[i]["text"].split())


def image_based(pool, i):
    text = pool.rows[i]["text"]
    if not pool.english[i] or len(text) <= 5 or fasttext_tokens(text) <= 1:
        return False
    return pool.nearest(pool.features[i]) in pool.on_target


def fasttext_tokens(text):
    words = text.replace("\n", " </s> ")
    for space in "\r\t\v\f\0":
        words = words.replace(space, " ")
    return len([word for word in words.split(" ") if word])


def clip(pool):
    threshold = cut(pool)
    return lambda i: enough(pool.rows[i], threshold)


def both(pool):
    score = clip(pool)
    return lambda i: score(i) and image_based(pool, i)


IMAGES = ["--centroids", "{folder}/centroids.npy", "--targets", "{folder}/targets.npy"]
BASELINES = {
    "no_filter": ([], lambda pool: lambda i: True),
    "basic": ([], lambda pool: lambda i: basic(pool, i)),
    "clip_score": (["--fraction", str(FRACTION)], clip),
    "clip_l14_top30": ([], clip),
    "laion2b": (
        ["--detector", "fasttext"],
        lambda pool: lambda i: (
            pool.english[i] and enough(pool.rows[i], 0.28, "clip_b32_similarity_score")
        ),
    ),
    "text_based": ([], lambda pool: lambda i: text_based(pool, i)),
    "image_based": (IMAGES, lambda pool: lambda i: image_based(pool, i)),
    "image_based_intersect_clip_score": ([*IMAGES, "--fraction", str(FRACTION)], both),
}


@pytest.mark.parametrize("name", BASELINES)
def test_equals_the_plain_rules(pool, tmp_path, name):
    words, rule = BASELINES[name]
    keep = rule(pool)
    want = [row["uid"] for i, row in enumerate(pool.rows) if keep(i)]
    words = [word.format(folder=pool.folder) for word in words]
    paths = ["--pool", str(pool.folder), "--out", str(tmp_path / "o")]
    assert main(["pool", "filter", name, *words, *paths]) == 0
    assert (tmp_path / "o" / "subset.npy").read_bytes() == reference.subset_bytes(want)
    assert name == "no_filter" or 1000 < len(want) < 0.9 * ROWS


def test_every_baseline_is_held_against_its_rule():
    from gristmill.core.cli import recipes_of

    assert set(BASELINES) | {"fineweb"} == set(recipes_of("gristmill.recipes.filter"))


def test_laion2b_as_datacomp_has_it(pool, tmp_path):
    gcld3 = pytest.importorskip("gcld3")
    detector = gcld3.NNetLanguageIdentifier(0, 1000)

    def keep(row):
        text = row["text"]
        return (
            enough(row, 0.28, "clip_b32_similarity_score")
            and text is not None
            and detector.FindLanguage(text.replace("\n", " ")).language == "en"
        )

    want = [row["uid"] for row in pool.rows if keep(row)]
    paths = ["--pool", str(pool.folder), "--out", str(tmp_path / "o")]
    assert main(["pool", "filter", "laion2b", *paths]) == 0
    assert (tmp_path / "o" / "subset.npy").read_bytes() == reference.subset_bytes(want)
