import math

import numpy as np
import plain_hashes
import pyarrow as pa
import pytest
from made_up import uid
from plain_facts import PlainFacts

from gristmill.core.errors import BadInputError
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.soft_cap import SoftCap


def table_of(weights, *, first=0):
    uids = [uid(first + i) for i in range(len(weights))]
    return pa.table({"weight": pa.array(weights, pa.float64()), "uid": uids})


def plainly(text, weight, cap, seed):
    """(verdict, listings) of one row."""
    if weight is None or math.isnan(weight) or weight < 0:
        return 1, 1
    words = [*plain_hashes.stream(1, seed), int(text[:16], 16), int(text[16:], 16)]
    chance = (plain_hashes.key(words)[0] >> 11) / 2**53
    expected = min(weight, cap)
    listed = math.floor(expected) + (chance < expected - math.floor(expected))
    return (0, listed) if listed else (2, 1)


@pytest.mark.parametrize(("cap", "seed"), [(2.0, 0), (3.7, 1), (0.5, -5), (1.0, 1 << 65)])
def test_each_row_as_the_rule_says(cap, seed):
    rng = np.random.default_rng(0)
    weights = [*rng.exponential(1.5, 500), 0.0, -0.0, 1.0, 2.0, -1.0, None, math.nan, math.inf]
    table, chosen = table_of(weights), SoftCap(cap=cap, seed=seed)
    wanted = [
        plainly(u, w, cap, seed)
        for u, w in zip(table["uid"].to_pylist(), table["weight"].to_pylist(), strict=True)
    ]
    assert (
        list(zip(chosen.judge(table).tolist(), chosen.times(table).tolist(), strict=True)) == wanted
    )
    assert chosen.times(table).max() <= math.ceil(cap)


@pytest.mark.parametrize("weight", [0.3, 1.0, 1.25, 5.0])
def test_listings_are_on_average_the_capped_weight(weight):
    rows = 20_000
    table, chosen = table_of([weight] * rows), SoftCap()
    listed = np.where(chosen.judge(table) == 0, chosen.times(table), 0)
    rest = min(weight, 2.0) % 1
    error = 4 * math.sqrt(rest * (1 - rest) / rows)
    assert abs(listed.mean() - min(weight, 2.0)) <= error


def test_a_larger_weight_never_lists_less_and_seeds_differ():
    listed = []
    for weight in np.linspace(0, 2, 9):
        table = table_of([weight] * 300)
        listed.append(np.where(SoftCap().judge(table) == 0, SoftCap().times(table), 0))
    assert (np.diff(listed, axis=0) >= 0).all()
    half = table_of([0.5] * 300)
    assert not np.array_equal(SoftCap().judge(half), SoftCap(seed=1).judge(half))


def test_upper_case_uids_are_the_same_uids():
    table = table_of([0.5] * 200)
    upper = table.set_column(1, "uid", pa.array([u.upper() for u in table["uid"].to_pylist()]))
    assert np.array_equal(SoftCap().judge(table), SoftCap().judge(upper))


def test_after_another_filter_it_lists_what_that_one_keeps():
    table = table_of([1.5] * 100).append_column("clip_l14_similarity_score", [np.arange(100.0)])
    chain = (ClipScore(threshold=50.0) & SoftCap()).fit(PlainFacts(table))
    verdict = chain.judge(table)
    assert (verdict[:50] == 2).all() and (verdict[50:] == 0).all()
    assert set(chain.times(table)[50:].tolist()) == {1, 2}


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan, math.inf])
def test_a_cap_is_a_number_above_0(cap):
    with pytest.raises(BadInputError, match="cap must be a number above 0"):
        SoftCap(cap=cap)


def test_a_broken_uid_is_named():
    with pytest.raises(BadInputError, match="uid 'x' is not 32 hex digits"):
        SoftCap().judge(pa.table({"weight": [1.0], "uid": ["x"]}))
