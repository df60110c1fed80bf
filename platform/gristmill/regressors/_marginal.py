"""The Gaussian process's covariance, and its marginal likelihood with an analytic gradient.

Shapes: n mixtures, k domains. One evaluation costs a Cholesky factor, an inverse and a handful of
products [n, n] x [n, 2k], since gradients by feature need no [n, n, k] tensor: for a symmetric M,
sum_ij M_ij |A_i - A_j|^2 has the gradient 4 (diag(M 1) - M) A in A.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, lapack, solve_triangular
from scipy.optimize import minimize

from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array

JITTER = 1e-6
FLOOR = 1e-3
"""Weights are rounded to about this; the noise that rounding makes is felt below it."""
ROOT3 = 3.0**0.5
WIDEST = 4.0
"""Deviations of the prior within which a parameter is sought."""
FIRST_ROWS = 160
"""Rows of the first, cheap part of the search for parameters."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Normal priors on the logarithms of the parameters, as (mean, deviation)."""

    log_scale: tuple[float, float] = (2.0, 1.0)
    """Length scale of each domain in log(weight + offset)."""
    weight_scale: tuple[float, float] = (1.0, 1.0)
    """Length scale of each domain in its plain weight."""
    offset: tuple[float, float] = (float(np.log(1e-3)), 0.7)
    """Offset of each domain inside the logarithm."""
    amplitude: tuple[float, float] = (0.3, 1.0)
    """Deviation of the Matern part, in deviations of the losses."""
    slope: tuple[float, float] = (-1.5, 1.0)
    """Deviation of the linear part."""
    noise: tuple[float, float] = (float(np.log(0.05)), 1.0)
    """Deviation of the noise."""
    rounding: tuple[float, float] = (float(np.log(0.05)), 1.0)
    """Deviation of the noise that rounded weights make."""

    def vectors(self, k: int) -> tuple[Array, Array]:
        """Means and deviations of all parameters in the order of `Parameters`."""
        wide = [self.log_scale, self.weight_scale, self.offset]
        single = [self.amplitude, self.slope, self.noise, self.rounding]
        pairs = np.array([p for p in wide for _ in range(k)] + single)
        return pairs[:, 0].copy(), pairs[:, 1].copy()


class Parameters:
    """Named views of the parameter vector; all but the views are logarithms."""

    def __init__(self, theta: Array, k: int) -> None:
        self.log_scale, self.weight_scale, self.offset = theta[: 3 * k].reshape(3, k)
        self.amplitude, self.slope, self.noise, self.rounding = theta[3 * k :]


@dataclass(frozen=True)
class Features:
    """Mixtures as the covariance sees them."""

    scaled: Array
    """Shape (n, 2k): log(w + offset) and w, each over its length scale."""
    rounding: Array
    """Shape (n,): squared sensitivity to rounded weights."""


def features(weights: Array, p: Parameters) -> Features:
    """Features of mixtures [n, k]."""
    logs = np.log(weights + np.exp(p.offset)) * np.exp(-p.log_scale)
    near_zero = (FLOOR / (weights + FLOOR)) ** 2
    return Features(
        np.concatenate([logs, weights * np.exp(-p.weight_scale)], axis=1),
        near_zero @ np.exp(-2 * p.log_scale),
    )


def _root3_distance(a: Array, b: Array) -> Array:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    np.maximum(squares, 0.0, out=squares)
    np.sqrt(squares, out=squares)
    squares *= ROOT3
    return squares


def covariance(a: Features, b: Features, p: Parameters) -> Array:
    """Prior covariance [a, b] of two sets, without noise: Matern-3/2, linear and constant."""
    k = a.scaled.shape[1] // 2
    r = _root3_distance(a.scaled, b.scaled)
    matern = np.exp(2 * p.amplitude) * (1 + r) * np.exp(-r)
    linear = np.exp(2 * p.slope) * (a.scaled[:, :k] @ b.scaled[:, :k].T)
    return matern + linear + 1.0


def prior_variance(a: Features, p: Parameters) -> Array:
    """The diagonal of `covariance(a, a)`."""
    k = a.scaled.shape[1] // 2
    linear = (a.scaled[:, :k] ** 2).sum(1)
    return np.asarray(np.exp(2 * p.amplitude) + np.exp(2 * p.slope) * linear + 1.0)


def noise_variance(a: Features, p: Parameters) -> Array:
    """Variance of the noise on each row's measured value."""
    rounding = np.exp(2 * p.rounding) * a.rounding
    return np.asarray(np.exp(2 * p.noise) + rounding + JITTER)


def objective(
    theta: Array, weights: Array, y: Array, prior: tuple[Array, Array]
) -> tuple[float, Array]:
    """Negative log posterior of the parameters and its gradient (Rasmussen & Williams 2006, 5.9).

    Args:
        theta: Parameters.
        weights: Mixtures [n, k].
        y: Values [n] with mean 0 and deviation 1.
        prior: Means and deviations of the parameters.
    """
    n, k = weights.shape
    p = Parameters(theta, k)
    f = features(weights, p)
    a, logs = f.scaled, f.scaled[:, :k]
    r = _root3_distance(a, a)
    decay = np.exp(2 * p.amplitude - r)
    matern = (1 + r) * decay
    gram = logs @ logs.T
    linear = np.exp(2 * p.slope)
    cov = matern + linear * gram + 1.0
    cov[np.diag_indices(n)] += noise_variance(f, p)
    factor, bad = lapack.dpotrf(cov, lower=1, clean=1, overwrite_a=1)
    if bad:
        return 1e10, np.zeros_like(theta)
    alpha = cho_solve((factor, True), y)
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor)).sum())
    g, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)  # the lower half; the upper is 0
    g = g + g.T
    g[np.diag_indices(n)] *= 0.5
    g -= np.outer(alpha, alpha)
    g *= 0.5
    grad = _gradient(g, weights, p, f, decay=decay, matern=matern, gram=gram)
    z = (theta - prior[0]) / prior[1]
    return value + 0.5 * float(z @ z), grad + z / prior[1]


def _gradient(
    g: Array,
    weights: Array,
    p: Parameters,
    f: Features,
    *,
    decay: Array,
    matern: Array,
    gram: Array,
) -> Array:
    """By every parameter, from the derivative g [n, n] by the covariance."""
    k = weights.shape[1]
    a, logs = f.scaled, f.scaled[:, :k]
    m = g * decay
    m *= -1.5  # the derivative of (1 + r) exp(-r) by the squared distance is -3/2 exp(-r)
    da = 4 * (m.sum(1)[:, None] * a - m @ a)
    linear = np.exp(2 * p.slope)
    dlogs = da[:, :k] + 2 * linear * (g @ logs)
    gn = np.diag(g).copy()
    near_zero = (FLOOR / (weights + FLOOR)) ** 2
    rounding = np.exp(2 * p.rounding)
    offset = np.exp(p.offset)
    return np.concatenate(
        [
            -(dlogs * logs).sum(0) - 2 * rounding * (gn @ near_zero) * np.exp(-2 * p.log_scale),
            -(da[:, k:] * a[:, k:]).sum(0),
            (dlogs * (offset / (weights + offset))).sum(0) * np.exp(-p.log_scale),
            [
                2 * float((g * matern).sum()),
                2 * linear * float((g * gram).sum()),
                2 * np.exp(2 * p.noise) * gn.sum(),
                2 * rounding * float(gn @ f.rounding),
            ],
        ]
    )


def most_probable(weights: Array, y: Array, prior: Prior, *, max_steps: int, seed: int) -> Array:
    """The parameters of highest posterior density, by L-BFGS from the prior's mean.

    Of many rows a random part goes first: steps on it cost a tenth, and only the last ones need
    all rows.
    """
    vectors = prior.vectors(weights.shape[1])
    n = len(y)
    if n < 1.5 * FIRST_ROWS:
        return _climb(vectors[0], weights, y, vectors, max_steps)
    some = np.sort(np.random.default_rng(seed).permutation(n)[:FIRST_ROWS])
    start = _climb(vectors[0], weights[some], y[some], vectors, max_steps)
    return _climb(start, weights, y, vectors, max_steps // 3)


def _climb(
    start: Array, weights: Array, y: Array, vectors: tuple[Array, Array], max_steps: int
) -> Array:
    found = minimize(
        objective,
        start,
        args=(weights, y, vectors),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([vectors[0] - WIDEST * vectors[1], vectors[0] + WIDEST * vectors[1]], 1),
        options={"maxiter": max_steps},
    )
    return np.asarray(found.x)


@dataclass(frozen=True)
class Posterior:
    """A Gaussian process given its data, in units of the standardised losses."""

    weights: Array
    theta: Array
    factor: Array
    alpha: Array
    known: Features

    @classmethod
    def given(cls, weights: Array, y: Array, theta: Array) -> "Posterior":
        """Condition on mixtures [n, k] and values [n].

        Raises:
            BadInputError: The covariance cannot be factored.
        """
        p = Parameters(theta, weights.shape[1])
        f = features(weights, p)
        cov = covariance(f, f, p)
        cov[np.diag_indices(len(y))] += noise_variance(f, p)
        factor, bad = lapack.dpotrf(cov, lower=1, clean=1)
        if bad:
            raise BadInputError("the Gaussian process's covariance is not positive definite")
        return cls(weights, theta, factor, cho_solve((factor, True), y), f)

    def mean(self, weights: Array) -> Array:
        """Mean at mixtures [m, k]."""
        p = Parameters(self.theta, weights.shape[1])
        cross = covariance(features(weights, p), self.known, p)
        return np.asarray(cross @ self.alpha)

    def predict(self, weights: Array) -> tuple[Array, Array]:
        """Mean and deviation, noise included, of new measurements at mixtures [m, k]."""
        p = Parameters(self.theta, weights.shape[1])
        f = features(weights, p)
        cross = covariance(f, self.known, p)
        explained = solve_triangular(self.factor, cross.T, lower=True)
        variance = prior_variance(f, p) + noise_variance(f, p) - (explained**2).sum(0)
        return cross @ self.alpha, np.sqrt(np.maximum(variance, JITTER))
