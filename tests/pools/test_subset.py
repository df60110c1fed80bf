import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.pools.subset import Subset, positions, search
from gristmill.pools.uid import (
    UID_DTYPE,
    first_fall,
    hex_of_uid,
    make_uids,
    pair_uid,
    parse_uids,
    sort_uids,
)

# Few distinct halves, so that equal first halves with different second halves come up.
half = st.sampled_from([0, 1, 2, (1 << 64) - 1, 1 << 63])
uids = st.lists(st.tuples(half, half), max_size=30)


def subset(pairs):
    return Subset(sort_uids(np.array(sorted(pairs), UID_DTYPE)))


@given(uids, uids)
def test_counts_and_search_agree_with_plain_lists(listed, asked):
    made = subset(listed)
    wanted = np.array(asked, UID_DTYPE)
    assert made.counts(wanted).tolist() == [listed.count(a) for a in asked]
    import bisect

    ordered = sorted(listed)
    assert search(made.uids, wanted, "left").tolist() == [
        bisect.bisect_left(ordered, a) for a in asked
    ]
    assert search(made.uids, wanted, "right").tolist() == [
        bisect.bisect_right(ordered, a) for a in asked
    ]


@given(uids, uids)
def test_and_keeps_the_smaller_number_of_repeats(left, right):
    both = subset(left) & subset(right)
    want = sorted(u for u in set(left) for _ in range(min(left.count(u), right.count(u))))
    assert [tuple(map(int, u)) for u in both.uids] == want
    assert first_fall(both.uids) == -1


@given(uids)
def test_in_and_len(listed):
    made = subset(listed)
    assert len(made) == len(listed)
    assert all(hex_of_uid(u) in made for u in listed)
    assert ("0" * 15 + "7" + "0" * 16) not in made


@given(uids)
def test_positions_in_distinct_uids(listed):
    distinct = subset(set(listed)).uids
    asked = np.array([*listed, (5, 5)], UID_DTYPE)
    at = positions(distinct, asked)
    assert at[-1] == -1
    assert all(tuple(distinct[p]) == tuple(u) for p, u in zip(at[:-1], asked[:-1], strict=True))


@given(uids)
def test_save_is_what_numpy_saves_and_loads_back(listed):
    import io
    import tempfile

    made = subset(listed)
    buffer = io.BytesIO()
    np.save(buffer, made.uids)
    with tempfile.TemporaryDirectory() as folder:
        made.save(f"{folder}/s.npy")
        with open(f"{folder}/s.npy", "rb") as file:
            assert file.read() == buffer.getvalue()
        assert np.array_equal(Subset.load(f"{folder}/s.npy").uids, made.uids)


def test_a_bare_memmap_loads_too(tmp_path):
    made = subset([(1, 2), (3, 4)])
    (tmp_path / "raw").write_bytes(made.uids.tobytes())
    assert np.array_equal(Subset.load(str(tmp_path / "raw")).uids, made.uids)


def test_bad_files_are_refused_with_their_name(tmp_path):
    np.save(tmp_path / "wrong.npy", np.arange(5))
    np.save(tmp_path / "flat.npy", np.zeros((2, 2), UID_DTYPE))
    np.save(tmp_path / "unsorted.npy", np.array([(1, 1), (3, 1), (2, 9)], UID_DTYPE))
    np.save(tmp_path / "whole.npy", np.zeros(100, UID_DTYPE))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:500])
    (tmp_path / "noise").write_bytes(b"hello")
    (tmp_path / "pickled.npy").write_bytes(b"")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    for name, kind, words in [
        ("wrong.npy", BadInputError, "int64"),
        ("flat.npy", BadInputError, "shape"),
        ("unsorted.npy", BadInputError, "entry 1 0000000000000003"),
        ("cut.npy", CorruptDataError, "cut.npy"),
        ("noise", CorruptDataError, "neither"),
        ("pickled.npy", CorruptDataError, "pickled.npy"),
        ("absent.npy", BadInputError, "no subset file"),
    ]:
        with pytest.raises(kind, match=words):
            Subset.load(str(tmp_path / name))


@given(
    st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)), max_size=20)
)
def test_parse_uids_reads_hex(pairs):
    import pyarrow as pa

    words = [hex_of_uid(p) for p in pairs]
    column = pa.chunked_array([pa.array(["0" * 32, *words], pa.string()).slice(1)])
    assert parse_uids(column, where="x").tolist() == pairs
    assert np.array_equal(make_uids(words), parse_uids(column, where="x"))


@pytest.mark.parametrize("bad", ["", "g" * 32, "0" * 31, "0" * 33, None, "é" + "0" * 30])
def test_a_bad_uid_is_named_with_its_row(bad):
    import pyarrow as pa

    with pytest.raises(BadInputError, match=r"pool/a\.parquet, row 12"):
        parse_uids(
            pa.array(["0" * 32, "1" * 32, bad], pa.string()), where="pool/a.parquet", first_row=10
        )


def test_pair_uid_depends_on_each_part_and_keeps_them_apart():
    made = {
        pair_uid("a" * 64, "x"),
        pair_uid("b" * 64, "x"),
        pair_uid("a" * 64, "y"),
        pair_uid("a" * 64, "x", "u"),
    }
    assert len(made) == 4
    assert pair_uid("a", "bc") != pair_uid("ab", "c")
    assert pair_uid("a" * 64, "x") == pair_uid("a" * 64, "x") and len(pair_uid("", "")) == 32
