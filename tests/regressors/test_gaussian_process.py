"""The Gaussian process against plain algebra and its gradient against differences."""

import numpy as np
from mix_world import world
from scipy.optimize import approx_fprime

from gristmill.regressors import _marginal as m


def problem(rows=30):
    weights, losses, _ = world(rows)
    y = (losses - losses.mean()) / losses.std()
    prior = m.Prior().vectors(weights.shape[1])
    theta = prior[0] + 0.3 * np.random.default_rng(0).normal(size=len(prior[0]))
    return weights, y, prior, theta


def plain_covariance(a, b, p):
    """One pair at a time, from the formulas."""
    result = np.empty((len(a), len(b)))
    for i, u in enumerate(a):
        for j, v in enumerate(b):
            lu = np.log(u + np.exp(p.offset)) / np.exp(p.log_scale)
            lv = np.log(v + np.exp(p.offset)) / np.exp(p.log_scale)
            apart = ((lu - lv) ** 2).sum() + (((u - v) / np.exp(p.weight_scale)) ** 2).sum()
            r = np.sqrt(3 * apart)
            matern = np.exp(p.amplitude) ** 2 * (1 + r) * np.exp(-r)
            result[i, j] = matern + np.exp(p.slope) ** 2 * (lu @ lv) + 1
    return result


def test_gradient_is_that_of_differences():
    weights, y, prior, theta = problem()
    value, gradient = m.objective(theta, weights, y, prior)
    plain = approx_fprime(theta, lambda t: m.objective(t, weights, y, prior)[0], 1e-6)
    np.testing.assert_allclose(gradient, plain, atol=2e-4 * np.abs(plain).max())
    assert np.isfinite(value)


def test_posterior_is_that_of_plain_algebra():
    weights, y, _, theta = problem()
    unseen, _, _ = world(7, seed=5)
    p = m.Parameters(theta, weights.shape[1])
    noise = np.diag(m.noise_variance(m.features(weights, p), p))
    inverse = np.linalg.inv(plain_covariance(weights, weights, p) + noise)
    cross = plain_covariance(unseen, weights, p)
    mean = cross @ inverse @ y
    own = np.diag(plain_covariance(unseen, unseen, p))
    own = own + m.noise_variance(m.features(unseen, p), p)
    variance = own - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    found = m.Posterior.given(weights, y, theta)
    np.testing.assert_allclose(found.predict(unseen)[0], mean, rtol=1e-6)
    np.testing.assert_allclose(found.predict(unseen)[1], np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(found.mean(unseen), mean, rtol=1e-6)


def test_value_is_that_of_the_density():
    weights, y, prior, theta = problem()
    p = m.Parameters(theta, weights.shape[1])
    cov = plain_covariance(weights, weights, p)
    cov += np.diag(m.noise_variance(m.features(weights, p), p))
    sign, log_det = np.linalg.slogdet(cov)
    plain = 0.5 * y @ np.linalg.solve(cov, y) + 0.5 * log_det
    plain += 0.5 * (((theta - prior[0]) / prior[1]) ** 2).sum()
    assert sign == 1
    np.testing.assert_allclose(m.objective(theta, weights, y, prior)[0], plain, rtol=1e-8)


def test_a_random_part_first_ends_where_all_rows_end():
    weights, losses, _ = world(300)
    y = (losses - losses.mean()) / losses.std()
    prior = m.Prior()
    vectors = prior.vectors(weights.shape[1])
    quick = m.most_probable(weights, y, prior, max_steps=80, seed=0)
    slow = m._climb(vectors[0], weights, y, vectors, 200)
    best = m.objective(slow, weights, y, vectors)[0]
    assert m.objective(quick, weights, y, vectors)[0] < best + 3.0
