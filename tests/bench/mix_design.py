"""Does choosing the next proxies beat drawing them? On RegMix's tables, where all losses are known.

A design may only choose among the 512 training mixtures. What it ends with is fitted and judged on
the 256 test mixtures, and by what its fit would pick among all 768.
"""

import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from mix_accuracy import TABLES, _fit, _tables

START, BATCH, ROUNDS, SEEDS = 48, 24, 2, 4
METHODS = ("random", "space_filling", "sequential")


def run(out, heading):
    """A row a method and size."""
    top = heading("Designs of mixtures", "make bench").rstrip()
    if not TABLES.exists():
        return f"{top}\n\nNot measured: RegMix's tables are not at {TABLES.name}/ beside the project.\n"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {}
    with ProcessPoolExecutor(2) as pool:
        for seed in range(SEEDS):
            for method in METHODS:
                for size, rank, regret in _followed(pool, method, seed):
                    found.setdefault((method, size), []).append((rank, regret))
                print(seed, method, found[method, size][-1], flush=True)
    lines = [
        top,
        "",
        f"{START} random training mixtures, then {ROUNDS} rounds of {BATCH} more, chosen among the rest of the "
        f"512; {SEEDS} starts, the same for each method. Spearman x 100: mean over 13 losses of the 256 test "
        "mixtures. Regret: of all 768 mixtures, the measured mean loss of the one that the fit holds "
        "best, above the best there is, in thousandths.",
        "",
        "| proxies | design | Spearman x 100 | worst start | regret |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, size in sorted(found, key=lambda k: (k[1], METHODS.index(k[0]))):
        rank, regret = (np.array(x) for x in zip(*found[method, size], strict=True))
        lines.append(
            f"| {size} | {method} | {rank.mean():.2f} | {rank.min():.2f} | {1000 * regret.mean():.1f} |"
        )
    return "\n".join(lines) + "\n"


def _followed(pool, method, seed):
    from gristmill.mixing.selection import score
    from gristmill.mixing.spread import far_apart

    weights, losses, unseen, truth = _tables()
    random = np.random.default_rng(seed)
    order = random.permutation(len(weights))
    rows = list(order[:START])
    everything, measured = (
        np.concatenate([weights, unseen]),
        np.concatenate([losses, truth]).mean(1),
    )
    for number in range(ROUNDS + 1):
        surface = _surface(pool, weights, losses, rows)
        means = {t: surface.mean(t, everything) for t in surface.targets}
        ranks = [
            100 * score(truth[:, int(t)], m[len(weights) :]).spearman for t, m in means.items()
        ]
        pick = int(np.argmin(np.mean(list(means.values()), axis=0)))
        yield len(rows), float(np.mean(ranks)), float(measured[pick] - measured.min())
        if number == ROUNDS:
            return
        rest = np.array(sorted(set(range(len(weights))) - set(rows)))
        if method == "random":
            rows += list(random.permutation(rest)[:BATCH])
        elif method == "space_filling":
            rows += list(rest[far_apart(weights[rest], BATCH, weights[rows])])
        else:
            rows += list(rest[_sequential(surface, weights[rest], BATCH)])


def _sequential(surface, candidates, count):
    from gristmill.mixing.spread import next_batch

    even = {t: 1 / len(surface.targets) for t in surface.targets}
    return next_batch(surface, even, candidates, count, surface.weights)


def _surface(pool, weights, losses, rows):
    from gristmill.mixing.surface import Surface

    measured = {f"{j:02d}": losses[rows, j] for j in range(losses.shape[1])}
    fits = pool.map(_fit, [weights[rows]] * len(measured), measured.values())
    return Surface(
        domains=tuple(f"{i:02d}" for i in range(weights.shape[1])),
        index=tuple(str(row) for row in rows),
        weights=weights[rows],
        losses=measured,
        fits=dict(zip(measured, fits, strict=True)),
        seed=0,
    )


if __name__ == "__main__":
    print(run(None, lambda title, _: f"# {title}"))
