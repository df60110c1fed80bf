"""Properties of the hashes, against one number at a time."""

import hashlib

import numpy as np
import plain_hashes
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gristmill.filters import _hash128, _minhash
from gristmill.filters._minhash import MinHash

word = st.integers(0, (1 << 64) - 1)
words = st.lists(word, min_size=1, max_size=20)
sizes = st.builds(
    lambda ngram, bands, rows, seed: {
        "ngram": ngram,
        "bands": bands,
        "rows_per_band": rows,
        "seed": seed,
    },
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(-(1 << 70), 1 << 70),
)
# Few words, so that texts share shingles; all kinds of characters too.
texts = st.lists(
    st.one_of(
        st.none(),
        st.text(max_size=30),
        st.lists(st.sampled_from(["a", "b", "É", "ﬁ", "3", "日本"]), max_size=12).map(" ".join),
    ),
    max_size=12,
)


def keys_of(made, column):
    rows, keys = MinHash(**made).band_keys(pa.chunked_array([pa.array(column, pa.large_string())]))
    found = [(row, [tuple(k) for k in per]) for row, per in zip(rows, keys.tolist(), strict=True)]
    return dict(found)


@given(words)
def test_mix_is_the_plain_one(listed):
    assert _hash128.mix64(np.array(listed, np.uint64)).tolist() == list(
        map(plain_hashes.mix, listed)
    )


@given(st.sets(word, max_size=40))
def test_mix_sends_no_two_to_one(distinct):
    mixed = _hash128.mix64(np.array(sorted(distinct), np.uint64))
    assert len(set(mixed.tolist())) == len(distinct)


@given(st.integers(0, 50), st.integers(-(1 << 70), 1 << 70))
def test_stream_is_the_plain_one_and_a_prefix_of_longer_ones(count, seed):
    assert _hash128.stream64(count, seed).tolist() == plain_hashes.stream(count, seed)
    longer = _hash128.stream64(count + 3, seed)
    assert np.array_equal(longer[:count], _hash128.stream64(count, seed))


@given(st.lists(st.tuples(word, word, word), min_size=1, max_size=20))
def test_keys_of_words_are_the_plain_ones_and_distinct(rows):
    keys = [tuple(k) for k in _hash128.keys_of_words(np.array(rows, np.uint64)).tolist()]
    assert keys == [plain_hashes.key(row) for row in rows]
    assert len(set(keys)) == len(set(rows))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_words_of_hex_are_big_endian(listed):
    column = pa.chunked_array([pa.array([b.hex() for b in listed], pa.string())])
    found = [tuple(w) for w in _hash128.words_of_hex(column).tolist()]
    assert found == [tuple(int(b.hex()[i : i + 16], 16) for i in (0, 16)) for b in listed]


@given(st.lists(st.text(max_size=10), max_size=20))
def test_keys_of_values_are_blake2b(listed):
    found = _hash128.keys_of_values(pa.array(listed, pa.large_string()), person=b"p")
    plain = [hashlib.blake2b(t.encode(), digest_size=16, person=b"p").digest() for t in listed]
    assert found.astype("<u8").tobytes() == b"".join(plain)


@given(sizes, texts)
def test_band_keys_are_the_plain_ones(made, column):
    plain = {i: plain_hashes.band_keys(t, **made) for i, t in enumerate(column) if t is not None}
    assert keys_of(made, column) == {i: keys for i, keys in plain.items() if keys}


@given(sizes, texts, st.randoms(use_true_random=False))
def test_neither_order_nor_case_nor_punctuation_counts(made, column, rng):
    whole = keys_of(made, column)
    order = list(range(len(column)))
    rng.shuffle(order)
    shuffled = keys_of(made, [column[i] for i in order])
    assert {order[row]: keys for row, keys in shuffled.items()} == whole
    plain = [t for t in column if t is not None and t.isascii()]
    assert keys_of(made, [f" {t.upper()}... " for t in plain]) == keys_of(made, plain)


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(1, 7))
def test_shingles_never_cross_from_one_text_to_the_next(counts, ngram):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, sum(counts), np.uint64)
    together, sizes_t = _minhash.shingles(hashes, np.array(counts, np.int64), ngram)
    alone, start = [], 0
    for count in counts:
        one, _ = _minhash.shingles(hashes[start : start + count], np.array([count]), ngram)
        alone += one.tolist()
        start += count
    assert together.tolist() == alone
    assert sizes_t.tolist() == [max(count - ngram + 1, 1) for count in counts]
