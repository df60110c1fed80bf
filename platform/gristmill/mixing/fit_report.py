"""report.html of a fit: figures held out, predicted against measured, what matters to a target."""

import logging
from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np

from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.mixing.effects import importance, interactions
from gristmill.mixing.surface import ENOUGH, Surface

STRONGEST = 12
logger = logging.getLogger(__name__)


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
    for warning in (*doubts(surface), *_left_out(surface)):
        logger.warning("%s", warning)
        page.warnings.append(warning)
    _chosen(page, surface)
    _by_regressor(page, surface)
    for name in surface.targets:
        page.plot(f"{name}: predicted against measured", partial(_draw, surface, name))
    _effects(page, surface)
    page.save(run.path(REPORT))


def doubts(surface: Surface, targets: Collection[str] = ()) -> list[str]:
    """What is wrong with the fits of some targets, or of all: said wherever they are used."""
    found = []
    asked = set(targets or surface.targets)
    if weak := {name: rank for name, rank in surface.weak.items() if name in asked}:
        named = ", ".join(f"{name} ({rank:.3f})" for name, rank in weak.items())
        found.append(
            f"The fit ranks mixtures it has not seen with a Spearman under {ENOUGH:g} on "
            f"{len(weak)} of {len(asked)} targets: {named}. Do not rely on these; more runs, or "
            "longer ones, would help."
        )
    if constant := [name for name in surface.constant if name in asked]:
        found.append(
            f"{len(constant)} of {len(asked)} targets measured the same in every run and count in "
            f"no mean: {', '.join(constant)}. There is nothing to learn of them."
        )
    return found


def _left_out(surface: Surface) -> list[str]:
    """Runs and domains that are not in the fit."""
    found = []
    if surface.odd:
        named = [f"{index} ({error:.1f})" for index, error in surface.odd.items()]
        more = f" and {len(named) - STRONGEST} more" if len(named) > STRONGEST else ""
        found.append(
            f"{len(named)} of {len(named) + len(surface.index)} runs were mispredicted so far, "
            "while they were held out, that they look as if they went wrong, and are left out: "
            f"{', '.join(named[:STRONGEST])}{more} (errors in those of the median run). Look at "
            "them, or train them again."
        )
    if surface.doubtful:
        found.append(
            f"{len(surface.doubtful)} more runs were mispredicted on most targets; they stay in "
            f"the fit, but do not widen its intervals: {', '.join(surface.doubtful[:STRONGEST])}."
        )
    if surface.empty:
        found.append(
            f"{len(surface.empty)} domains have no weight in any mixture, so the fit knows nothing "
            f"of them and predicts no mixture that holds them: {', '.join(surface.empty)}."
        )
    return found


def _chosen(page: Report, surface: Surface) -> None:
    rows = []
    for name in surface.targets:
        fit = surface.fits[name]
        s = fit.scores[fit.chosen]
        shares = ", ".join(f"{n} {share:.2f}" for n, share in fit.shares.items())
        width = 2 * float(fit.half(fit.seen.spread).mean())
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
    rows: list[list[Any]] = [
        [target, *(100 * surface.fits[target].scores[n].spearman for n in names)]
        for target in surface.targets
    ]
    learned = [row[1:] for row in rows if row[0] not in surface.constant]
    if learned:
        rows.append(["mean", *map(float, np.mean(learned, axis=0))])
    page.table("Held-out Spearman x 100 of every regressor", ["target", *names], rows)


def _draw(surface: Surface, name: str, axes: Any) -> None:
    fit, measured = surface.fits[name], surface.losses[name]
    axes.errorbar(
        measured,
        fit.seen.mean,
        yerr=fit.half(fit.seen.spread),
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
            "another mixture and the others keep their proportions; of mixtures made so, those "
            "near the ones that were trained."
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
