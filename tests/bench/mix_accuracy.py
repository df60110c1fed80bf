"""Rank correlation and coverage on RegMix's tables, and what a fit costs.

The 256 test mixtures are only predicted, by fits of `mix fit`'s own defaults.
"""

import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

TABLES = Path(__file__).parents[3] / "shared" / "data" / "regmix"
SIZES = (64, 128, 256, 512)
SEEDS = 5
LIGHTGBM = {64: 95.7, 128: 97.5, 256: 98.52, 512: 98.96}
MUST = {64: 97.8, 128: 98.45, 256: 99.0, 512: 99.25}


def run(out, heading):
    """The accuracy table, or why there is none."""
    top = heading("Mixture regression on RegMix's tables", "make bench").rstrip()
    if not TABLES.exists():
        return f"{top}\n\nNot measured: RegMix's tables are not at {TABLES.name}/ beside the project.\n"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("gristmill").setLevel(
        logging.ERROR
    )  # drifting sums are known of these tables
    lines = [
        top,
        "",
        f"Mean over 13 losses of the 256 test mixtures, mean of {SEEDS} random subsets (one of all 512), "
        "`mix fit` with nothing set. Coverage is that of the 90 % intervals. Seconds are those of "
        "fitting all 13 targets, cross-validation included, on two processes. The rows left out are training "
        "mixtures that the subset does not hold; only the rule for odd runs was compared on such rows.",
        "",
        "| training mixtures | RegMix's LightGBM | must reach | Spearman x 100 | worst subset | coverage, % | coverage of rows left out, % | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with ProcessPoolExecutor(2) as pool:
        for size in SIZES:
            seeds = range(SEEDS if size < 512 else 1)
            found = [_measured(pool, size, seed) for seed in seeds]
            rank, cover, left, seconds = (np.array(x) for x in zip(*found, strict=True))
            lines.append(
                f"| {size} | {LIGHTGBM[size]} | {MUST[size]} | {rank.mean():.2f} | {rank.min():.2f} "
                f"| {cover.mean():.1f} | {f'{left.mean():.1f}' if size < max(SIZES) else ''} "
                f"| {seconds.mean():.0f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def _tables():
    from gristmill.mixing.tables import matched, read_losses, read_mixtures

    found = []
    for part in ("train", "test"):
        mixtures = read_mixtures(str(TABLES / f"{part}_mixture_1m.csv"))
        losses = read_losses(str(TABLES / f"{part}_pile_loss_1m.csv"))
        found += [mixtures.values, matched(mixtures, losses)]
    return found


def _fit(weights, losses):
    from gristmill.mixing.fit import FEW_ROWS, REGRESSORS
    from gristmill.mixing.selection import fit_target
    from gristmill.mixing.threads import one_thread

    with one_thread():
        folds = 10 if len(losses) <= FEW_ROWS else 5
        return fit_target(weights, losses, REGRESSORS, num_folds=folds)


def _measured(pool, size, seed):
    from gristmill.mixing.selection import calibrated, odd_runs, score
    from gristmill.regressors.base import groups_of

    weights, losses, unseen, truth = _tables()
    rows = np.sort(np.random.default_rng(seed).permutation(len(weights))[:size])
    measured = {str(j): losses[rows, j] for j in range(losses.shape[1])}
    start = time.perf_counter()
    fits = dict(
        zip(
            measured,
            pool.map(_fit, [weights[rows]] * len(measured), measured.values()),
            strict=True,
        )
    )
    seconds = time.perf_counter() - start
    group = groups_of(weights[rows])
    odd = odd_runs(fits, measured, group)
    rest = np.setdiff1d(np.arange(len(weights)), rows)
    ranks, inside, left = [], [], [np.nan]
    for name, fit in fits.items():
        fit = calibrated(fit, measured[name], odd, group)
        found = fit.fits[fit.chosen].predict(unseen)
        ranks.append(100 * score(truth[:, int(name)], found.mean).spearman)
        inside.append(np.abs(truth[:, int(name)] - found.mean) <= fit.factor * found.spread)
        if len(rest):
            other = fit.fits[fit.chosen].predict(weights[rest])
            error = np.abs(losses[rest, int(name)] - other.mean)
            left.append(float((error <= fit.factor * other.spread).mean()))
    return (
        float(np.mean(ranks)),
        100 * float(np.mean(inside)),
        100 * float(np.nanmean(left)) if len(rest) else np.nan,
        seconds,
    )


if __name__ == "__main__":
    print(run(None, lambda title, _: f"# {title}"))
