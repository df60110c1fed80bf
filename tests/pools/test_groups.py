"""Repeats found over slices and key ranges are those that a dict in memory finds."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference
from group_filters import AllAlike, CloseNumbers, Even, Logged, OneWord, SameLetters
from made_up import uid
from plain_facts import repeated_rows

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution import parts
from gristmill.execution.session import Execution
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
    assert "SameLetters: repeats" in (tmp_path / "o" / "report.html").read_text()


def test_a_row_group_that_an_earlier_pass_could_not_read_is_lost(made, tmp_path):
    import shutil

    pool, table = made
    shutil.copytree(pool, tmp_path / "p")
    path = tmp_path / "p" / "metadata" / "1.parquet"
    column = pq.ParquetFile(path).metadata.row_group(2).column(1)
    assert column.path_in_schema == "text"
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"1\.parquet, row group 2"):
        run(str(tmp_path / "p"), Even() & SameLetters() & Even(), tmp_path / "a")
    rows = [i for i in range(ROWS) if not 1340 <= i < 1510]
    even = [i for i in rows if table["number"][i].as_py() % 2 == 0]
    gone = repeated_rows(SameLetters(), table.take(even))
    want = [even[i] for i in range(len(even)) if i not in gone]
    got, stats = run(
        str(tmp_path / "p"), Even() & SameLetters() & Even(), tmp_path / "b", skip_corrupt=True
    )
    assert got == kept_bytes(table, set(range(ROWS)) - set(want))
    assert stats["lost"] == 170


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
