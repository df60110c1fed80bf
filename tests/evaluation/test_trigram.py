"""The trigram against modified Kneser-Ney written out with dictionaries, and as a distribution."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from gristmill.core.errors import BadInputError
from gristmill.evaluation.lm.trigram import Trigram

VOCABULARY = 23


def text(size, seed=0):
    """Ids with structure, so that there are grams of every count."""
    choose = np.random.default_rng(seed)
    row = [int(choose.integers(VOCABULARY))]
    while len(row) < size:
        likely = (row[-1] * 7 + (row[-2] if len(row) > 1 else 0)) % (VOCABULARY - 2)
        row.append(likely if choose.random() < 0.6 else int(choose.zipf(1.6)) % (VOCABULARY - 2))
    return np.array(row)


class Plain:
    """Chen and Goodman's interpolated modified Kneser-Ney, gram by gram."""

    def __init__(self, rows):
        threes = Counter(tuple(row[i : i + 3]) for row in rows for i in range(len(row) - 2))
        twos = Counter(gram[1:] for gram in threes)
        ones = Counter(gram[1:] for gram in twos)
        self.levels = [self.level(c) for c in (ones, twos, threes)]

    @staticmethod
    def level(counts):
        n = Counter(counts.values())
        if all(n[i] for i in (1, 2, 3, 4)):
            y = n[1] / (n[1] + 2 * n[2])
            d = {i: i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)}
        else:  # so few unigrams that the estimate is not defined
            d = {1: 0.5, 2: 1.0, 3: 1.5}
        totals, left = defaultdict(int), defaultdict(float)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            left[gram[:-1]] += d[min(count, 3)]
        return counts, d, totals, left

    def p(self, gram):
        if not gram:
            return 1 / VOCABULARY
        counts, d, totals, left = self.levels[len(gram) - 1]
        below = self.p(gram[1:])
        if gram[:-1] not in totals:
            return below
        own = counts[gram] - d[min(counts[gram], 3)] if counts[gram] else 0
        return (own + left[gram[:-1]] * below) / totals[gram[:-1]]


ROWS = [text(4000), text(900, seed=1)]


def test_equals_the_plain_one():
    model, plain = Trigram(ROWS, VOCABULARY), Plain([row.tolist() for row in ROWS])
    assert [order[1][1] == 0.5 for order in plain.levels] == [True, False, False]
    held = text(600, seed=2).reshape(6, 100)
    held[0, 10:13] = VOCABULARY - 1  # an id that was never seen
    found = model.losses(held)
    assert found.shape == (6, 99)
    for row, losses in zip(held.tolist(), found, strict=True):
        for t, loss in enumerate(losses, 1):
            gram = tuple(row[max(t - 2, 0) : t + 1])
            assert loss == pytest.approx(-np.log(plain.p(gram)), rel=1e-12)


def test_is_a_distribution_after_every_context():
    model = Trigram(ROWS, VOCABULARY)
    contexts = [(a, b) for a in range(VOCABULARY) for b in (0, 5, VOCABULARY - 1)]
    tokens = np.array([[a, b, c] for a, b in contexts for c in range(VOCABULARY)])
    sums = np.exp(-model.losses(tokens)).reshape(len(contexts), VOCABULARY, 2)[..., 1].sum(1)
    np.testing.assert_allclose(sums, 1, rtol=1e-12)
    pairs = np.array([[4, c] for c in range(VOCABULARY)])
    assert np.exp(-model.losses(pairs)).sum() == pytest.approx(1, rel=1e-12)


def test_knows_its_text_and_does_not_span_rows():
    model = Trigram(ROWS, VOCABULARY)
    uniform = np.log(VOCABULARY)
    assert model.losses(text(2000, seed=9)[None]).mean() < 0.8 * uniform
    apart, joined = Trigram(ROWS, VOCABULARY), Trigram([np.concatenate(ROWS)], VOCABULARY)
    assert joined.num_tokens == apart.num_tokens == 4900
    seen = {tuple(row[i : i + 3]) for row in ROWS for i in range(len(row) - 2)}
    assert apart.sizes[2] == len(seen)


def test_a_few_tokens_are_enough_and_none_are_not():
    few = Trigram([np.array([1, 2, 3, 1, 2, 3])], VOCABULARY)  # no counts of counts to go by
    assert np.isfinite(few.losses(np.array([[1, 2, 3, 9]]))).all()
    with pytest.raises(BadInputError, match="no row of three tokens"):
        Trigram([np.array([1, 2])], VOCABULARY)
    with pytest.raises(BadInputError, match="vocabularies up to"):
        Trigram(ROWS, 1 << 22)
