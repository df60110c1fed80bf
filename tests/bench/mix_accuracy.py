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
        "mixtures that the subset does not hold; the treatment of odd runs was compared on such rows, and on the test rows too (decision 7). Wild runs are "
        "left out of the fit, which is then made again; its seconds count both.",
        "",
        "| training mixtures | RegMix's LightGBM | must reach | Spearman x 100 | worst subset | coverage, % | coverage of rows left out, % | wild runs | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with ProcessPoolExecutor(2) as pool:
        for size in SIZES:
            seeds = range(SEEDS if size < 512 else 1)
            found = [_measured(pool, size, seed) for seed in seeds]
            rank, cover, left, odd, seconds = (np.array(x) for x in zip(*found, strict=True))
            lines.append(
                f"| {size} | {LIGHTGBM[size]} | {MUST[size]} | {rank.mean():.2f} | {rank.min():.2f} "
                f"| {cover.mean():.1f} | {f'{left.mean():.1f}' if size < max(SIZES) else ''} "
                f"| {odd.mean():.1f} | {seconds.mean():.0f} |"
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
    from gristmill.mixing.odd import fit_without_odd
    from gristmill.mixing.selection import score

    weights, losses, unseen, truth = _tables()
    rows = np.sort(np.random.default_rng(seed).permutation(len(weights))[:size])
    measured = {str(j): losses[rows, j] for j in range(losses.shape[1])}

    def fit_all(_, some, own):
        found = pool.map(_fit, [some] * len(own), own.values())
        return dict(zip(own, found, strict=True))

    start = time.perf_counter()
    found = fit_without_odd(weights[rows], measured, fit_all)
    seconds = time.perf_counter() - start
    rest = np.setdiff1d(np.arange(len(weights)), rows)
    ranks, inside, left = [], [], [np.nan]
    for name, fit in found.fits.items():
        expected = fit.interval(unseen)
        ranks.append(100 * score(truth[:, int(name)], expected.mean).spearman)
        inside.append(np.abs(truth[:, int(name)] - expected.mean) <= expected.half)
        if len(rest):
            other = fit.interval(weights[rest])
            left.append(float((np.abs(losses[rest, int(name)] - other.mean) <= other.half).mean()))
    return (
        float(np.mean(ranks)),
        100 * float(np.mean(inside)),
        100 * float(np.nanmean(left)) if len(rest) else np.nan,
        int((~found.kept).sum()),
        seconds,
    )


if __name__ == "__main__":
    print(run(None, lambda title, _: f"# {title}"))
