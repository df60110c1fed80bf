"""The algebra of subsets, against Python's multisets."""

import tempfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.errors import BadInputError
from gristmill.pools import subset as module
from gristmill.pools.subset import Subset, write_header
from gristmill.pools.uid import UID_DTYPE, hex_of_uid, sort_uids

# Few distinct halves, at the borders of signed and unsigned, so that uids repeat and nearly do.
half = st.one_of(
    st.sampled_from([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
uids = st.lists(st.tuples(half, half), max_size=25)


def made(pairs):
    return Subset(sort_uids(np.array(pairs, UID_DTYPE)))


def multiset(subset):
    return Counter(tuple(map(int, uid)) for uid in subset.uids)


@given(uids, uids)
def test_and_is_that_of_multisets_in_either_order(left, right):
    a, b = made(left), made(right)
    assert multiset(a & b) == Counter(left) & Counter(right)
    assert np.array_equal((a & b).uids, (b & a).uids)


@given(uids, uids, uids)
def test_and_is_associative_and_idempotent(one, two, three):
    a, b, c = made(one), made(two), made(three)
    assert np.array_equal(((a & b) & c).uids, (a & (b & c)).uids)
    assert np.array_equal((a & a).uids, a.uids)
    assert len(a & made([])) == 0


@given(uids, uids)
def test_a_uid_is_in_both_or_not_in_the_and(left, right):
    a, b = made(left), made(right)
    for uid in map(hex_of_uid, {*left, *right}):
        assert (uid in (a & b)) == (uid in a and uid in b)
        assert uid.upper() not in a or uid in a


@given(uids, uids)
def test_counts_agree_one_by_one_and_at_once(listed, asked):
    subset, counter = made(listed), Counter(listed)
    assert [subset.count(*uid) for uid in asked] == [counter[uid] for uid in asked]
    assert subset.counts(np.array(asked, UID_DTYPE)).tolist() == [counter[u] for u in asked]
    distinct, times = subset.unique()
    pairs = [tuple(map(int, uid)) for uid in distinct]
    assert dict(zip(pairs, times.tolist(), strict=True)) == counter
    assert pairs == sorted(counter)


@given(uids, st.integers(1, 4))
def test_save_and_load_bring_it_back_from_either_form(listed, at_once):
    subset = made(listed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHECK_AT_ONCE", at_once)
        subset.save(f"{folder}/s.npy")
        assert np.array_equal(Subset.load(f"{folder}/s.npy").uids, subset.uids)
        assert np.array_equal(np.load(f"{folder}/s.npy", allow_pickle=False), subset.uids)
        if listed:
            subset.uids.tofile(f"{folder}/raw")
            assert np.array_equal(Subset.load(f"{folder}/raw").uids, subset.uids)


@given(uids.filter(lambda listed: len(set(listed)) > 1), st.data(), st.integers(1, 4))
def test_an_unsorted_subset_is_refused_where_its_first_fall_is(listed, data, at_once):
    order = data.draw(st.permutations(listed))
    falls = [i for i in range(len(order) - 1) if order[i] > order[i + 1]]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHECK_AT_ONCE", at_once)
        with open(f"{folder}/s.npy", "wb") as file:
            write_header(file, len(order))
            file.write(np.array(order, UID_DTYPE).tobytes())
        if falls:
            with pytest.raises(BadInputError, match=f"not sorted: entry {falls[0]} "):
                Subset.load(f"{folder}/s.npy")
            assert len(Subset.load(f"{folder}/s.npy", check=False)) == len(order)
        else:
            assert multiset(Subset.load(f"{folder}/s.npy")) == Counter(order)
