"""report.html of a proposal."""

from typing import TYPE_CHECKING, Any

from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.mixing.front import Front
from gristmill.regressors.base import Array

FRONT_NOTE = "The objective against the worst change of any target, in % of its natural loss."

if TYPE_CHECKING:
    from gristmill.mixing.propose import ProposeJob


def write(run: Run, job: "ProposeJob", figures: dict[str, Any], front: Front) -> None:
    """Write the page."""
    gain = figures["gain"]
    page = Report(
        title="Proposed mixture",
        subtitle=(
            f"expected gain over the natural mixture {gain['mean']:.4f} "
            f"({gain['lo']:.4f} to {gain['hi']:.4f}, 90 %)"
        ),
    )
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
        ["target", "weight", "natural", "proposed", "90 % interval", "guard-rail"],
        [
            [
                name,
                figures["objective"].get(name, 0.0),
                plain["targets"][name]["mean"],
                p["mean"],
                f"{p['lo']:.4f} to {p['hi']:.4f}",
                figures["rails"].get(name, ""),
            ]
            for name, p in best["targets"].items()
        ],
    )


def draw_front(axes: Any, value: Array, worst: Array) -> None:
    """Objectives [n] against worst changes [n], as shares."""
    axes.plot(value, 100 * worst, "o-", markersize=4)
    axes.axhline(0, color="#666666", linewidth=0.8)
    axes.set_xlabel("objective")
    axes.set_ylabel("worst change, %")
