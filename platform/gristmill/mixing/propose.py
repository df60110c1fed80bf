"""The propose job: the best mixture that a fit knows of, under caps and guard-rails."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_inputs
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.mixing import propose_report, simplex, sizes
from gristmill.mixing.easing import eased
from gristmill.mixing.fit_report import doubts
from gristmill.mixing.front import Front, trace
from gristmill.mixing.objective import PENALTY, Objective, parse_rails, parse_targets
from gristmill.mixing.rails import EVEN, Rails
from gristmill.mixing.selection import Interval
from gristmill.mixing.surface import Surface, identity_of
from gristmill.mixing.tables import write_mixtures, write_table
from gristmill.mixing.threads import one_thread
from gristmill.regressors.base import Array

PROPOSAL, FIGURES, PARETO = "proposal.csv", "proposal.json", "pareto.csv"
BEST_OF_DRAWS = 128
"""RegMix's released code takes the mean of as many of the lowest predictions."""
STARTS = 2
KEPT = 1e-6
"""A rail may be passed by so little, as searching goes by steps."""
PROPOSED, OPTIMUM, UNCAPPED = "proposed", "optimum", "uncapped"
SIMULATED, NATURAL = "simulated", "natural"


@dataclass(frozen=True, kw_only=True)
class ProposeJob(Job):
    """Find the mixture of least expected loss (RegMix, arXiv:2407.01492, section 3.3).

    By simulation as RegMix does (many draws, the mean of the best), and by direct search on the
    simplex from the best draws; that optimum is proposed, eased towards the natural mixture.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("model", "domains")
    model: str
    """Folder that gristmill mix fit wrote."""
    domains: str = ""
    """Token counts (a corpus, or a CSV of `domain` and `tokens`): the natural mixture, and with
    --tokens the caps; a CSV's column `cap` caps too. Empty: the mean of the fit's mixtures stands
    for the natural one."""
    tokens: float = 0.0
    """Tokens of the planned training. 0: no caps."""
    seq_len: int = 0
    """Tokens of a sequence in it, as repeats are counted in whole ones. 0: 2,048 on a corpus of
    tokens; single tokens on a table."""
    max_repetition: float = 4.0
    """Most epochs over a domain; repeats up to 4 cost little (Muennighoff et al. 2023,
    arXiv:2305.16264)."""
    targets: tuple[str, ...] = ()
    """Targets to lower: `NAME` or `NAME=WEIGHT`; a part of a name will do when only one has it.
    Empty: the mean of all."""
    guard: tuple[str, ...] = ()
    """Targets that may not be worse than at the natural mixture, or `all`."""
    slack: float = 0.0
    """Share of its natural loss that a guarded target may lose all the same."""
    guard_confidence: float = 0.8
    """Least chance that a guarded target is kept, each by itself. 0.5: by the fit's means alone."""
    allow: tuple[str, ...] = ()
    """Modules outside gristmill whose regressors the fit may name; their code is run."""
    ease: float = 0.2
    """Most of the expected gain that the proposal gives up to lie nearer to the natural mixture,
    and never more than a fraction of the fit's own interval. 0: the expected optimum itself."""
    draws: int = 100_000
    """Draws of the simulation."""
    seed: int = 0
    """Chooses the draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (
            0 <= self.tokens < math.inf
            and 0 < self.max_repetition < math.inf
            and 0 <= self.slack < math.inf
        ):
            raise BadInputError(
                f"tokens ({self.tokens:g}) and slack ({self.slack:g}) must be numbers from 0, "
                f"max_repetition ({self.max_repetition:g}) one above 0"
            )
        if self.seq_len < 0:
            raise BadInputError(f"seq_len must be 0 or more, not {self.seq_len}")
        if not EVEN <= self.guard_confidence < 1:
            raise BadInputError(
                f"guard_confidence must be a chance from 0.5 to below 1, not "
                f"{self.guard_confidence:g}"
            )
        if not 0 <= self.ease <= 1:
            raise BadInputError(f"ease must be a share from 0 to 1, not {self.ease:g}")
        if self.tokens and not self.domains:
            raise BadInputError("caps need the domains' token counts: give --domains with --tokens")
        if self.draws < BEST_OF_DRAWS:
            raise BadInputError(f"draws must be at least {BEST_OF_DRAWS}, not {self.draws}")
        if not 0 <= self.seed < 1 << 63:
            raise BadInputError(f"seed must be a whole number from 0 to 2**63, not {self.seed}")

    def plan(self) -> Plan:
        """Domains, caps and draws."""
        surface = Surface.load(self.model, allow=self.allow)
        shares = parse_targets(self.targets, surface.targets)
        baseline, caps = self._limits(surface)
        parse_rails(self.guard, surface, baseline, self.slack)
        return Plan(
            title=f"propose a mixture of {len(surface.domains)} domains for {len(shares)} targets",
            reads=[(io.redact(self.model), 0)],
            writes=[(PROPOSAL, 0), (FIGURES, 0), (PARETO, 0)],
            work=[
                ("draws", f"{self.draws:,}"),
                ("capped", f"{int((caps < 1).sum())} of {len(caps)} domains"),
            ],
            cpu_hours=self.draws * len(surface.weights) * 1e-7 * len(shares) / 3600,
            basis="about 0.1 microseconds a draw and training mixture",
        )

    def _limits(self, surface: Surface) -> tuple[Array, Array]:
        """The natural mixture and the caps, in the order of the fit's domains."""
        if not self.domains:
            return surface.weights.mean(0), np.ones(len(surface.domains))
        known = sizes.read_sizes(self.domains)
        baseline = sizes.natural(known, surface.domains, io.redact(self.domains))
        caps = sizes.read_caps(self.domains, surface.domains)
        if self.tokens:
            own = sizes.weight_caps(
                known,
                surface.domains,
                tokens=self.tokens,
                epochs=self.max_repetition,
                seq_len=sizes.planned_seq_len(self.domains, self.seq_len),
            )
            caps = np.minimum(caps, own)
        simplex.check_caps(caps)
        return baseline, caps

    def inputs(self) -> dict[str, Any]:
        """The fit and the sizes."""
        found: dict[str, Any] = {"model": identity_of(self.model)}
        if self.domains:
            found["domains"] = sizes.identity_of(self.domains)
        return found

    def execute(self, run: Run) -> None:
        """Simulate, search, trace the front, report."""
        with one_thread():
            self._propose(run)

    def _propose(self, run: Run) -> None:
        pin_inputs(run, self.inputs())
        surface = Surface.load(self.model, allow=self.allow)
        objective = Objective(surface=surface, shares=parse_targets(self.targets, surface.targets))
        baseline, caps = self._limits(surface)
        rails = Rails(
            surface=surface,
            most=parse_rails(self.guard, surface, baseline, self.slack),
            natural=baseline,
            confidence=self.guard_confidence,
        )
        found = self._found(objective, baseline, caps, rails)
        front = trace(objective, found[OPTIMUM], baseline, caps)
        write_mixtures(
            run.path(PROPOSAL), tuple(found), surface.domains, np.stack(list(found.values()))
        )
        figures = describe(objective, found, baseline, caps, rails)
        io.write_json(run.path(FIGURES), figures)
        _write_front(run, front, surface.domains)
        for name in (PROPOSAL, FIGURES, PARETO):
            run.add_output(name)
        doubtful = doubts(surface, sorted({*objective.shares, *rails.most}))
        propose_report.write(run, self, figures, front, doubtful)
        gain = figures["gain"]
        run.set_summary(
            expected=round(figures["mixtures"][PROPOSED]["value"], 6),
            natural=round(figures["mixtures"][NATURAL]["value"], 6),
            gain=round(gain["mean"], 6),
            gain_lo=round(gain["lo"], 6),
            gain_hi=round(gain["hi"], 6),
            rails_kept=figures["rails_kept"],
            margins_kept=figures["margins_kept"],
            weak_targets=[name for name in surface.weak if name in objective.shares],
        )

    def _found(
        self, objective: Objective, baseline: Array, caps: Array, rails: Rails
    ) -> dict[str, Array]:
        """The mixtures to show, by name: with the rails' margins, or by the means if none does."""
        found = self._searched(objective, baseline, caps, rails)
        if rails.over(found[OPTIMUM][None])[0] > KEPT:
            found = self._searched(objective, baseline, caps, rails.by_means())
        return found

    def _searched(
        self, objective: Objective, baseline: Array, caps: Array, rails: Rails
    ) -> dict[str, Array]:
        def cost(weights: Array) -> Array:
            value = objective.mean(weights)
            return value + PENALTY * rails.over(weights) if rails else value

        natural = simplex.cap(baseline[None], caps)[0]
        drawn = simplex.draws(baseline, self.draws, caps, self.seed)
        drawn = drawn[np.argsort(simplex.costs(objective.mean, drawn), kind="stable")]
        if rails:  # rails cost a prediction of each target: a tenth of the draws is searched so
            some = np.sort(np.random.default_rng(self.seed).permutation(len(drawn))[::10])
            drawn = np.concatenate([drawn[:BEST_OF_DRAWS], drawn[some]])
        order = np.argsort(simplex.costs(cost, drawn), kind="stable")
        simulated = drawn[order[:BEST_OF_DRAWS]].mean(0)
        measured = simplex.cap(objective.surface.weights, caps)
        best_run = measured[int(np.argmin(simplex.costs(cost, measured)))]
        starts = np.stack([simulated, natural, best_run, *drawn[order[:STARTS]]])
        best = simplex.search(cost, starts, caps).weights
        free = np.ones_like(caps)
        uncapped = best
        if (caps < 1).any():
            uncapped = simplex.search(cost, np.stack([best, simulated, best_run]), free).weights
        return {
            PROPOSED: eased(objective, best, natural, rails, share=self.ease, simulated=simulated),
            OPTIMUM: best,
            UNCAPPED: uncapped,
            SIMULATED: simulated,
            NATURAL: baseline,
        }


def describe(
    objective: Objective,
    found: dict[str, Array],
    baseline: Array,
    caps: Array,
    rails: Rails,
) -> dict[str, Any]:
    """All figures of a proposal, by name."""
    surface, names = objective.surface, list(found)
    rows = np.stack(list(found.values()))
    value, half = objective.mean(rows), objective.half(rows)
    targets = {t: surface.predict(t, rows) for t in surface.targets}
    mixtures: dict[str, Any] = {
        name: {
            "value": float(value[i]),
            "lo": float(value[i] - half[i]),
            "hi": float(value[i] + half[i]),
            "weights": dict(zip(surface.domains, map(float, rows[i]), strict=True)),
            "targets": {t: _band(p, i) for t, p in targets.items()},
        }
        for i, name in enumerate(names)
    }
    best, plain = names.index(PROPOSED), names.index(NATURAL)
    gain = float(value[plain] - value[best])
    # Two predictions' errors are taken as independent, so their squares add.
    width = float(np.hypot(half[plain], half[best]))
    chosen = found[PROPOSED]
    kept = bool(rails.by_means().over(chosen[None])[0] <= KEPT)
    return {
        "format": 1,
        "objective": dict(objective.shares),
        "caps": dict(zip(surface.domains, map(float, caps), strict=True)),
        "rails": dict(rails.most),
        "rails_kept": kept,
        "margins_kept": bool(rails.over(chosen[None])[0] <= KEPT),
        "rails_chance": rails.chances(chosen),
        "natural_keeps_caps": bool((baseline <= caps + 1e-9).all()),
        "gain": {"mean": gain, "lo": gain - width, "hi": gain + width},
        "mixtures": mixtures,
    }


def _band(found: Interval, row: int) -> dict[str, float]:
    mean, half = float(found.mean[row]), float(found.half[row])
    return {"mean": mean, "lo": mean - half, "hi": mean + half}


def _write_front(run: Run, front: Front, domains: tuple[str, ...]) -> None:
    rows = [
        [str(i + 1), float(front.value[i]), float(front.worst[i]), *map(float, front.weights[i])]
        for i in range(len(front.value))
    ]
    write_table(run.path(PARETO), ["index", "objective", "worst_change", *domains], rows)
