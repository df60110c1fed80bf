import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.corpora.apportionment import Apportionment
from gristmill.corpora.mixture import Mixture

PARTS = st.lists(st.integers(1, 400), min_size=1, max_size=24)


def named(parts):
    return {f"d{i:02d}": n for i, n in enumerate(parts)}


def prefix_counts(apportionment, slots):
    domain, _ = apportionment.at(np.arange(slots))
    return np.cumsum(domain[:, None] == np.arange(len(apportionment.domains)), axis=0)


@settings(max_examples=150)
@given(PARTS)
def test_every_prefix_is_within_one_sequence(parts):
    found = Apportionment(named(parts))
    slots = min(2 * found.period + 3, 9000)
    counts = prefix_counts(found, slots)
    exact = np.arange(1, slots + 1)[:, None] * found.per_period  # times the period
    # Whole numbers, no tolerance: floor(n w) <= count <= ceil(n w).
    assert (counts >= exact // found.period).all()
    assert (counts <= -(-exact // found.period)).all()


@pytest.mark.parametrize(
    "parts",
    [
        [500_000] + [31_250] * 16,  # one half beside many equal: largest deficit strays to 4
        [999_999, 1],
        [1] * 23,
        [999_000] + [10] * 100,
        [340_000, 330_000, 329_999, 1],
    ],
)
def test_hard_weights(parts):
    found = Apportionment(named(parts))
    slots = min(found.period, 200_000)
    ideal = np.arange(1, slots + 1)[:, None] * (found.per_period / found.period)
    assert np.abs(prefix_counts(found, slots) - ideal).max() < 1


@given(PARTS, st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_random_access_is_the_walk(parts, slots):
    found = Apportionment(named(parts))
    domain, draw = found.at(np.array(slots))
    for slot, one, number in zip(slots, domain.tolist(), draw.tolist(), strict=True):
        before, after = found.counts(slot), found.counts(slot + 1)
        assert sum(before.values()) == slot
        name = found.domains[one]
        assert before[name] == number and after[name] == number + 1


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 99), min_size=2))
def test_names_not_places_decide(parts):
    backwards = dict(reversed(list(parts.items())))
    slots = np.arange(500)
    a, b = Apportionment(parts), Apportionment(backwards)
    assert a.domains == b.domains
    assert all(np.array_equal(x, y) for x, y in zip(a.at(slots), b.at(slots), strict=True))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 17))
def test_mixtures_of_the_search(seed, domains):
    """Dirichlet draws in multiples of 2e-4, as RegMix's designs have them."""
    draw = np.random.default_rng(seed).dirichlet(np.full(domains, 0.4))
    units = np.round(draw * 5000) + 1e-12
    mixture = Mixture.normalized(dict(zip(named([1] * domains), units, strict=True)))
    found = Apportionment(mixture.parts)
    slots = 20_000
    target = np.array([mixture.weights[name] for name in found.domains])
    ideal = np.arange(1, slots + 1)[:, None] * target
    assert np.abs(prefix_counts(found, slots) - ideal).max() < 1
