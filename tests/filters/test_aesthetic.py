"""The aesthetic filter, and the cut that it shares with clip_score."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_facts import PlainFacts

from gristmill.core.errors import BadInputError
from gristmill.filters.aesthetic import Aesthetic
from gristmill.filters.clip_score import ClipScore

scores = st.lists(
    st.one_of(st.none(), st.just(math.nan), st.sampled_from([0.0, -0.0, 4.5, 5.0]), st.floats()),
    min_size=1,
    max_size=40,
)
COLUMNS = {Aesthetic: "aesthetic_score", ClipScore: "clip_l14_similarity_score"}


def by_rule(values, fraction):
    """DataComp's rule row by row: verdicts, or None when the cut falls among missing scores."""
    known = sorted((v for v in values if v is not None and not math.isnan(v)), reverse=True)
    index = min(int(len(values) * fraction), len(values) - 1)
    if index >= len(known):
        return None
    return [1 if v is None or math.isnan(v) else 0 if v >= known[index] else 2 for v in values]


@pytest.mark.parametrize("kind", list(COLUMNS))
@given(values=scores, fraction=st.floats(0, 1, exclude_min=True))
def test_a_fraction_keeps_what_the_rule_says(kind, values, fraction):
    table = pa.table({COLUMNS[kind]: pa.array(values, pa.float64())})
    wanted = by_rule(values, fraction)
    if wanted is None:
        with pytest.raises(BadInputError, match="NaN or null"):
            kind(fraction=fraction).fit(PlainFacts(table))
    elif math.isinf(threshold := min(v for v, w in zip(values, wanted, strict=True) if w == 0)):
        with pytest.raises(BadInputError, match="threshold must be a number"):
            kind(fraction=fraction).fit(PlainFacts(table))
    else:
        fitted = kind(fraction=fraction).fit(PlainFacts(table))
        assert fitted.threshold == threshold
        assert fitted.judge(table).tolist() == wanted


def test_a_fraction_judges_nothing_before_fit():
    with pytest.raises(BadInputError, match="call fit first"):
        Aesthetic(fraction=0.5).judge(pa.table({"aesthetic_score": [1.0]}))


@pytest.mark.parametrize(
    "fields", [{}, {"fraction": 0.3, "threshold": 5.0}, {"fraction": 0.0}, {"threshold": math.inf}]
)
def test_aesthetic_wants_one_sound_cut(fields):
    with pytest.raises(BadInputError):
        Aesthetic(**fields)


def test_an_integer_column_is_a_number_too():
    table = pa.table({"aesthetic_score": pa.array([4, 5, None], pa.int8())})
    assert Aesthetic(threshold=5.0).judge(table).tolist() == [2, 0, 1]


def test_ties_at_the_cut_are_all_kept():
    values = np.round(np.random.default_rng(0).random(1000), 1)
    table = pa.table({"aesthetic_score": values})
    fitted = Aesthetic(fraction=0.25).fit(PlainFacts(table))
    kept = fitted.judge(table) == 0
    assert kept.sum() > 251
    assert values[kept].min() > values[~kept].max()
