import hashlib
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import folder_bytes, uid, write_metadata

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.pools import extract_workers
from gristmill.pools.extract import ExtractJob
from gristmill.pools.pool import Pool
from gristmill.pools.subset import Subset
from gristmill.pools.uid import make_uids, sort_uids

pytestmark = pytest.mark.ray


def save(path, uids):
    Subset(sort_uids(make_uids(uids))).save(str(path))
    return str(path)


def extract(pool, subset, out, **fields):
    return run_job(ExtractJob(pool=str(pool), subset=str(subset), out=str(out), **fields))


def rows_of(pool):
    return pa.concat_tables([pq.read_table(f) for f in Pool(str(pool)).metadata_files])


def plainly(table, listed):
    """Row by row: each uid's first row, as often as it is listed."""
    left, found = Counter(listed), []
    for row, name in enumerate(table["uid"].to_pylist()):
        found += [row] * left.pop(name, 0)
    return table.take(found)


def test_rows_of_a_subset_in_the_pools_order(tmp_path):
    table = write_metadata(tmp_path / "p", 3000, row_group=170, repeat=0.05)
    names = table["uid"].to_pylist()
    rng = np.random.default_rng(0)
    listed = [names[i] for i in rng.integers(0, 3000, 900)] + [uid("of another pool")]
    run = extract(tmp_path / "p", save(tmp_path / "s.npy", listed), tmp_path / "o")
    assert rows_of(tmp_path / "o").to_pydict().keys() == table.to_pydict().keys()
    mine, wanted = rows_of(tmp_path / "o").combine_chunks(), plainly(table, listed)
    for name in table.column_names:
        assert repr(mine[name].to_pylist()) == repr(wanted[name].to_pylist())
    summary = run.done()["summary"]
    assert summary["rows"] == 900 and summary["not_in_pool"] == 1
    assert summary["rows_of_a_uid_seen_before"] == sum(n in set(listed) for n in names) - len(
        set(listed) & set(names)
    )
    assert json.loads((tmp_path / "o" / "pool.json").read_text())["rows"] == 900
    with pytest.raises(BadInputError, match="1 entries of the subset are in no row"):
        extract(tmp_path / "p", tmp_path / "s.npy", tmp_path / "all", require_all=True)


def test_the_result_is_a_pool_and_the_same_for_any_number_of_workers(tmp_path):
    table = write_metadata(tmp_path / "p", 2000, files=4, row_group=100, repeat=0)
    subset = save(tmp_path / "s.npy", table["uid"].to_pylist()[::3])
    made = []
    for workers in (1, 2):
        out = tmp_path / f"o{workers}"
        extract(tmp_path / "p", subset, out, execution=Execution(workers=workers))
        made.append(folder_bytes(out / "metadata"))
    assert made[0] == made[1]
    again = save(tmp_path / "t.npy", table["uid"].to_pylist()[::6])
    extract(tmp_path / "o1", again, tmp_path / "oo")
    assert rows_of(tmp_path / "oo")["uid"].to_pylist() == table["uid"].to_pylist()[::6]


def test_a_uid_listed_very_often(tmp_path, monkeypatch):
    monkeypatch.setattr(extract_workers, "ROWS_PER_GROUP", 64)
    table = write_metadata(tmp_path / "p", 50, files=1, repeat=0)
    names = table["uid"].to_pylist()
    listed = [names[7]] * 1000 + [names[3]] * 2 + [names[9]]
    worker = extract_workers.FindRows(save(tmp_path / "s.npy", listed), str(tmp_path / "found"))
    worker.setup()
    piece = Pool(str(tmp_path / "p")).slices()[0]
    assert worker.process(piece) == {"found": 3, "repeated": 0}
    from dataclasses import replace

    piece = replace(piece, payload=piece.payload | {"rows": piece.name})
    done = extract_workers.CopyRows(str(tmp_path / "found"), str(tmp_path / "o")).process(piece)
    assert done["written"] == 1003
    file = pq.ParquetFile(tmp_path / "o" / "metadata" / f"{piece.name}.parquet")
    assert file.read()["uid"].to_pylist() == [names[3]] * 2 + [names[7]] * 1000 + [names[9]]
    assert max(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)) <= 64


def test_a_corrupt_row_group_stops_the_job_which_then_goes_on(tmp_path):
    table = write_metadata(tmp_path / "p", 3000, files=6, row_group=100, repeat=0)
    subset = save(tmp_path / "s.npy", table["uid"].to_pylist()[::2])
    extract(tmp_path / "p", subset, tmp_path / "calm")
    broken = tmp_path / "p" / "metadata" / "0004.parquet"
    whole = broken.read_bytes()
    place = pq.ParquetFile(broken).metadata.row_group(2).column(2).data_page_offset
    data = bytearray(whole)
    data[place : place + 60] = hashlib.sha512(b"").digest()[:60]
    broken.write_bytes(bytes(data))
    with pytest.raises(CorruptDataError, match=r"0004\.parquet, row group 2 cannot be read"):
        extract(tmp_path / "p", subset, tmp_path / "o", execution=Execution(workers=1))
    assert not (tmp_path / "o" / "DONE").exists()
    run = extract(tmp_path / "p", subset, tmp_path / "lossy", skip_corrupt=True)
    assert run.done()["summary"]["corrupt_row_groups"] == 1
    assert run.done()["summary"]["rows"] == 1450
    broken.write_bytes(whole)
    extract(tmp_path / "p", subset, tmp_path / "o")
    for name in ("pool.json", "metadata"):
        mine, calm = tmp_path / "o" / name, tmp_path / "calm" / name
        same = (
            folder_bytes(mine) == folder_bytes(calm)
            if mine.is_dir()
            else mine.read_bytes() == calm.read_bytes()
        )
        assert same, name


def test_subsets_of_nothing_or_of_another_pool(tmp_path):
    write_metadata(tmp_path / "p", 20)
    with pytest.raises(BadInputError, match="is another pool's subset|it is another pool's"):
        extract(tmp_path / "p", save(tmp_path / "s.npy", [uid("elsewhere")]), tmp_path / "o")
    with pytest.raises(BadInputError, match="lists no uid"):
        extract(tmp_path / "p", save(tmp_path / "e.npy", []), tmp_path / "q")


def test_plan_says_sizes(tmp_path):
    table = write_metadata(tmp_path / "p", 100, repeat=0)
    subset = save(tmp_path / "s.npy", table["uid"].to_pylist()[:10])
    text = (
        ExtractJob(pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "o")).plan().text()
    )
    assert "extract 10 of 100 rows" in text
