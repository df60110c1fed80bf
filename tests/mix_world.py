"""Made-up mixtures and losses with a known law."""

import csv

import numpy as np

DOMAINS = ("arts", "books", "code", "diary", "essays")
TARGETS = {"books_loss": (0.2, 1.0, 0.05, 0.3, 0.6), "code_loss": (0.05, 0.1, 1.0, 0.0, 0.02)}


def world(rows, seed=0, target="books_loss", noise=0.003):
    """Weights [rows, 5], measured losses [rows] and the true losses."""
    random = np.random.default_rng(seed)
    strength = random.choice([0.5, 2.0, 6.0], size=rows)
    weights = random.standard_gamma(strength[:, None] * np.full(len(DOMAINS), 0.4))
    weights = np.round(weights / weights.sum(1, keepdims=True), 3)
    weights /= weights.sum(1, keepdims=True)
    truth = 1.5 + (weights @ np.array(TARGETS[target]) + 0.02) ** -0.35
    return weights, truth + noise * random.normal(size=rows), truth


def write(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def write_world(folder, rows=40, seed=0, order=None, columns=None):
    """mixtures.csv and losses.csv; rows and columns in another order when asked."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, _, _ = world(rows, seed)
    losses = {name: world(rows, seed, name)[1] for name in TARGETS}
    order = range(rows) if order is None else order
    columns = range(len(DOMAINS)) if columns is None else columns
    mixtures = write(
        folder / "mixtures.csv",
        ["index", *(DOMAINS[c] for c in columns)],
        [[i + 1, *(float(weights[i, c]) for c in columns)] for i in order],
    )
    names = list(losses) if columns == range(len(DOMAINS)) else list(losses)[::-1]
    measured = write(
        folder / "losses.csv",
        [*names, "index"],
        [[*(float(losses[n][i]) for n in names), i + 1] for i in reversed(list(order))],
    )
    return mixtures, measured


QUICKEST = ("gaussian_process", "mixing_law", "stack")


def write_surface(folder, rows, seed=0, noise=0.003, candidates=QUICKEST):
    """A fit of both targets, as `mix fit` would write it, in a moment."""
    from gristmill.mixing.selection import fit_target
    from gristmill.mixing.surface import Surface

    weights, _, _ = world(rows, seed)
    losses = {t: world(rows, seed, t, noise)[1] for t in sorted(TARGETS)}
    Surface(
        domains=DOMAINS,
        index=tuple(str(i) for i in range(rows)),
        weights=weights,
        losses=losses,
        fits={t: fit_target(weights, y, candidates) for t, y in losses.items()},
        seed=0,
    ).save(str(folder))
    return str(folder)
