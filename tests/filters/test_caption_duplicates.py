import subprocess
import sys

import numpy as np
import plain_hashes
import pyarrow as pa
import pytest
from plain_facts import repeated_rows

from gristmill.core.errors import BadInputError
from gristmill.filters import _minhash
from gristmill.filters.caption_duplicates import CaptionDuplicates

SIZES = {"ngram": 3, "bands": 4, "rows_per_band": 3, "seed": 5}
TEXTS = [
    "A photo of a brown dog, running!",
    "a photo of a brown dog running",
    "Ｆｕｌｌ ｗｉｄｔｈ ﬁne",
    "full width fine",
    "один два три четыре",
    "हिन्दी में एक वाक्य",
    "公園を走る茶色の犬の写真",
    "two words",
    "one",
    "",
    "?! ... --",
    None,
    "line\nbreak\there\u00a0now",
    "x" * 300 + " y " * 400,
    "don't stop",
]


def keys_by_row(chosen, table):
    keyed, found = chosen.keyed(table), {}
    for row, key in zip(keyed.rows.tolist(), keyed.keys.tolist(), strict=True):
        found.setdefault(row, []).append(tuple(key))
    return found


def test_keys_are_those_of_a_plain_implementation():
    rng = np.random.default_rng(0)
    texts = [*TEXTS, *(" ".join(rng.choice(list("abcdefgh"), n)) for n in (1, 2, 3, 4, 300, 900))]
    found = keys_by_row(CaptionDuplicates(**SIZES), pa.table({"text": texts}))
    plain = {i: plain_hashes.band_keys(t, **SIZES) for i, t in enumerate(texts) if t is not None}
    assert found == {i: keys for i, keys in plain.items() if keys}
    assert {9, 10, 11}.isdisjoint(found)


def test_equal_after_normalising_means_duplicate():
    assert repeated_rows(CaptionDuplicates(), pa.table({"text": TEXTS})) == {1, 3}


def test_batches_blocks_and_order_change_no_key(monkeypatch):
    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in range(50)]
    texts = [" ".join(rng.choice(words, rng.integers(1, 40))) for _ in range(300)] + TEXTS
    chosen, table = CaptionDuplicates(**SIZES), pa.table({"text": texts})
    whole = keys_by_row(chosen, table)
    monkeypatch.setattr(_minhash, "TEXTS_AT_ONCE", 17)
    monkeypatch.setattr(_minhash, "PIECES_AT_ONCE", 5)
    monkeypatch.setattr(_minhash, "PIECE_SHINGLES", 3)
    assert keys_by_row(chosen, table) == whole
    order = rng.permutation(len(texts))
    shuffled = keys_by_row(chosen, table.take(order))
    assert {int(order[row]): keys for row, keys in shuffled.items()} == whole
    assert keys_by_row(chosen, table.slice(0, 0)) == {}


def test_another_process_makes_the_same_keys():
    code = (
        "import pyarrow as pa\n"
        "from gristmill.filters.caption_duplicates import CaptionDuplicates\n"
        "print(CaptionDuplicates().keyed(pa.table({'text': ['a b c d e f g']})).keys.tolist())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    here = CaptionDuplicates().keyed(pa.table({"text": ["a b c d e f g"]})).keys.tolist()
    assert found == {f"{here}\n"}


@pytest.mark.parametrize(("shared", "rest"), [(60, 40), (80, 20), (90, 10)])
def test_pairs_meet_as_often_as_the_formula_says(shared, rest):
    """Two sets of `shared` + `rest` words each, ngram 1: similarity shared / (shared + 2 rest)."""
    pairs, bands, rows = 1500, 6, 4
    lines = []
    for i in range(pairs):
        common = [f"c{i}x{j}" for j in range(shared)]
        for side in "ab":
            lines.append(" ".join([*common, *(f"{side}{i}x{j}" for j in range(rest))]))
    chosen = CaptionDuplicates(ngram=1, bands=bands, rows_per_band=rows)
    keys = chosen.keyed(pa.table({"text": lines})).keys.reshape(pairs, 2, bands, 2)
    met = (keys[:, 0] == keys[:, 1]).all(-1)
    similarity = shared / (shared + 2 * rest)
    for found, wanted in (
        (met.mean(), similarity**rows),
        (met.any(1).mean(), 1 - (1 - similarity**rows) ** bands),
    ):
        count = pairs * bands if wanted == similarity**rows else pairs
        assert abs(found - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / count)


def test_documents_with_a_small_change_go_and_others_stay():
    rng = np.random.default_rng(2)
    words = [f"word{i}" for i in range(2000)]
    documents = [list(rng.choice(words, 400)) for _ in range(60)]
    changed = [[*d[:200], "changed", *d[201:]] for d in documents]
    halves = [d[:200] + list(rng.choice(words, 200)) for d in documents]
    table = pa.table({"text": [" ".join(d) for d in documents + changed + halves]})
    assert repeated_rows(CaptionDuplicates(), table) == set(range(60, 120))


@pytest.mark.parametrize("name", ["ngram", "bands", "rows_per_band"])
def test_wrong_settings_are_named(name):
    with pytest.raises(BadInputError, match=f"{name} must be at least 1, not 0"):
        CaptionDuplicates(**{name: 0})
