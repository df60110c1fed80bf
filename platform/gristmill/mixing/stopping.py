"""When a search stops: when its last proxies did not change the answer, twice or for a reason.

First, the fit must rank mixtures that it has not seen well enough. Then two signs are looked for,
each measured against what the proposal gains over the natural mixture. The last round was quiet:
the proposal before it is, by the fit after it, nearly as good as the new one. And the posterior
promises little: expected improvement (Jones, Schonlau & Welch 1998, J. Global Optim. 13, eq. 15)
over the optimum's own prediction, with the fit's calibrated intervals as normal spreads, is small
wherever one more proxy might be placed. A search stops when it sees both, or two quiet rounds, one
after the other: a round may be quiet by luck, and intervals of few proxies may stay wide for long.
So it takes two rounds at least, and says which signs it saw, not more.

Under guard-rails both count what keeps them alone: the change is of the objective with the rails'
price, the improvement is multiplied by the probability that each rail is kept (Schonlau, Welch &
Jones 1998, "Global versus local search in constrained optimization of computer models"), and while
the proposal breaks one, nothing settles.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.mixing import simplex
from gristmill.mixing.objective import Objective
from gristmill.mixing.selection import score
from gristmill.regressors.base import Array

CANDIDATES = 4000
LIMIT = "the limit of proxies is reached"
INTERVAL_SPREADS = 1.645
"""Standard deviations in half of a normal 90 % interval."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round ended with."""

    folder: str
    """Where its runs are."""
    proxies: int
    """Mixtures tried so far."""
    spearman: float
    """Held out, of the objective."""
    target_spearman: float
    """Held out, mean over the objective's targets."""
    value: float
    """Expected objective of the proposal."""
    gain: float
    """Expected gain of the proposal over the natural mixture."""
    promise: float
    """Expected improvement by one more proxy, where that is greatest."""
    gain_lo: float
    """Lower end of the gain's 90 % interval."""
    gain_hi: float
    """Its upper end."""
    change: float
    """What the new proposal is expected to gain over the one before it; -1 in the first round."""
    quiet: bool
    """Whether that is so little that the answer has not changed."""
    over: bool
    """Whether the search stops here."""
    why: str
    """Why it stops, or goes on."""

    def line(self) -> str:
        """For the log."""
        brought = f", of which this round brought {self.change:.4f}" if self.change >= 0 else ""
        return (
            f"{self.proxies} proxies, held-out Spearman {self.spearman:.3f}, expected gain "
            f"{self.gain:.4f} ({self.gain_lo:.4f} to {self.gain_hi:.4f}){brought}; one more proxy "
            f"promises {self.promise:.4f}: {'stop' if self.over else 'go on'}, {self.why}"
        )


def judge(
    objective: Objective,
    figures: dict[str, Any],
    *,
    before: Mapping[str, float] | None,
    last: Round | None,
    folder: str,
    used: int,
    most: int,
    enough: float,
    tolerance: float,
) -> Round:
    """Say whether to go on.

    Args:
        objective: The fit after this round, and what is to be low.
        figures: Of the proposal, as ProposeJob writes them.
        before: The proposal of the round before, if there was one.
        last: That round.
        folder: The round's.
        used: Mixtures tried so far.
        most: Mixtures to try at most.
        enough: Least held-out Spearman to stop at.
        tolerance: Share of the gain below which a change is no change.
    """
    surface = objective.surface
    caps = np.array([figures["caps"][name] for name in surface.domains])
    natural = np.array([figures["mixtures"]["natural"]["weights"][n] for n in surface.domains])
    value, gain = figures["mixtures"]["proposed"]["value"], figures["gain"]
    rails = figures.get("rails", {})
    best = figures["mixtures"]["optimum"]["value"]
    promise = expected_improvement(objective, best, natural, caps, rails)
    spearman, of_targets = held_out_spearman(objective)
    change = -1.0
    if before is not None:
        change = _change(objective, before, figures)
    little = tolerance * max(gain["mean"], 0.0)
    quiet = 0 <= change <= little
    kept = bool(figures.get("rails_kept", True))
    stop = ""
    if spearman >= enough and kept and quiet:
        stop = _signs(last, used, change, promise, little)
    if not stop and used >= most:
        stop = LIMIT
    return Round(
        folder=folder,
        proxies=used,
        spearman=spearman,
        target_spearman=of_targets,
        value=value,
        gain=gain["mean"],
        gain_lo=gain["lo"],
        gain_hi=gain["hi"],
        promise=promise,
        change=change,
        quiet=quiet,
        over=bool(stop),
        why=stop or _why_on(spearman, enough, kept),
    )


def _signs(last: Round | None, used: int, change: float, promise: float, little: float) -> str:
    """What is seen after a quiet round that is reason enough to stop; nothing when it is not."""
    assert last is not None, "a first round has changed nothing"
    if promise <= little:
        return (
            f"the last {used - last.proxies} proxies lowered the expected loss by {change:.4f} and "
            f"one more promises {promise:.4f}, both within the tolerance of {little:.4f}"
        )
    if last.quiet:
        return (
            f"the last two rounds lowered the expected loss by {last.change:.4f} and {change:.4f}, "
            f"within the tolerance of {little:.4f}; one more proxy may still bring {promise:.4f}"
        )
    return ""


def _why_on(spearman: float, enough: float, kept: bool) -> str:
    if spearman < enough:
        return f"the fit ranks below {enough:g}"
    return "the answer may still change" if kept else "the proposal breaks a guard-rail"


def _change(objective: Objective, before: Mapping[str, float], figures: dict[str, Any]) -> float:
    """How much better the new proposal is than the one before it, by the new fit."""
    rails, new = figures.get("rails", {}), figures["mixtures"]["proposed"]
    old = np.array([[before[name] for name in objective.surface.domains]])
    if not rails:
        return max(float(objective.mean(old)[0]) - float(new["value"]), 0.0)
    row = np.array([[new["weights"][name] for name in objective.surface.domains]])
    cost = objective.guarded(rails)(np.concatenate([old, row]))
    return max(float(cost[0] - cost[1]), 0.0)


def held_out_spearman(objective: Objective) -> tuple[float, float]:
    """Of the weighted sum itself, and the weighted mean over its targets."""
    fits, losses = objective.surface.fits, objective.surface.losses
    measured = np.sum([s * losses[t] for t, s in objective.shares.items()], axis=0)
    seen = np.sum([s * fits[t].seen.mean for t, s in objective.shares.items()], axis=0)
    each = [s * score(losses[t], fits[t].seen.mean).spearman for t, s in objective.shares.items()]
    return score(measured, seen).spearman, math.fsum(each)


def expected_improvement(
    objective: Objective,
    best: float,
    natural: Array,
    caps: Array,
    rails: Mapping[str, float] | None = None,
) -> float:
    """The greatest over many candidates, in units of the objective."""
    from scipy.special import erf

    rows = simplex.draws(natural, CANDIDATES, caps, objective.surface.seed)
    spread = np.maximum(objective.half(rows) / INTERVAL_SPREADS, 1e-12)
    z = (best - objective.mean(rows)) / spread
    below = 0.5 * (1 + erf(z / math.sqrt(2)))
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    promise = spread * (z * below + density)
    for target, most in (rails or {}).items():
        found = objective.surface.predict(target, rows)
        wide = np.maximum(found.half / INTERVAL_SPREADS, 1e-12)
        promise = promise * 0.5 * (1 + erf((most - found.mean) / wide / math.sqrt(2)))
    return float(promise.max())
