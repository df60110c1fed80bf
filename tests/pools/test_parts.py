"""Part files: what goes in by key or row comes out by range, from a disk or an object store."""

import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core import io
from gristmill.execution.parts import gather, ranges_for, read_segment, save_by_key, save_by_row
from gristmill.pools.uid import UID_DTYPE, sort_uids

word = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
keys = st.lists(st.tuples(word, word), max_size=60)


def array(listed):
    return sort_uids(np.array(listed, UID_DTYPE))


@given(st.lists(keys, min_size=1, max_size=4), st.integers(1, 50))
def test_ranges_of_all_parts_are_the_whole_in_order(listed, ranges):
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{i}" for i in range(len(listed))]
        for name, part in zip(names, listed, strict=True):
            save_by_key(name, array(part), ranges)
        found = [sort_uids(gather(names, i, UID_DTYPE)) for i in range(ranges)]
    together = np.concatenate(found)
    assert np.array_equal(together, array([u for part in listed for u in part]))
    edges = [(i << 64) // ranges for i in range(ranges + 1)]
    for i, segment in enumerate(found):
        assert all(edges[i] <= int(u) < edges[i + 1] for u in segment["f0"])


@given(st.lists(st.integers(0, 99), max_size=50, unique=True), st.integers(1, 10))
def test_rows_are_cut_where_slices_end(rows, count):
    ends = np.array(sorted({*range(100 // count, 100, 100 // count), 100}))
    rows = np.array(sorted(rows), "<i8")
    with tempfile.TemporaryDirectory() as folder:
        save_by_row(f"{folder}/p", rows, ends)
        low = 0
        for i, high in enumerate(ends):
            segment = read_segment(f"{folder}/p", i, np.dtype("<i8"))
            assert segment.tolist() == [r for r in rows.tolist() if low <= r < high]
            low = high


def test_a_record_may_carry_a_payload(tmp_path):
    kind = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("payload", "<f4", (3,))])
    records = np.zeros(5, kind)
    records["f0"] = np.sort(np.arange(5, dtype=np.uint64) << np.uint64(61))
    records["payload"] = np.arange(15).reshape(5, 3)
    save_by_key(str(tmp_path / "p"), records, 4)
    found = np.concatenate([read_segment(str(tmp_path / "p"), i, kind) for i in range(4)])
    assert np.array_equal(found, records)


def test_segments_of_a_remote_part(bucket):
    uids = array([(i << 58, i) for i in range(64)])
    names = [io.join(bucket, "a"), io.join(bucket, "b")]
    for name in names:
        save_by_key(name, uids, 8)
    for i in range(8):
        assert np.array_equal(read_segment(names[0], i, UID_DTYPE), uids[8 * i : 8 * i + 8])
    assert len(gather(names, 3, UID_DTYPE)) == 16


@pytest.mark.parametrize(("records", "ranges"), [(0, 1), (1, 1), (1 << 22, 1), (1 << 23, 2)])
def test_a_range_holds_what_one_worker_can_carry(records, ranges):
    assert ranges_for(records) == ranges
