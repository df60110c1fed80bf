"""Uids as hex and as arrays: nothing is lost on the way, and the order is that of the hex."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.errors import BadInputError
from gristmill.pools.uid import (
    first_fall,
    hex_of_uid,
    make_uids,
    pair_uid,
    parse_uids,
    sort_uids,
    uid_of_hex,
)

DIGITS = "0123456789abcdefABCDEF"
words = st.text(DIGITS, min_size=32, max_size=32)
few = st.sampled_from(["0" * 32, "f" * 32, "0" * 16 + "f" * 16, "7" + "f" * 31, "8" + "0" * 31])
listed = st.lists(st.one_of(words, few), max_size=25)
text = st.text(max_size=12)


def in_chunks(column, cuts):
    """A chunked column whose chunks are slices of a longer array."""
    whole = pa.array(["x", *column, "y"], pa.string())
    edges = sorted({1, len(column) + 1, *(1 + c % (len(column) + 1) for c in cuts)})
    pieces = [whole.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    return pa.chunked_array(pieces, pa.string())


@given(words)
def test_hex_to_numbers_and_back(word):
    high, low = uid_of_hex(word)
    assert (high << 64 | low) == int(word, 16)
    assert hex_of_uid((high, low)) == word.lower()


@given(listed, st.lists(st.integers(0, 30), max_size=4))
def test_a_column_is_parsed_as_each_word_is(column, cuts):
    made = make_uids(column)
    assert [hex_of_uid(uid) for uid in made] == [word.lower() for word in column]
    for form in (in_chunks(column, cuts), pa.array(column, pa.large_string())):
        assert np.array_equal(parse_uids(form, where="x"), made)


@given(listed)
def test_sorting_is_that_of_the_hex_and_of_numpy(column):
    made = make_uids(column)
    ordered = sort_uids(made)
    assert [hex_of_uid(uid) for uid in ordered] == sorted(word.lower() for word in column)
    assert np.array_equal(ordered, np.sort(made))
    assert first_fall(ordered) == -1


@given(listed)
def test_first_fall_is_the_first(column):
    lower = [word.lower() for word in column]
    falls = [i for i in range(len(lower) - 1) if lower[i] > lower[i + 1]]
    assert first_fall(make_uids(column)) == (falls[0] if falls else -1)


@given(listed, st.one_of(st.none(), st.text(max_size=40)), st.data())
def test_one_bad_word_is_named_with_its_row(column, bad, data):
    if bad is not None and len(bad) == 32 and set(bad) <= set(DIGITS):
        return
    row = data.draw(st.integers(0, len(column)))
    column = [*column[:row], bad, *column[row:]]
    with pytest.raises(BadInputError, match=rf"a\.parquet, row {7 + row}: uid"):
        parse_uids(pa.array(column, pa.string()), where="a.parquet", first_row=7)


@given(st.tuples(text, text, text), st.tuples(text, text, text))
def test_pair_uid_is_one_to_one_on_what_it_is_of(one, two):
    assert (pair_uid(*one) == pair_uid(*two)) == (one == two)
    assert hex_of_uid(uid_of_hex(pair_uid(*one))) == pair_uid(*one)


@given(text, text, text, st.integers(1, 11))
def test_pair_uid_knows_where_a_part_ends(image, caption, url, cut):
    joined = caption + url
    moved = (joined[:cut], joined[cut:])
    same = moved == (caption, url)
    assert (pair_uid(image, *moved) == pair_uid(image, caption, url)) == same
