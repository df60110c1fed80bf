import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.core.errors import BadInputError
from gristmill.core.run import Run
from gristmill.evaluation.membership import check_membership, first_places, pack, unpack
from gristmill.execution.session import Execution
from gristmill.pools.subset import Subset
from gristmill.pools.uid import hex_of_uid, make_uids, sort_uids


def test_places_are_the_first_of_equal_entries():
    rng = np.random.default_rng(0)
    texts = [f"{a:016x}{b:016x}" for a, b in rng.integers(0, 6, (300, 2))]  # many share a half
    listed = sort_uids(make_uids(texts))
    asked = make_uids([f"{a:016x}{b:016x}" for a in range(7) for b in range(7)])
    names = [hex_of_uid(u) for u in listed]
    expected = [names.index(n) if n in names else -1 for n in map(hex_of_uid, asked)]
    assert first_places(listed, asked).tolist() == expected
    assert first_places(listed[:0], asked[:0]).tolist() == []


@pytest.mark.parametrize("places", [[], [0], [0, 1, 2], [5, 300, 70_000, 5_000_000_000]])
def test_packing_round_trips(places):
    assert unpack(pack(np.array(places, np.int64))).tolist() == places


@pytest.fixture
def pool(tmp_path, uids):
    folder = tmp_path / "pool" / "metadata"
    folder.mkdir(parents=True)
    texts = [hex_of_uid(u) for u in uids]
    rng = np.random.default_rng(5)
    rng.shuffle(texts)
    for number in range(3):
        table = pa.table({"uid": texts[number::3], "text": ["t"] * len(texts[number::3])})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=4)
    return tmp_path / "pool"


@pytest.mark.ray
def test_every_uid_is_found_whatever_the_slices(ray_cluster, pool, tmp_path, uids, monkeypatch):
    from gristmill.evaluation import membership

    monkeypatch.setattr(membership, "CHECK_AT_ONCE", 7)
    subset = Subset(np.repeat(uids[::2], 2))  # every uid listed twice
    subset.save(str(tmp_path / "s.npy"))
    found = check_membership(
        str(tmp_path / "s.npy"),
        "0" * 64,
        str(pool),
        run=Run(str(tmp_path / "out")),
        execution=Execution(),
    )
    assert found == (25, 50)


@pytest.mark.ray
def test_strangers_are_counted_and_named(ray_cluster, pool, tmp_path, uids):
    strangers = make_uids(["0" * 31 + "1", "f" * 32])
    Subset(sort_uids(np.concatenate([uids, strangers]))).save(str(tmp_path / "s.npy"))
    with pytest.raises(BadInputError, match=r"2 of 52 uids are not in the pool .*0{31}1"):
        check_membership(
            str(tmp_path / "s.npy"),
            "1" * 64,
            str(pool),
            run=Run(str(tmp_path / "out")),
            execution=Execution(),
        )
