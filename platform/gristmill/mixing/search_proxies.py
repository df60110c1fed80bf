"""Proxies in a search's report: what each lost, which were begun again, which have no losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.core.report import Report
from gristmill.core.run import Run
from gristmill.mixing.proxies import RESULTS
from gristmill.mixing.retries import load_retries
from gristmill.mixing.stopping import Round
from gristmill.mixing.surface import Surface

SHOWN = 100


def write(
    page: Report,
    run: Run,
    rounds: Sequence[Round],
    surface: Surface,
    shares: Mapping[str, float],
    seeds: int,
) -> None:
    """Add the sections.

    Args:
        page: The report.
        run: The search's.
        rounds: All.
        surface: The last fit, which has every loss.
        shares: Target -> weight in the objective.
        seeds: Of the check run.
    """
    sweeps = [(one.folder, f"{one.folder}/proxies") for one in rounds]
    sweeps += [(f"check, seed {n}", f"check/seed-{n}") for n in range(1, seeds + 1)]
    again = {name: load_retries(run.path(folder, RESULTS)) for name, folder in sweeps}
    rows = []
    for name, folder in sweeps:
        found = (Run(run.path(folder)).done() or {})["summary"]
        lacking = found["failed"] + found["diverged"] + found["ended_early"]
        rows.append([name, found["proxies"], lacking, sum(again[name].values())])
    page.table("Proxies trained", ["step", "with losses", "without", "begun again"], rows)
    of_search = {i: n for one in rounds for i, n in again[one.folder].items()}
    _losses(page, surface, shares, of_search)


def _losses(
    page: Report, surface: Surface, shares: Mapping[str, float], again: Mapping[str, int]
) -> None:
    """A line a proxy, the best first."""
    objective = np.sum([share * surface.losses[t] for t, share in shares.items()], axis=0)
    order = np.argsort(objective, kind="stable").tolist()
    page.table(
        "Losses of the proxies, best first",
        ["proxy", "objective", *surface.targets, "begun again"],
        [
            [
                surface.index[i],
                float(objective[i]),
                *(float(surface.losses[t][i]) for t in surface.targets),
                again.get(surface.index[i], 0),
            ]
            for i in order[:SHOWN]
        ],
        note=(
            f"{min(len(order), SHOWN)} of {len(order)}; all are in losses.csv. Nats a token on "
            "each domain's validation split."
        ),
    )
    tried = np.arange(1, len(order) + 1)

    def draw(axes: Any) -> None:
        axes.plot(tried, objective, "o", markersize=3)
        axes.plot(tried, np.minimum.accumulate(objective), linewidth=0.8, label="best so far")
        axes.set_xlabel("proxy, in the order tried")
        axes.set_ylabel("objective")
        axes.legend(frameon=False)

    page.plot("Losses in the order tried", draw)
