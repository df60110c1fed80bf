"""What every regressor promises, asked of each file in gristmill.regressors."""

import json
import pickle

import numpy as np
import pytest
from mix_world import world

from gristmill.core import plugins
from gristmill.core.config import from_dict, to_dict
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.mixing.selection import score
from gristmill.mixing.surface import dump, undump
from gristmill.regressors.base import (
    Regressor,
    State,
    Support,
    bounded,
    folds,
    groups_of,
    held_out,
)

PACKAGE = "gristmill.regressors"
NAMES = plugins.names(PACKAGE)
LEAST = {"ordinary_least_squares": 0.7}
"""Held-out rank correlation that a made-up world must reach; 0.9 for the others."""


@pytest.fixture(params=NAMES)
def chosen(request):
    return request.param, plugins.find(PACKAGE, request.param, Regressor)()


def test_the_folder_is_not_empty():
    assert {"gaussian_process", "mixing_law", "ordinary_least_squares", "stack"} <= set(NAMES)


def test_picklable_and_back_through_json(chosen):
    _, regressor = chosen
    assert pickle.loads(pickle.dumps(regressor)) == regressor
    assert from_dict(json.loads(json.dumps(to_dict(regressor)))) == regressor


def test_learns(chosen):
    name, regressor = chosen
    weights, losses, _ = world(80)
    unseen, truth, _ = world(200, seed=1)
    found = regressor.fit(weights, losses).predict(unseen)
    assert found.mean.shape == found.spread.shape == (200,)
    assert (found.spread > 0).all()
    assert score(truth, found.mean).spearman > LEAST.get(name, 0.9)


def test_same_rows_and_seed_same_fit(chosen):
    _, regressor = chosen
    weights, losses, _ = world(40)
    first = regressor.fit(weights, losses, seed=3).predict(weights)
    again = regressor.fit(weights.copy(), losses.copy(), seed=3).predict(weights)
    np.testing.assert_array_equal(first.mean, again.mean)
    np.testing.assert_array_equal(first.spread, again.spread)


def test_state_goes_through_json_and_arrays_without_pickle(chosen):
    _, regressor = chosen
    weights, losses, _ = world(40)
    fitted = regressor.fit(weights, losses)
    state = fitted.state()
    values = json.loads(json.dumps(state.values))
    again = regressor.restore(State(values=values, arrays=undump(dump(state.arrays), "here")))
    np.testing.assert_array_equal(again.predict(weights).mean, fitted.predict(weights).mean)
    np.testing.assert_array_equal(again.predict(weights).spread, fitted.predict(weights).spread)
    np.testing.assert_allclose(again.mean(weights), fitted.predict(weights).mean, rtol=1e-12)


def test_no_mixtures_one_mixture_and_a_batch_agree(chosen):
    _, regressor = chosen
    weights, losses, _ = world(40)
    fitted = regressor.fit(weights, losses)
    assert fitted.predict(weights[:0]).mean.shape == (0,)
    single = [fitted.predict(row[None]).mean[0] for row in weights[:5]]
    np.testing.assert_allclose(single, fitted.predict(weights[:5]).mean, rtol=1e-9)


def test_fewer_mixtures_than_domains_and_a_constant_loss(chosen):
    _, regressor = chosen
    weights, losses, _ = world(9)
    rows = np.concatenate([weights, np.zeros((9, 6))], axis=1)
    assert np.isfinite(regressor.fit(rows, losses).predict(rows).mean).all()
    flat = regressor.fit(weights, np.full(9, 3.0)).predict(weights)
    np.testing.assert_allclose(flat.mean, 3.0, atol=1e-3)
    assert np.isfinite(flat.spread).all()


def test_every_row_is_predicted_by_a_fit_that_has_not_seen_it():
    class Remembers(Regressor):
        def fit(self, weights, losses, *, seed=0):
            known = {row.tobytes() for row in weights}

            class Fit:
                def predict(self, rows):
                    assert not known & {row.tobytes() for row in rows}
                    from gristmill.regressors.base import Prediction

                    return Prediction(mean=np.zeros(len(rows)), spread=np.ones(len(rows)))

            return Fit()

        def restore(self, state):
            raise NotImplementedError

    weights, losses, _ = world(23)
    parts = folds(groups_of(weights), 5, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(23))
    assert held_out(Remembers(), weights, losses, parts).mean.shape == (23,)


def test_folds_that_cannot_be_made():
    with pytest.raises(BadInputError, match="1 folds of 1 mixtures"):
        folds(np.zeros(5, np.int64), 6, 0)


def test_runs_of_one_mixture_stand_in_one_fold():
    weights, _, _ = world(9)
    group = groups_of(np.concatenate([weights, weights[::-1], weights[:2]]))
    assert group.tolist() == [*range(9), *range(8, -1, -1), 0, 1]
    parts = folds(group, 4, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(20))
    of = [{int(group[row]) for row in part} for part in parts]
    assert sum(map(len, of)) == 9 and max(map(len, of)) <= 3
    order = np.random.default_rng(3).permutation(23)  # without repeats: nothing but an order
    plain = folds(groups_of(world(23)[0]), 5, 3)
    assert [p.tolist() for p in plain] == [sorted(order[i::5].tolist()) for i in range(5)]


def test_predictions_stay_within_a_range_of_what_was_measured(chosen):
    """Corners that no mixture was near: a power law in next to nothing would say thousands."""
    _, regressor = chosen
    random = np.random.default_rng(0)
    for rows in (12, 24):
        weights = random.dirichlet(np.full(12, 0.3), rows)
        worth = np.exp(random.normal(0, 2.5, 12))
        losses = 2 + (weights @ worth + 0.01) ** -0.6
        ends, room = (losses.min(), losses.max()), np.ptp(losses)
        found = regressor.fit(weights, losses).predict(np.eye(12))
        assert (found.mean > ends[0] - room).all() and (found.mean < ends[1] + room).all()
        assert np.isfinite(found.spread).all()


def test_bounds_leave_what_is_near_and_keep_the_order():
    values = np.linspace(-100, 100, 4001)
    found = bounded(values, 2.0, 4.0)
    near = (values >= 1.0) & (values <= 5.0)
    np.testing.assert_array_equal(found[near], values[near])
    assert (np.diff(found) > 0).all() and found[0] > 0.0 and found[-1] < 6.0
    assert bounded(np.array([1.0, 9.0]), 3.0, 3.0).tolist() == [3.0, 3.0]


@pytest.mark.parametrize("name", ["boosted_trees", "gaussian_process", "mixing_law"])
def test_the_spread_grows_away_from_the_training_mixtures(name):
    """Trained on mixtures of the first three domains alone, asked for the two others."""
    random = np.random.default_rng(0)
    weights = np.zeros((60, 5))
    weights[:, :3] = random.dirichlet(np.ones(3), 60)
    weights[:, 3:] = 0.01 * random.random((60, 2))
    weights /= weights.sum(1, keepdims=True)
    losses = 2 + (weights @ np.array([1.0, 0.4, 0.1, 0.3, 0.2]) + 0.05) ** -0.3
    losses += 0.01 * random.normal(size=60)
    fitted = plugins.find(PACKAGE, name, Regressor)().fit(weights, losses)
    inside = fitted.predict(weights).spread
    assert fitted.predict(np.eye(5)[3:]).spread.min() > 2 * inside.max()


def test_support_tells_corners_and_small_weights():
    weights = np.random.default_rng(0).dirichlet(np.full(5, 5.0), 100)
    support = Support(weights)
    np.testing.assert_allclose(support.beyond(weights), 0.0, atol=1e-4)
    assert support.beyond(np.eye(5)).min() > 2
    little = weights[:1].copy()
    little[0, 0] = 1e-6
    assert support.beyond(little / little.sum())[0] > 2
    assert support.beyond(weights[:0]).shape == (0,)


def test_a_stored_stack_names_no_part_but_its_own():
    stack = plugins.find(PACKAGE, "stack", Regressor)()
    state = State(values={"parts": {"python:os:path": {"share": 1.0, "scale": 1.0, "values": {}}}})
    with pytest.raises(CorruptDataError, match="names python:os:path, not of its parts"):
        stack.restore(state)
