"""image_based against its rules row by row; centroids found exactly, whatever the batch or engine."""

import dataclasses
import functools

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from made_up import made_features, write_metadata
from plain_facts import PlainFacts

from gristmill.core import arrays
from gristmill.core.errors import BadInputError
from gristmill.filters import _nearest
from gristmill.filters._caption_rule import judge_captions
from gristmill.filters._language import model_path
from gristmill.filters._nearest import Nearest
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.image_based import ImageBased
from gristmill.filters.image_based_intersect_clip_score import ImageBasedIntersectClipScore

ROWS = 4000


def tokens(text):
    """fastText's readWord, character by character."""
    found, word = [], ""
    for character in text:
        if character in " \n\r\t\v\f\0":
            if word:
                found.append(word)
            word = ""
            if character == "\n":
                found.append("</s>")
        else:
            word += character
    return found + ([word] if word else [])


@functools.cache
def model():
    return fasttext.load_model(model_path())


def english(text):
    labels = model().predict(text.replace("\n", " "))[0]
    return bool(labels) and labels[0] == "__label__en"


def plain(row, features, centroids, on_target):
    text = row["text"]
    if text is None or len(tokens(text)) <= 1 or len(text) <= 5 or not english(text):
        return False
    scores = [float(np.dot(c.astype(np.float64), features.astype(np.float64))) for c in centroids]
    return scores.index(max(scores)) in on_target


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table with features, centroids, and targets that fall on some of them."""
    folder = tmp_path_factory.mktemp("made")
    table = write_metadata(folder, ROWS)
    features = made_features(ROWS)
    centroids = made_features(30, seed=5, dtype=np.float32)
    np.save(folder / "centroids.npy", centroids)
    targets = made_features(12, seed=6)
    np.save(folder / "targets.npy", targets)
    nearest = (targets.astype(np.float64) @ centroids.astype(np.float64).T).argmax(1)
    table = table.append_column("l14_img", arrays.to_column(features))
    return folder, table, features, centroids, set(nearest.tolist())


def fitted(chosen, table):
    chosen = chosen.fit(PlainFacts(table))
    chosen.setup()
    return chosen


def test_equals_the_plain_rules(made):
    folder, table, features, centroids, on_target = made
    chosen = ImageBased(centroids=str(folder), targets=str(folder / "targets.npy"))
    verdict = fitted(chosen, table).judge(table)
    want = [
        plain(row, feature, centroids, on_target)
        for row, feature in zip(table.select(["text"]).to_pylist(), features, strict=True)
    ]
    assert (verdict == 0).tolist() == want
    assert 0.05 < np.mean(want) < 0.5
    assert set(np.unique(verdict)) == {0, 1, 2, 3, 4, 6}


def test_with_clip_score_the_cut_is_of_the_whole_pool(made):
    folder, table, *_ = made
    paths = {"centroids": str(folder / "centroids.npy"), "targets": str(folder / "targets.npy")}
    both = fitted(ImageBasedIntersectClipScore(fraction=0.3, **paths), table).judge(table)
    score = fitted(ClipScore(fraction=0.3), table).judge(table)
    image = fitted(ImageBased(**paths), table).judge(table)
    assert np.array_equal(both == 0, (score == 0) & (image == 0)) and (both == 0).any()
    with pytest.raises(BadInputError, match="either --fraction or --threshold"):
        ImageBasedIntersectClipScore(**paths)


@pytest.mark.parametrize("kind", ["npz", "pool", "ids"])
def test_targets_of_any_kind_are_the_same(made, tmp_path, kind):
    folder, table, _, _, on_target = made
    targets = np.load(folder / "targets.npy", allow_pickle=False)
    given = tmp_path / "t.npz"
    np.savez(given, l14_img=targets, l14_txt=targets[::-1])
    if kind == "pool":
        given = tmp_path / "p"
        write_metadata(given, 12, files=3)
        for i in range(3):
            np.savez(given / "metadata" / f"{i:04d}.npz", l14_img=targets[4 * i : 4 * i + 4])
    if kind == "ids":
        given = tmp_path / "ids.npy"
        np.save(given, np.array(sorted(on_target)))
    want = ImageBased(centroids=str(folder), targets=str(folder / "targets.npy"))
    got = dataclasses.replace(want, targets=str(given))
    assert fitted(got, table).hit == fitted(want, table).hit
    assert set(got.inputs()) == {"centroids", "targets", "language_model"}


def test_rows_without_features_are_dropped_for_that(made):
    folder, table, features, *_ = made
    broken = features[:40].copy()
    broken[7, 3], broken[9, 0] = np.nan, np.inf
    text = ["a photo of a brown dog running through the park"] * 40
    column = pa.chunked_array([arrays.to_column(broken)]).take(
        pa.array([None if i == 11 else i for i in range(40)])
    )
    batch = pa.table({"text": text, "l14_img": column})
    chosen = ImageBased(centroids=str(folder), targets=str(folder / "targets.npy"))
    assert np.flatnonzero(fitted(chosen, table).judge(batch) == 5).tolist() == [7, 9, 11]


def test_fasttext_tokens():
    words = [
        "",
        "one",
        "one\n",
        "\n\n",
        " a\tb ",
        "a\u00a0b",
        "a\x0bb",
        "a\0b",
        "a\u3000b",
        None,
        "x\r\ny",
    ]
    verdict = judge_captions(pa.chunked_array([words]), characters_above=-1)
    few = [w is not None and len(tokens(w)) <= 1 for w in words]
    assert (verdict == 2).tolist() == few
    assert few[2] is False and few[5] is True  # a newline is a token, a no-break space no divider


@pytest.mark.parametrize("engine", ["numpy", "faiss"])
def test_near_ties_are_settled_by_exact_products(engine):
    """Centroids that float32 cannot tell apart: the same answer as in float64, alone or in a batch."""
    if engine == "faiss":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centroids = np.repeat(rng.normal(size=(40, 700)), 25, axis=0)
    centroids = (centroids + 1e-7 * rng.normal(size=centroids.shape)).astype(np.float32)
    centroids[500:525] = centroids[500]  # and equal ones
    rows = (centroids[rng.integers(0, 1000, 300)] + rng.normal(size=(300, 700))).astype(np.float16)
    want = (rows.astype(np.longdouble) @ centroids.T.astype(np.longdouble)).argmax(axis=1)
    nearest = Nearest(centroids, engine=engine)
    assert np.array_equal(nearest.find(rows), want)
    assert [int(nearest.find(rows[i : i + 1])[0]) for i in range(50)] == want[:50].tolist()
    assert 500 in want


def test_blocks_change_nothing(monkeypatch):
    centroids, rows = made_features(300, seed=1, dtype=np.float32), made_features(500, seed=2)
    rows[5] = 0
    want = Nearest(centroids).find(rows)
    monkeypatch.setattr(_nearest, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(_nearest, "REFERENCES_AT_ONCE", 11)
    monkeypatch.setattr(_nearest, "PAIRS_AT_ONCE", 3)
    assert np.array_equal(Nearest(centroids).find(rows), want)
    assert want[5] == 0


def test_bad_inputs_are_said(made, tmp_path):
    folder, table, *_ = made
    good = {"centroids": str(folder), "targets": str(folder / "targets.npy")}
    with pytest.raises(BadInputError, match="needs --centroids"):
        ImageBased().inputs()
    with pytest.raises(BadInputError, match="call fit first"):
        ImageBased(**good).judge(table)
    np.save(tmp_path / "t.npy", made_features(3, size=8))
    with pytest.raises(BadInputError, match="8 numbers a row and the references 16"):
        fitted(ImageBased(centroids=str(folder), targets=str(tmp_path / "t.npy")), table)
    np.save(tmp_path / "ids.npy", np.array([0, 30]))
    with pytest.raises(BadInputError, match="from 0 to 30; there are 30"):
        fitted(ImageBased(centroids=str(folder), targets=str(tmp_path / "ids.npy")), table)
    with pytest.raises(BadInputError, match="no features at"):
        fitted(ImageBased(centroids=str(folder), targets=str(tmp_path)), table)
    (tmp_path / "config.json").write_text('{"hash": "x"}')
    with pytest.raises(BadInputError, match="is not finished"):
        ImageBased(centroids=str(tmp_path), targets=good["targets"]).inputs()


def test_changed_centroids_are_refused(made, tmp_path):
    folder, table, _, centroids, _ = made
    np.save(tmp_path / "c.npy", centroids)
    chosen = ImageBased(centroids=str(tmp_path / "c.npy"), targets=str(folder / "targets.npy"))
    chosen = chosen.fit(PlainFacts(table))
    np.save(tmp_path / "c.npy", centroids[::-1])
    from gristmill.filters import _centroids

    _centroids.load.cache_clear()
    with pytest.raises(BadInputError, match="changed since this run began"):
        chosen.setup()
