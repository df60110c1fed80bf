"""report.html of a fit: figures held out, predicted against measured, what matters to a target."""

from functools import partial
from typing import Any

import numpy as np

from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.mixing.effects import importance, interactions
from gristmill.mixing.surface import Surface

STRONGEST = 12


def write(run: Run, surface: Surface, drift: float) -> None:
    """Write the page."""
    page = Report(
        title="Mixture regression",
        subtitle=(
            f"{len(surface.targets)} targets of {len(surface.index)} mixtures of "
            f"{len(surface.domains)} domains; every figure is of rows held out"
        ),
    )
    if drift > 1e-6:
        page.warnings.append(
            f"Sums of weights drift from 1 by up to {drift:.2g}, as rounding explains; each row "
            "was divided by its sum."
        )
    if surface.odd:
        page.warnings.append(
            f"{len(surface.odd)} runs were mispredicted on most targets at once and look as if "
            f"they went wrong: {', '.join(surface.odd[:STRONGEST])}. They stay in the fit, but do "
            "not widen its intervals; look at them, or train them again."
        )
    _chosen(page, surface)
    _by_regressor(page, surface)
    for name in surface.targets:
        page.plot(f"{name}: predicted against measured", partial(_draw, surface, name))
    _effects(page, surface)
    page.save(run.path(REPORT))


def _chosen(page: Report, surface: Surface) -> None:
    rows = []
    for name in surface.targets:
        fit = surface.fits[name]
        s = fit.scores[fit.chosen]
        shares = ", ".join(f"{n} {share:.2f}" for n, share in fit.shares.items())
        width = 2 * fit.factor * float(fit.seen.spread.mean())
        rows.append(
            [name, fit.chosen, 100 * s.spearman, 100 * s.pearson, s.mae, width,
             shares if fit.chosen == "stack" else ""]
        )  # fmt: skip
    page.table(
        "Chosen by cross-validation",
        ["target", "regressor", "Spearman x 100", "Pearson x 100", "MAE", "mean width of 90 %",
         "shares"],
        rows,
        note="Spearman, Pearson and mean absolute error on rows that the fit had not seen.",
    )  # fmt: skip


def _by_regressor(page: Report, surface: Surface) -> None:
    names = sorted({n for fit in surface.fits.values() for n in fit.scores})
    rows = [
        [target, *(100 * surface.fits[target].scores[n].spearman for n in names)]
        for target in surface.targets
    ]
    rows.append(
        ["mean", *(float(np.mean([row[i + 1] for row in rows])) for i in range(len(names)))]
    )
    page.table("Held-out Spearman x 100 of every regressor", ["target", *names], rows)


def _draw(surface: Surface, name: str, axes: Any) -> None:
    fit, measured = surface.fits[name], surface.losses[name]
    axes.errorbar(
        measured,
        fit.seen.mean,
        yerr=fit.factor * fit.seen.spread,
        fmt="o",
        markersize=2,
        linewidth=0.5,
        alpha=0.6,
    )
    ends = [float(measured.min()), float(measured.max())]
    axes.plot(ends, ends, color="#666666", linewidth=0.8)
    axes.set_xlabel("measured")
    axes.set_ylabel("predicted, held out, 90 %")


def _effects(page: Report, surface: Surface) -> None:
    found = {name: importance(surface, name) for name in surface.targets}
    rows = [[name, *map(float, found[name])] for name in surface.targets]
    page.table(
        "Importance of domains",
        ["target", *surface.domains],
        rows,
        note=(
            "Root mean square change of the predicted loss when the domain's weight is taken from "
            "another mixture and the others keep their proportions."
        ),
    )
    pairs = [
        (size, name, a, b)
        for name in surface.targets
        for size, a, b in interactions(surface, name, found[name])
    ]
    page.table(
        "Strongest interactions of domains",
        ["target", "domain", "with", "change"],
        [[name, a, b, size] for size, name, a, b in sorted(pairs, reverse=True)[:STRONGEST]],
        note="What changing two domains at once does beyond the sum of changing each alone.",
    )
