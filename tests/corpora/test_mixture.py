import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.errors import BadInputError
from gristmill.corpora.domains import parse_sources
from gristmill.corpora.mixture import MILLION, Mixture, read_mixture, settled

POSITIVE = st.floats(1e-3, 1e6, allow_nan=False)
NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,10}", fullmatch=True).filter(
    lambda n: n not in ("index", "type")
)


@given(st.dictionaries(NAMES, POSITIVE, min_size=1, max_size=20))
def test_kept_in_millionths_that_sum_to_one(raw):
    mixture = Mixture.normalized(raw)
    total = math.fsum(raw.values())
    assert sum(mixture.parts.values()) == MILLION
    assert list(mixture.weights) == sorted(raw)
    # Tiny weights are raised to a millionth, at the cost of the largest.
    assert all(abs(mixture.weights[n] - raw[n] / total) < 1.000002e-6 * len(raw) for n in raw)
    assert Mixture(weights=dict(reversed(mixture.weights.items()))) == mixture


def test_weights_of_few_decimals_stay_as_they_are():
    weights = {"a": 0.1, "b": 0.7, "c": 0.2}
    assert Mixture(weights=weights).weights == weights
    tenths = {f"d{i}": 0.0002 * n for i, n in enumerate([1, 2499, 2500])}
    assert Mixture(weights=tenths).parts == {"d0": 200, "d1": 499_800, "d2": 500_000}


def test_a_tiny_domain_does_not_drop_out():
    mixture = Mixture.normalized({"web": 1e12, "tiny": 1e4, **{f"t{i}": 1e4 for i in range(9)}})
    assert mixture.parts == {"web": MILLION - 10, "tiny": 1, **{f"t{i}": 1 for i in range(9)}}
    noise = Mixture(weights={"a": 0.3, "b": 0.7, "c": 0.3 - 0.1 - 0.2})
    assert noise.parts == {"a": 300_000, "b": 700_000}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 0.5, "b": 0.47}, "sum to 0.97, not 1; divide each by their sum"),
        ({"a": 1.2, "b": -0.2}, "'b' is -0.2"),
        ({"a": float("nan"), "b": 1.0}, "'a' is nan"),
        ({"a": "half", "b": 0.5}, "'a' is not a number: 'half'"),
        ({"a": True}, "'a' is not a number: True"),
        ({}, "at least one domain"),
        ({"a/b": 1.0}, "'a/b' cannot name a domain"),
        ({"index": 1.0}, "'index' cannot name a domain"),
        ({"..": 1.0}, "cannot name a domain"),
    ],
)
def test_what_is_no_mixture_says_why(weights, said):
    with pytest.raises(BadInputError, match=said):
        Mixture(weights=weights)


def test_nothing_to_normalise():
    with pytest.raises(BadInputError, match="sum to 0"):
        Mixture.normalized({"a": 0.0})


def test_files(tmp_path):
    mixture = Mixture(weights={"b": 0.25, "a": 0.75})
    mixture.save(str(tmp_path / "m.json"))
    assert Mixture.load(str(tmp_path / "m.json")) == mixture
    (tmp_path / "plain.json").write_text(json.dumps({"a": 0.75, "b": 0.25}))
    assert read_mixture(str(tmp_path / "plain.json"), {"a": 1, "b": 1}) == mixture
    (tmp_path / "bad.json").write_text(json.dumps({"a": 0.75}))
    with pytest.raises(BadInputError, match=r"bad.json: mixture weights sum to 0.75"):
        Mixture.load(str(tmp_path / "bad.json"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(BadInputError, match=r"list.json is no mixture"):
        Mixture.load(str(tmp_path / "list.json"))


def test_words():
    sizes = {"web": 300, "books": 100}
    assert read_mixture("natural", sizes).weights == {"books": 0.25, "web": 0.75}
    assert read_mixture("uniform", sizes).weights == {"books": 0.5, "web": 0.5}
    assert read_mixture("web=0.9, books=0.1", sizes).weights == {"books": 0.1, "web": 0.9}
    with pytest.raises(BadInputError, match="no domain 'wbe' in the corpus; perhaps you meant web"):
        read_mixture("wbe=1", sizes)
    with pytest.raises(BadInputError, match="'web' twice"):
        read_mixture("web=0.5,web=0.5", sizes)
    with pytest.raises(BadInputError, match="'books' is not a number: 'x'"):
        read_mixture("web=0.5,books=x", sizes)


@given(st.dictionaries(NAMES, POSITIVE, min_size=1, max_size=20))
def test_text_is_the_whole_mixture(raw):
    mixture = Mixture.normalized(raw)
    assert read_mixture(mixture.text, raw) == mixture


def test_sources():
    assert parse_sources(["b=/x", "a=/y=z", "b=/w"]) == {"a": ("/y=z",), "b": ("/x", "/w")}
    with pytest.raises(BadInputError, match=r"'/data' is not name=URI"):
        parse_sources(["/data"])
    with pytest.raises(BadInputError, match="password"):
        parse_sources(["a=s3://key:secret@bucket/x"])


def test_a_list_that_does_not_sum_to_1_is_told_what_does():
    with pytest.raises(BadInputError, match=r"sum to 0\.9, not 1; .* give a=0\.555556,b=0\.444444"):
        settled("a=0.5,b=0.4")
    assert settled("a=0.555556,b=0.444444") == "a=0.555556,b=0.444444"
    with pytest.raises(BadInputError, match=r"the weight of domain 'b' is -0\.4"):
        settled("a=0.5,b=-0.4")
