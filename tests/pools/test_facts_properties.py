"""The exact order statistic against numpy's sort, over numbers that floats make hard."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.execution.session import Execution
from gristmill.pools import facts
from gristmill.pools.facts import ColumnFacts, bin_shift, key_to_value, order_keys
from gristmill.pools.pool import Pool

HARD = [
    0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 5e-324, -5e-324, 2.2250738585072014e-308,
    2.225073858507201e-308, 1.7976931348623157e308, -1.7976931348623157e308, 1.0, 1.0 + 2**-52,
]  # fmt: skip
number = st.one_of(st.sampled_from(HARD), st.floats(), st.floats(0, 1, width=16))
numbers = st.lists(number, min_size=1, max_size=60)
key = st.integers(0, (1 << 64) - 1)


@given(number, number)
def test_keys_compare_as_numbers_do(a, b):
    one, two = order_keys(np.array([a, b])).tolist()
    if math.isnan(a) or math.isnan(b):
        assert (one == two) == (math.isnan(a) and math.isnan(b))
        assert (one < two) == (math.isnan(a) and not math.isnan(b))
    else:
        assert (one < two, one == two) == (a < b, a == b)


@given(number)
def test_a_key_leads_back_to_its_number(value):
    back = key_to_value(int(order_keys(np.array([value]))[0]))
    assert back == value or (math.isnan(back) and math.isnan(value))


@given(st.integers(0, 64), key, key)
def test_bins_cut_a_range_in_order_and_into_few(width, one, two):
    low, high = sorted(k & (1 << width) - 1 for k in (one, two))
    shift = bin_shift(width)
    assert 0 <= shift < max(width, 1)
    assert low >> shift <= high >> shift < facts.BINS


@given(st.integers(0, 64))
def test_refining_ends_with_single_keys(width):
    for _ in range(64):
        if not width:
            return
        width = bin_shift(width)
    pytest.fail("the range never shrank to one key")


def write(folder, values, nulls, files):
    target = Path(folder) / "metadata"
    target.mkdir()
    column = pa.array(values, pa.float64(), mask=np.array(nulls, bool))
    for i, rows in enumerate(np.array_split(np.arange(len(values)), files)):
        table = pa.table({"uid": ["0" * 32] * len(rows), "score": column.take(pa.array(rows))})
        pq.write_table(table, target / f"{i}.parquet", row_group_size=7)


def in_process(title, pieces, worker, **_):
    """Stands in for the map over Ray: the same worker on the same slices, here."""
    return [worker.process(piece) for piece in pieces]


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(number, st.booleans()), min_size=1, max_size=60),
    rank=st.integers(0, 59),
    files=st.integers(1, 3),
    bins=st.sampled_from([2, 16, 1 << 10]),
    collect=st.sampled_from([0, 3, 1 << 20]),
)
def test_every_rank_is_that_of_the_sorted_column(rows, rank, files, bins, collect):
    values, nulls = [v for v, _ in rows], [n for _, n in rows]
    rank %= len(values)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "map_slices", in_process)
        patch.setattr(facts, "BINS", bins)
        patch.setattr(facts, "COLLECT_AT_MOST", collect)
        write(folder, values, nulls, files)
        pieces = Pool(folder).slices(10)
        found = ColumnFacts(pieces, f"{folder}/scratch", Execution()).value_at_rank("score", rank)
    missing = [math.nan if null else v for v, null in rows]
    wanted = -np.sort(-np.array(missing))[rank]
    assert found == wanted or (math.isnan(found) and math.isnan(wanted))


@given(numbers)
def test_minus_zero_and_zero_share_a_rank(values):
    keys = order_keys(np.array(values))
    flipped = order_keys(np.array([-v if v == 0 else v for v in values]))
    assert np.array_equal(keys, flipped)
