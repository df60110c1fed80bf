"""decontaminate against plain comparisons of every pair."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_features, write_metadata

from gristmill.core import arrays
from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.filters import _hamming, decontaminate
from gristmill.filters._hamming import HammingIndex
from gristmill.filters.decontaminate import Decontaminate
from gristmill.pools.selection import FilterJob


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture
def images(tmp_path):
    """An evaluation pool with uids, and rows of which some are copies with noise."""
    rng = np.random.default_rng(1)
    table = write_metadata(tmp_path / "e", 60, files=2, repeat=0)
    evaluation = made_features(60, seed=3)
    for i in range(2):
        np.savez(
            tmp_path / "e" / "metadata" / f"{i:04d}.npz", l14_img=evaluation[30 * i : 30 * i + 30]
        )
    rows = made_features(500, seed=4).astype(np.float32)
    copies = rng.choice(500, 40, replace=False)
    rows[copies] = evaluation[rng.integers(0, 60, 40)] * 3 + 0.05 * rng.normal(size=(40, 16))
    return str(tmp_path / "e"), table["uid"].to_pylist(), evaluation, rows


def test_features_equal_the_plain_rule_and_the_notes_name_the_pair(images):
    folder, uids, evaluation, rows = images
    rows[3], rows[4, 2] = 0, np.nan
    batch = pa.table({"l14_img": arrays.to_column(rows)})
    chosen = Decontaminate(evaluation=folder, similarity=0.93)
    chosen.setup()
    verdict, notes = chosen.judge(batch), chosen.notes(batch)
    dropped = 0
    for i, row in enumerate(rows):
        if i in (3, 4):
            assert verdict[i] == 1 and notes[i] == "cannot be compared"
            continue
        scores = [cosine(row, e) for e in evaluation]
        best = int(np.argmax(scores))
        assert verdict[i] == (2 if scores[best] >= 0.93 else 0)
        assert notes[i] == f"cosine {scores[best]:.4f} to evaluation picture {uids[best]}"
        dropped += verdict[i] == 2
    assert 30 < dropped < 400


def test_each_row_is_judged_alone(images):
    folder, _, _, rows = images
    batch = pa.table({"l14_img": arrays.to_column(rows)})
    chosen = Decontaminate(evaluation=folder, similarity=0.9)
    chosen.setup()
    whole = chosen.judge(batch)
    alone = [int(chosen.judge(batch.slice(i, 1))[0]) for i in range(100)]
    assert alone == whole[:100].tolist()
    assert chosen.judge(batch.slice(0, 0)).shape == (0,) and chosen.notes(batch.slice(0, 0)) == []


def test_a_set_that_would_not_fit_is_refused(images, monkeypatch):
    monkeypatch.setattr(decontaminate, "MOST_BYTES", 1000)
    with pytest.raises(BadInputError, match="take 1,920 bytes, and a worker holds at most 1,000"):
        Decontaminate(evaluation=images[0]).setup()


codes = st.integers(0, (1 << 64) - 1)


@given(st.lists(codes, max_size=30), st.lists(codes, max_size=8), st.integers(0, 16), st.data())
def test_hamming_search_equals_all_pairs(references, queries, within, data):
    for base in references[:6]:  # queries near references, or none would be found
        bits = data.draw(st.lists(st.integers(0, 63), max_size=within + 1))
        queries = [*queries, base ^ sum(1 << b for b in set(bits))]
    usable = np.array([i % 5 != 4 for i in range(len(references))], bool)
    index = HammingIndex(np.array(references, np.uint64), within, usable)
    found, bits = index.find(np.array(queries, np.uint64))
    for query, place, apart in zip(queries, found.tolist(), bits.tolist(), strict=True):
        ranked = [
            ((query ^ r).bit_count(), i)
            for i, r in enumerate(references)
            if usable[i] and r.bit_count() >= 8 and (query ^ r).bit_count() <= within
        ]
        assert (apart, place) == (min(ranked) if ranked else (65, -1))


def test_pairs_in_portions_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    references = rng.integers(0, 1 << 64, 500, np.uint64)
    queries = references[rng.integers(0, 500, 200)] ^ (
        np.uint64(1) << rng.integers(0, 64, 200).astype(np.uint64)
    )
    index = HammingIndex(references, 6, np.ones(500, bool))
    want = index.find(queries)
    monkeypatch.setattr(_hamming, "PAIRS_AT_ONCE", 10)
    got = index.find(queries)
    assert (
        np.array_equal(got[0], want[0]) and np.array_equal(got[1], want[1]) and (want[1] <= 1).all()
    )


def test_phash_of_a_pool_against_a_pool(tmp_path):
    table = write_metadata(tmp_path / "e", 40, files=2, repeat=0, null=0.2, seed=3)
    evaluation = table["phash"].to_pylist()
    first = next(i for i, h in enumerate(evaluation) if h)
    near = f"{int(evaluation[first], 16) ^ 0b101:016x}"
    batch = pa.table(
        {"phash": [evaluation[first].upper(), near, None, "0" * 16, "0123456789abcdef"]}
    )
    chosen = Decontaminate(evaluation=str(tmp_path / "e"), by="phash", max_distance=2)
    chosen.setup()
    assert chosen.columns == ("phash",) and chosen.judge(batch).tolist() == [2, 2, 1, 0, 0]
    uid = table["uid"][first].as_py()
    notes = chosen.notes(batch)
    assert notes[0] == f"0 bits from evaluation picture {uid}"
    assert notes[1] == f"2 bits from evaluation picture {uid}"
    assert notes[2] == "cannot be compared" and notes[4] == "no evaluation picture within 2 bits"


def test_phash_as_numbers(tmp_path):
    hashes = np.array([0x0123456789ABCDEF, 0], np.uint64)
    np.save(tmp_path / "h.npy", hashes)
    chosen = Decontaminate(evaluation=str(tmp_path / "h.npy"), by="phash")
    chosen.setup()
    batch = pa.table({"phash": pa.array([0x0123456789ABCDEE, 0, None], pa.uint64())})
    assert chosen.judge(batch).tolist() == [2, 0, 1]  # a flat picture is near no other
    assert chosen.notes(batch)[0] == "1 bits from evaluation picture number 0"


@pytest.mark.ray
def test_the_report_shows_the_pairs(images, tmp_path):
    folder, uids, evaluation, rows = images
    write_metadata(tmp_path / "p", 500, files=1)
    np.savez(tmp_path / "p" / "metadata" / "0000.npz", l14_img=rows)
    chosen = Decontaminate(evaluation=folder, similarity=0.97)
    run_job(FilterJob(pool=str(tmp_path / "p"), filter=chosen, out=str(tmp_path / "o")))
    best = max((cosine(r, e), i) for r in rows for i, e in enumerate(evaluation))
    assert best[0] >= 0.97
    page = (tmp_path / "o" / "report.html").read_text()
    assert "to evaluation picture " in page
    assert any(uid in page for uid in uids)


def test_bad_inputs_are_said(tmp_path):
    with pytest.raises(BadInputError, match="cosine in"):
        Decontaminate(similarity=1.5)
    with pytest.raises(BadInputError, match="from 0 to 16 bits, not 40"):
        Decontaminate(max_distance=40)
    with pytest.raises(BadInputError, match="needs --evaluation"):
        Decontaminate().inputs()
    np.save(tmp_path / "h.npy", np.zeros(3))
    with pytest.raises(BadInputError, match="float64, not uint64"):
        Decontaminate(evaluation=str(tmp_path / "h.npy"), by="phash").setup()
    write_metadata(tmp_path / "e", 5)
    with pytest.raises(BadInputError, match="has no metadata/\\*.npz"):
        Decontaminate(evaluation=str(tmp_path / "e")).setup()
    np.save(tmp_path / "ok.npy", np.array([1 << 40], np.uint64))
    chosen = Decontaminate(evaluation=str(tmp_path / "ok.npy"), by="phash")
    with pytest.raises(BadInputError, match="'xyz', not 16 hex"):
        chosen.judge(pa.table({"phash": ["xyz"]}))
