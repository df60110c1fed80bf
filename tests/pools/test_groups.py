"""Repeats found over slices and key ranges are those that a dict in memory finds."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference
from group_filters import (
    AllAlike,
    CloseNumbers,
    Composite,
    Even,
    Logged,
    OneWord,
    SameLetters,
    Twice,
    Unstorable,
    Wide,
)
from made_up import uid
from plain_facts import repeated_rows

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution import parts
from gristmill.execution.session import Execution
from gristmill.filters.base import AllOf
from gristmill.pools import pool as pool_module
from gristmill.pools.selection import FilterJob

pytestmark = pytest.mark.ray
ROWS = 3000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(3)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzäöü漢字"))
    texts = ["".join(rng.choice(letters, rng.integers(0, 4))) for _ in range(ROWS)]
    score = np.round(rng.random(ROWS), 2)
    score[rng.random(ROWS) < 0.05] = np.nan
    table = pa.table(
        {
            "uid": [uid(i) for i in range(ROWS)],
            "text": pa.array(texts, mask=rng.random(ROWS) < 0.02),
            "number": rng.integers(0, 1600, ROWS),
            "score": pa.array(score, mask=rng.random(ROWS) < 0.02),
        }
    )
    (folder / "metadata").mkdir()
    for i in range(3):
        piece = table.slice(i * 1000, 1000)
        pq.write_table(piece, folder / "metadata" / f"{i}.parquet", row_group_size=170)
    return str(folder), table


@pytest.fixture
def small(monkeypatch):
    """Many slices and many key ranges, though the pool is small."""
    monkeypatch.setattr(pool_module.Pool.slices, "__defaults__", (400,))
    monkeypatch.setattr(parts, "SEGMENT_BYTES", 5000)


def run(pool, chosen, out, **fields):
    run_job(FilterJob(pool=pool, filter=chosen, out=str(out), **fields))
    return (out / "subset.npy").read_bytes(), json.loads((out / "stats.json").read_text())


def kept_bytes(table, gone):
    uids = table["uid"].to_pylist()
    return reference.subset_bytes([u for i, u in enumerate(uids) if i not in gone])


@pytest.mark.parametrize("best_by", ["", "score"])
@pytest.mark.parametrize("kind", [SameLetters, CloseNumbers])
def test_repeats_are_those_of_a_plain_dict(made, small, tmp_path, kind, best_by):
    pool, table = made
    chosen = kind(best_by=best_by)
    gone = repeated_rows(chosen, table)
    got, stats = run(pool, chosen, tmp_path / "o")
    assert got == kept_bytes(table, gone)
    assert 0 < stats["dropped"]["duplicate"] == len(gone) < ROWS


def test_slices_ranges_and_workers_change_nothing(made, tmp_path, monkeypatch):
    pool, _ = made
    chosen = CloseNumbers(best_by="score")
    whole, stats = run(pool, chosen, tmp_path / "a", execution=Execution(workers=1))
    monkeypatch.setattr(pool_module.Pool.slices, "__defaults__", (170,))
    monkeypatch.setattr(parts, "SEGMENT_BYTES", 3000)
    cut, stats_cut = run(pool, chosen, tmp_path / "b", execution=Execution(workers=2))
    assert whole == cut and stats == stats_cut


def test_only_rows_that_earlier_filters_keep_can_be_repeats(made, small, tmp_path):
    pool, table = made
    even = np.flatnonzero(table["number"].to_numpy() % 2 == 0)
    among = table.take(even)
    first = repeated_rows(SameLetters(), among)
    left = [i for i in range(len(even)) if i not in first]
    second = repeated_rows(CloseNumbers(), among.take(left))
    want = {int(even[left[i]]) for i in range(len(left)) if i not in second}
    got, stats = run(pool, Even() & SameLetters() & CloseNumbers() & Even(), tmp_path / "o")
    assert got == kept_bytes(table, set(range(ROWS)) - want)
    assert list(stats["dropped"].values()) == [ROWS - len(even), len(first), len(second), 0]


def test_each_row_meets_a_filter_once(made, small, tmp_path):
    """A pass for repeats leaves its verdicts, so that an expensive filter is not asked again."""
    pool, _ = made
    (tmp_path / "log").mkdir()
    run(pool, Logged(folder=str(tmp_path / "log")) & SameLetters() & Even(), tmp_path / "o")
    seen = sum(int(f.read_text()) for f in (tmp_path / "log").iterdir())
    assert seen == ROWS


def test_the_report_shows_pairs(made, small, tmp_path):
    pool, _ = made
    run(pool, SameLetters(), tmp_path / "o")
    assert "SameLetters (repeats-1): repeats" in (tmp_path / "o" / "report.html").read_text()


@pytest.fixture
def damaged(made, tmp_path):
    """The pool with the texts of one row group (170 rows from 1340) zeroed."""
    import shutil

    shutil.copytree(made[0], tmp_path / "p")
    path = tmp_path / "p" / "metadata" / "1.parquet"
    column = pq.ParquetFile(path).metadata.row_group(2).column(1)
    assert column.path_in_schema == "text"
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    return str(tmp_path / "p")


@pytest.mark.parametrize("before", [(), (Even(),)])
@pytest.mark.parametrize("after", [(), (Even(),)])
def test_a_row_group_that_an_earlier_pass_could_not_read_is_lost(
    made, damaged, tmp_path, before, after
):
    table = made[1]
    chosen = AllOf(parts=(*before, SameLetters(), *after))
    with pytest.raises(CorruptDataError, match=r"1\.parquet, row group 2"):
        run(damaged, chosen, tmp_path / "a")
    left = [i for i in range(ROWS) if not 1340 <= i < 1510]
    even = [i for i in left if table["number"][i].as_py() % 2 == 0]
    asked = even if before else left
    gone = repeated_rows(SameLetters(), table.take(asked))
    want = {asked[i] for i in range(len(asked)) if i not in gone}
    want &= set(even) if after else want
    got, stats = run(damaged, chosen, tmp_path / "b", skip_corrupt=True)
    assert got == kept_bytes(table, set(range(ROWS)) - want)
    assert stats["lost"] == 170


def test_text_that_is_not_utf8_is_named_and_counted(made, tmp_path):
    from gristmill.filters.caption_duplicates import CaptionDuplicates
    from gristmill.filters.clip_score import ClipScore

    (tmp_path / "p" / "metadata").mkdir(parents=True)
    bad = pa.array([b"good words", b"bad \xff words", b"good words"]).view(pa.string())
    uids = pa.array([uid(i) for i in range(3)])
    score = pa.array([0.9, 0.1, 0.8])
    table = pa.table({"uid": uids, "text": bad, "clip_l14_similarity_score": score})
    pq.write_table(table, tmp_path / "p" / "metadata" / "0.parquet")
    pool = str(tmp_path / "p")
    with pytest.raises(CorruptDataError, match=r"0\.parquet, rows from 0: .*not UTF-8"):
        run(pool, CaptionDuplicates(), tmp_path / "a")
    with pytest.raises(CorruptDataError, match="no row group could be read"):
        run(pool, CaptionDuplicates(), tmp_path / "b", skip_corrupt=True)
    _, stats = run(pool, ClipScore(threshold=0.5) & CaptionDuplicates(), tmp_path / "c")
    assert stats["dropped"] == {
        "clip_score_missing": 0,
        "clip_score_low": 1,
        "duplicate": 1,
    }


def test_payloads_of_two_types_are_refused(made, small, tmp_path):
    table = made[1]
    (tmp_path / "p" / "metadata").mkdir(parents=True)
    for i, number in enumerate((5, 2000)):
        part = table.slice(0, 50).set_column(2, "number", pa.array([number] * 50))
        pq.write_table(part, tmp_path / "p" / "metadata" / f"{i}.parquet")
    with pytest.raises(BadInputError, match=r"1\.parquet, rows from 0: Wide compares float64"):
        run(str(tmp_path / "p"), Wide(), tmp_path / "o")


def test_a_filter_that_becomes_several_sees_what_was_kept_before_it(made, small, tmp_path):
    pool, _ = made
    flat, stats = run(pool, Even() & CloseNumbers() & Even() & SameLetters(), tmp_path / "a")
    nested, again = run(pool, Even() & CloseNumbers() & Composite(), tmp_path / "b")
    assert flat == nested
    assert list(stats["dropped"].values()) == list(again["dropped"].values())


def test_listings_of_a_filter_that_an_earlier_pass_judged(made, small, tmp_path):
    pool, _ = made
    run(pool, Even() & SameLetters(), tmp_path / "a")
    _, stats = run(pool, Twice() & SameLetters(), tmp_path / "b")
    kept = np.load(tmp_path / "a" / "subset.npy")
    assert np.array_equal(np.load(tmp_path / "b" / "subset.npy"), np.repeat(kept, 2))
    assert stats["listed"] == 2 * stats["kept"]


def test_a_filter_that_cannot_be_recorded_is_refused_before_the_work(made, tmp_path):
    with pytest.raises(BadInputError, match="Unstorable as fitted cannot be recorded"):
        run(made[0], Unstorable(), tmp_path / "o")
    assert not (tmp_path / "o" / ".work" / "judged").exists()


def test_the_code_of_a_filter_from_outside_is_pinned(made, tmp_path):
    run(made[0], Even(), tmp_path / "o")
    inputs = json.loads((tmp_path / "o" / "DONE").read_text())["inputs"]
    assert inputs["code-Even"]["module"] == "group_filters"


def test_a_pool_without_rows_has_no_repeats(tmp_path):
    (tmp_path / "p" / "metadata").mkdir(parents=True)
    table = pa.table({"uid": pa.array([], "string"), "text": pa.array([], "string")})
    pq.write_table(table, tmp_path / "p" / "metadata" / "0.parquet")
    _, stats = run(str(tmp_path / "p"), SameLetters(), tmp_path / "o")
    assert stats["rows"] == stats["kept"] == 0


def test_a_key_of_the_wrong_shape_is_named(made, tmp_path):
    with pytest.raises(BadInputError, match=r"OneWord\.keyed must give keys of shape"):
        run(made[0], OneWord(), tmp_path / "o")


def test_all_keys_alike_leave_one_row(made, small, tmp_path):
    """The worst case: one group holds the pool."""
    _, stats = run(made[0], CloseNumbers() & AllAlike(best_by="score"), tmp_path / "o")
    assert stats["kept"] == 1
