"""report.html of a proposal."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.mixing.front import Front
from gristmill.regressors.base import Array

FRONT_NOTE = "The objective against the worst change of any target, in % of its natural loss."

if TYPE_CHECKING:
    from gristmill.mixing.propose import ProposeJob

logger = logging.getLogger(__name__)


def write(
    run: Run, job: "ProposeJob", figures: dict[str, Any], front: Front, doubts: Sequence[str]
) -> None:
    """Write the page; `doubts` are what is wrong with the fit."""
    gain = figures["gain"]
    page = Report(
        title="Proposed mixture",
        subtitle=(
            f"expected gain over the natural mixture {gain['mean']:.4f} "
            f"({gain['lo']:.4f} to {gain['hi']:.4f}, 90 %)"
        ),
    )
    _warn(page, job, figures, doubts)
    _mixtures(page, figures)
    _targets(page, figures)
    page.plot(
        "Pareto front",
        lambda axes: draw_front(axes, front.value, front.worst),
        note=FRONT_NOTE,
    )
    page.text(
        "How sure this is",
        "Intervals come from errors on held-out mixtures. The optimum is chosen for its "
        "prediction, so its own is likelier too good than too bad: measure it first.",
    )
    page.save(run.path(REPORT))


def _warn(page: Report, job: "ProposeJob", figures: dict[str, Any], doubts: Sequence[str]) -> None:
    said = list(doubts)
    if figures["rails_kept"] and not figures["margins_kept"]:
        low = [f"{n} ({p:.2f})" for n, p in figures["rails_chance"].items()
               if p < job.guard_confidence]  # fmt: skip
        said.append(
            f"No mixture under the caps keeps every guard-rail with a chance of "
            f"{job.guard_confidence:g}, so the fit's means alone keep them; the chance of: "
            f"{', '.join(low)}. Measure these, or train more runs."
        )
    for warning in said:
        logger.warning("%s", warning)
    page.warnings += said
    if not job.domains:
        page.warnings.append(
            "No token counts were given: the mean of the fit's mixtures stands for the natural "
            "mixture, and nothing is capped."
        )
    if not figures["rails_kept"]:
        page.warnings.append(
            "No mixture under the caps keeps every guard-rail; this comes nearest."
        )
    if not figures["natural_keeps_caps"]:
        page.warnings.append(
            "The natural mixture itself breaks a cap: the planned tokens are many."
        )


def _mixtures(page: Report, figures: dict[str, Any]) -> None:
    found = figures["mixtures"]
    rows: list[list[Any]] = [
        [domain, *(m["weights"][domain] for m in found.values()), cap if cap < 1 else "none"]
        for domain, cap in figures["caps"].items()
    ]
    rows.append(["expected objective", *(m["value"] for m in found.values()), ""])
    rows.append(["90 % interval", *(f"{m['lo']:.4f} to {m['hi']:.4f}" for m in found.values()), ""])
    page.table(
        "Mixtures",
        ["domain", *found, "cap"],
        rows,
        note=(
            "optimum: direct search under caps and guard-rails. proposed: the optimum eased "
            "towards the natural mixture. uncapped: the optimum without caps. simulated: mean of "
            "the best draws, as RegMix does."
        ),
    )


def _targets(page: Report, figures: dict[str, Any]) -> None:
    best, plain = figures["mixtures"]["proposed"], figures["mixtures"]["natural"]
    page.table(
        "Targets",
        [
            "target",
            "weight",
            "natural",
            "proposed",
            "90 % interval",
            "guard-rail",
            "chance that it holds",
        ],
        [
            [
                name,
                figures["objective"].get(name, 0.0),
                plain["targets"][name]["mean"],
                p["mean"],
                f"{p['lo']:.4f} to {p['hi']:.4f}",
                figures["rails"].get(name, ""),
                figures["rails_chance"].get(name, ""),
            ]
            for name, p in best["targets"].items()
        ],
        note="A rail holds when the proposed mixture measures no more above the natural one.",
    )


def draw_front(axes: Any, value: Array, worst: Array) -> None:
    """Objectives [n] against worst changes [n], as shares."""
    axes.plot(value, 100 * worst, "o-", markersize=4)
    axes.axhline(0, color="#666666", linewidth=0.8)
    axes.set_xlabel("objective")
    axes.set_ylabel("worst change, %")
