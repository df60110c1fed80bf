import hashlib

import numpy as np
import pyarrow as pa
import pytest
from plain_facts import PlainFacts, repeated_rows

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.exact_duplicates import ExactDuplicates


def plainly(values):
    """Rows whose value an earlier row has."""
    seen, gone = set(), set()
    for row, value in enumerate(values):
        if value in seen:
            gone.add(row)
        elif value:
            seen.add(value)
    return gone


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_captions_are_compared_byte_for_byte(kind):
    # The letter é as one code point and as two: other bytes, so not the same caption.
    texts = ["a", "b", "a", None, "", "A", None, "", "\u00e9", "e\u0301", "a ", "b", "日本", "日本"]
    table = pa.table({"text": pa.array(texts, kind)})
    assert repeated_rows(ExactDuplicates(column="text"), table) == plainly(texts) == {2, 11, 13}


def test_a_sha256_is_read_as_hex_and_broken_ones_stay():
    one, two = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    values = [one, two, one.upper(), "", None, "", "none", "none", one[:63], one[:63], one + "0"]
    chosen = ExactDuplicates()
    keyed = chosen.keyed(pa.table({"sha256": values}))
    assert keyed.rows.tolist() == [0, 1, 2]
    assert [f"{a:016x}{b:016x}" for a, b in keyed.keys] == [one[:32], two[:32], one[:32]]
    assert repeated_rows(chosen, pa.table({"sha256": values})) == {2}


@pytest.mark.parametrize("column", ["sha256", "url"])
def test_same_rows_as_a_set_in_memory(column):
    rng = np.random.default_rng(0)
    values = [hashlib.sha256(str(n).encode()).hexdigest() for n in rng.integers(0, 3000, 5000)]
    values = [None if rng.random() < 0.01 else v for v in values]
    table = pa.table({column: values})
    assert repeated_rows(ExactDuplicates(column=column), table) == plainly(values)
    chosen = ExactDuplicates(column=column)
    whole = chosen.keyed(table)
    parts = [chosen.keyed(table.slice(i, 700)) for i in range(0, 5000, 700)]
    assert np.array_equal(np.concatenate([p.keys for p in parts]), whole.keys)


def test_the_best_row_stays_and_earlier_filters_choose_who_takes_part():
    table = pa.table(
        {
            "text": ["x", "x", "x", "y"],
            "clip_l14_similarity_score": [0.1, 0.3, 0.2, 0.0],
        }
    )
    best = ExactDuplicates(column="text", best_by="clip_l14_similarity_score")
    assert repeated_rows(best, table) == {0, 2}
    facts = PlainFacts(table)
    chain = (ClipScore(threshold=0.15) & ExactDuplicates(column="text")).fit(facts)
    assert chain.judge(facts.table.select(list(chain.columns))).tolist() == [2, 0, 3, 2]


def test_a_wrong_column_is_named():
    with pytest.raises(BadInputError, match="column size is int64, not a string"):
        ExactDuplicates(column="size").keyed(pa.table({"size": [1]}))
    broken = pa.array([b"\xff"]).view(pa.string())
    with pytest.raises(CorruptDataError, match="column text holds text that is not UTF-8"):
        ExactDuplicates(column="text").keyed(pa.table({"text": broken}))
