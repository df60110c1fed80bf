import numpy as np
import pyarrow as pa
import pytest
from plain_facts import repeated_rows

from gristmill.core.errors import BadInputError
from gristmill.filters import near_duplicates
from gristmill.filters.near_duplicates import NearDuplicates, near_an_earlier


def made_hashes(rows, *, seed=0, most_flips=9):
    """Hashes in families that differ by a few bits."""
    rng = np.random.default_rng(seed)
    families = rng.integers(0, 1 << 64, rows // 4 + 1, np.uint64)
    found = []
    for family in rng.choice(families, rows):
        for bit in rng.choice(64, rng.integers(0, most_flips), replace=False):
            family ^= np.uint64(1) << np.uint64(bit)
        found.append(int(family))
    return found


def plainly(hashes, distance, least_bits=8):
    """Rows within the distance of any earlier row."""
    gone, before = set(), []
    for row, value in enumerate(hashes):
        if value is None or value.bit_count() < least_bits:
            continue
        if any((value ^ other).bit_count() <= distance for other in before):
            gone.add(row)
        before.append(value)
    return gone


def table_of(hashes):
    return pa.table({"phash": [None if h is None else f"{h:016x}" for h in hashes]})


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("distance", [0, 1, 4, 6])
def test_no_near_pair_is_missed_and_no_other_goes(distance, shared):
    hashes = made_hashes(600, seed=distance)
    hashes[::50] = [None] * 12
    chosen = NearDuplicates(max_distance=distance, shared_chunks=shared)
    gone = plainly(hashes, distance)
    assert repeated_rows(chosen, table_of(hashes)) == gone
    assert 5 < len(gone) < 500


def test_number_of_keys_and_payload():
    table = table_of(made_hashes(10))
    for chosen, each in ((NearDuplicates(), 5), (NearDuplicates(shared_chunks=2), 15)):
        keyed = chosen.keyed(table)
        assert keyed.keys.shape == (10 * each, 2)
        assert len(np.unique(keyed.keys[:each], axis=0)) == each
        assert keyed.payload.dtype == np.uint64


def test_flat_pictures_are_left_alone():
    flat = 1 << 63
    stripes = (1 << 63) + 0b1010100
    table = table_of([0, 0, flat, flat, stripes, stripes])
    assert repeated_rows(NearDuplicates(), table) == set()
    assert repeated_rows(NearDuplicates(least_bits=0), table) == {1, 2, 3, 4, 5}


def test_blocks_change_nothing(monkeypatch):
    hashes = np.array(made_hashes(900, seed=5), np.uint64)
    whole = near_an_earlier(hashes, 4)
    assert set(np.flatnonzero(whole).tolist()) == plainly(hashes.tolist(), 4, 0)
    monkeypatch.setattr(near_duplicates, "LATER_AT_ONCE", 7)
    monkeypatch.setattr(near_duplicates, "EARLIER_AT_ONCE", 11)
    assert np.array_equal(near_an_earlier(hashes, 4), whole)
    assert near_an_earlier(hashes[:0], 4).shape == (0,)


def test_a_large_group_of_equal_hashes_is_cheap():
    payload = np.full(2_000_000, 0x123456789ABCDEF0, np.uint64)
    gone = NearDuplicates().repeated(payload, len(payload))  # pairwise this would take an hour
    assert not gone[0] and gone[1:].all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_distance": 17}, "0..16 of 64 bits, not 17"),
        ({"max_distance": -1}, "not -1"),
        ({"shared_chunks": 0}, "shared_chunks 0"),
        ({"shared_chunks": -5, "max_distance": 0}, "shared_chunks -5"),
        ({"max_distance": 8, "shared_chunks": 4}, "take 1 or 2"),
    ],
)
def test_wrong_settings_are_named(fields, words):
    with pytest.raises(BadInputError, match=words):
        NearDuplicates(**fields)


def test_another_columns_values_are_refused():
    with pytest.raises(BadInputError, match="'IMG', not 16 hex digits; gristmill pool hash"):
        NearDuplicates().keyed(pa.table({"phash": ["0" * 16, None, "IMG"]}))
    with pytest.raises(BadInputError, match="phash is int64"):
        NearDuplicates().keyed(pa.table({"phash": [1]}))
