"""The search's report.html: check, rounds, proxies, optimum, fit, effects, ledger, and links."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.apportionment import Apportionment
from gristmill.corpora.ledger import HEADER, make_ledger
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.tokens import TokenCorpus
from gristmill.mixing import search_proxies
from gristmill.mixing.check import NATURAL, PROPOSED, Check
from gristmill.mixing.effects import importance, interactions
from gristmill.mixing.propose import PARETO
from gristmill.mixing.propose_report import FRONT_NOTE, draw_front
from gristmill.mixing.stopping import Round
from gristmill.mixing.surface import Surface
from gristmill.mixing.tables import read_table

if TYPE_CHECKING:
    from gristmill.mixing.search import SearchJob

STRONGEST = 12


def write(
    run: Run,
    job: "SearchJob",
    rounds: Sequence[Round],
    figures: dict[str, Any],
    check: Check,
    corpus: TokenCorpus,
    warned: Sequence[str],
) -> None:
    """Write the page."""
    last = rounds[-1]
    surface = Surface.load(run.path(last.folder, "fit"))
    gains = check.gains
    page = Report(
        title="Mixture search",
        subtitle=(
            f"{last.proxies} proxies of {len(surface.domains)} domains in {len(rounds)} rounds; "
            f"the proposed mixture beats the natural one in {check.wins} of {len(gains)} seeds, "
            f"by {float(np.mean(gains)):.4f} on average, and {check.wins_over_random} of "
            f"{check.random} random ones"
        ),
        warnings=list(warned),
    )
    _optimum(page, figures, surface)
    front = read_table(run.path(last.folder, "propose", PARETO), "figure")
    value, worst = (front.values[:, front.columns.index(n)] for n in ("objective", "worst_change"))
    page.plot("Pareto front", lambda axes: draw_front(axes, value, worst), note=FRONT_NOTE)
    _check(page, check)
    _rails(page, figures, check)
    _rounds(page, rounds)
    _design(page, surface)
    search_proxies.write(page, run, rounds, surface, figures["objective"], len(gains))
    _fit(page, surface)
    _effects(page, surface)
    _ledger(page, job, figures, corpus)
    links = {f"{one.folder}: {step}": f"{one.folder}/{step}/{REPORT}" for one in rounds
             for step in ("design", "proxies", "fit", "propose")}  # fmt: skip
    links |= {f"check, seed {n}": f"check/seed-{n}/{REPORT}" for n in range(1, len(gains) + 1)}
    page.links("Reports of the steps", links)
    page.save(run.path(REPORT))


def warnings(job: "SearchJob", last: Round, figures: dict[str, Any], check: Check) -> list[str]:
    """What whoever takes the mixture must know: for the page, the summary and the terminal."""
    found = []
    if check.wins < len(check.gains):
        found.append(
            f"The proposed mixture beats the natural one in {check.wins} of {len(check.gains)} "
            "seeds, not in all: do not rely on it."
        )
    if check.rivals:
        found.append(
            f"The proposed mixture does not beat {len(check.rivals)} of {check.random} random "
            f"mixtures ({', '.join(check.rivals)}): drawing some would have done as well."
        )
    if last.gain_lo <= 0 <= last.gain_hi:
        found.append(
            f"The interval of the expected gain holds 0 ({last.gain_lo:.4f} to "
            f"{last.gain_hi:.4f}, 90 %): by the fit alone the proposal may be no better than the "
            f"natural mixture. The check run measured {float(np.mean(check.gains)):.4f}."
        )
    if last.spearman < job.enough:
        found.append(
            f"The fit ranks mixtures it has not seen with a Spearman of {last.spearman:.3f}, under "
            f"the {job.enough:g} asked for; more proxies, or longer ones, would help."
        )
    return found + _warnings_of_rails(figures, check)


def _optimum(page: Report, figures: dict[str, Any], surface: Surface) -> None:
    found, gain = figures["mixtures"], figures["gain"]
    page.table(
        "Proposed mixture",
        ["domain", *found, "cap"],
        [
            [name, *(m["weights"][name] for m in found.values()), cap if cap < 1 else "none"]
            for name, cap in sorted(figures["caps"].items())
        ]
        + [["expected objective", *(m["value"] for m in found.values()), ""]],
        note=(
            f"Expected gain over the natural mixture {gain['mean']:.4f} ({gain['lo']:.4f} to "
            f"{gain['hi']:.4f}, 90 %). Objective: "
            + ", ".join(f"{share:.3g} {name}" for name, share in figures["objective"].items())
        ),
    )

    def draw(axes: Any) -> None:
        places = np.arange(len(surface.domains))
        for shift, name in ((-0.2, NATURAL), (0.2, PROPOSED)):
            heights = [found[name]["weights"][domain] for domain in surface.domains]
            axes.barh(places + shift, heights, 0.4, label=name)
        axes.set_yticks(places, surface.domains)
        axes.set_xlabel("weight")
        axes.legend(frameon=False)

    page.plot("Natural and proposed weights", draw)


def _check(page: Report, check: Check) -> None:
    order = np.argsort(check.measured.mean(0))
    rows = []
    for i in order.tolist():
        own = check.measured[:, i]
        spread = float(own.std(ddof=1)) if len(own) > 1 else 0.0
        low, high = check.predicted[i] - check.half[i], check.predicted[i] + check.half[i]
        rows.append(
            [check.names[i], float(own.mean()), spread, *map(float, own), float(check.predicted[i]),
             f"{low:.4f} to {high:.4f}"]
        )  # fmt: skip
    seeds = [f"seed {n + 1}" for n in range(len(check.measured))]
    page.table(
        "Check run: the objective measured with new seeds, best first",
        ["mixture", "measured", "spread", *seeds, "predicted", "90 % interval"],
        rows,
        note=(
            "Seeds differ in start and order of text. The fit has seen none of these runs. Random "
            "mixtures are drawn like the first round's and brought under the planned caps."
        ),
    )

    def draw(axes: Any) -> None:
        mean = check.measured.mean(0)
        axes.errorbar(mean, check.predicted, yerr=check.half, fmt="o", markersize=3, linewidth=0.7)
        for name in (PROPOSED, NATURAL):
            i = check.names.index(name)
            axes.annotate(name, (mean[i], check.predicted[i]))
        ends = [float(mean.min()), float(mean.max())]
        axes.plot(ends, ends, color="#666666", linewidth=0.8)
        axes.set_xlabel("measured, mean of the seeds")
        axes.set_ylabel("predicted, 90 %")

    page.plot("Check run: predicted against measured", draw)
    best, plain = check.targets[PROPOSED], check.targets[NATURAL]
    page.table(
        "Check run: measured losses by target, means over seeds",
        ["target", NATURAL, PROPOSED, "change"],
        [[name, plain[name], best[name], best[name] - plain[name]] for name in sorted(plain)],
    )


def _warnings_of_rails(figures: dict[str, Any], check: Check) -> list[str]:
    found = []
    if not figures["rails_kept"]:
        found.append(
            "No mixture under the caps is expected to keep every guard-rail; the proposed one "
            "comes nearest."
        )
    elif not figures["margins_kept"]:
        found.append(
            "No mixture under the caps keeps every guard-rail with the chance asked for: the "
            "fit's means alone keep them."
        )
    if check.broken:
        changes = ", ".join(f"{n} by {check.guarded[n].mean():.4f}" for n in check.broken)
        found.append(f"Guarded targets measured worse than with the natural mixture: {changes}.")
    return found


def _rails(page: Report, figures: dict[str, Any], check: Check) -> None:
    if not check.guarded:
        return
    expected = figures["mixtures"][PROPOSED]["targets"]
    page.table(
        "Check run: guard-rails",
        ["target", "rail", "expected", "chance that it holds", "measured change, mean",
         "worse in seeds"],
        [
            [name, figures["rails"][name], expected[name]["mean"],
             figures["rails_chance"][name], float(change.mean()),
             f"{int((change > 0).sum())} of {len(change)}"]
            for name, change in check.guarded.items()
        ],
        note=(
            "The rail is the fit's loss at the natural mixture; the change is what the proposed "
            "mixture measured above the natural one, trained with the same seeds."
        ),
    )  # fmt: skip


def _rounds(page: Report, rounds: Sequence[Round]) -> None:
    page.table(
        "Rounds",
        ["proxies", "Spearman x 100", "mean of targets", "expected gain", "90 % interval",
         "this round's change", "one more promises", "decision"],
        [
            [one.proxies, 100 * one.spearman, 100 * one.target_spearman, one.gain,
             f"{one.gain_lo:.4f} to {one.gain_hi:.4f}",
             one.change if one.change >= 0 else "", one.promise,
             ("stop: " if one.over else "go on: ") + one.why]
            for one in rounds
        ],
        note="Spearman of the objective on mixtures held out; see stopping.py for the rule.",
    )  # fmt: skip


def _design(page: Report, surface: Surface) -> None:
    page.plot(
        "Design: weights tried",
        lambda axes: axes.boxplot(
            list(surface.weights.T), tick_labels=list(surface.domains), orientation="horizontal"
        ),
    )


def _fit(page: Report, surface: Surface) -> None:
    rows = []
    for name in surface.targets:
        fit, losses = surface.fits[name], surface.losses[name]
        found = fit.scores[fit.chosen]
        rows.append([name, fit.chosen, float(losses.min()), float(losses.max()),
                     100 * found.spearman, 100 * found.pearson, found.mae])  # fmt: skip
    page.table(
        "Losses and fit, on mixtures held out",
        ["target", "regressor", "lowest", "highest", "Spearman x 100", "Pearson x 100", "MAE"],
        rows,
    )
    for name in surface.targets:
        page.plot(
            f"{name}: predicted against measured", partial(_scatter, surface=surface, name=name)
        )


def _scatter(axes: Any, *, surface: Surface, name: str) -> None:
    fit, losses = surface.fits[name], surface.losses[name]
    bands = fit.half(fit.seen.spread)
    axes.errorbar(losses, fit.seen.mean, yerr=bands, fmt="o", markersize=3, linewidth=0.7)
    ends = [float(losses.min()), float(losses.max())]
    axes.plot(ends, ends, color="#666666", linewidth=0.8)
    axes.set_xlabel("measured")
    axes.set_ylabel("predicted, held out, 90 %")


def _effects(page: Report, surface: Surface) -> None:
    found = {name: importance(surface, name) for name in surface.targets}
    page.table(
        "Importance of domains",
        ["target", *surface.domains],
        [[name, *map(float, found[name])] for name in surface.targets],
        note="Change of the predicted loss when a domain's weight is another mixture's.",
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
    )


def _ledger(page: Report, job: "SearchJob", figures: dict[str, Any], corpus: TokenCorpus) -> None:
    settings = job.training.settings(corpus.vocabulary.size)
    available = {n: corpus.num_sequences(n, settings.seq_len) for n in corpus.domains}
    mixture = Mixture.normalized(figures["mixtures"][PROPOSED]["weights"])
    drawn = Apportionment(mixture.parts).counts(settings.steps * settings.batch_size)
    ledger = make_ledger(mixture.weights, drawn, available, settings.seq_len)
    page.table(
        "Ledger of a proxy on the proposed mixture",
        HEADER,
        ledger.rows(),
        note="Realised: what the stream, a function of the step, draws in a proxy's steps.",
    )
    if job.planned_tokens:
        sizes = corpus.sizes()
        page.table(
            "Ledger of the planned training on it",
            ["domain", "weight", "tokens", "epochs"],
            [
                [name, weight, round(weight * job.planned_tokens),
                 weight * job.planned_tokens / sizes[name]]
                for name, weight in mixture.weights.items()
            ],
            note=f"{job.planned_tokens:,.0f} tokens, at most {job.planned_epochs:g} epochs.",
        )  # fmt: skip
