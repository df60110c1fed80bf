"""The design job: which mixtures to try. A CSV of `index` and a column a domain."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_inputs
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.mixing import simplex, sizes, spread, surface
from gristmill.mixing.dirichlet import (
    UNITS,
    Rules,
    Units,
    bounds,
    draw,
    pool,
    prior,
    to_units,
    without,
)
from gristmill.mixing.objective import parse_rails, parse_targets
from gristmill.mixing.output import beside, publish, require_free, run_folder
from gristmill.mixing.tables import aligned, read_mixtures, write_mixtures
from gristmill.mixing.threads import one_thread
from gristmill.regressors.base import Array

MIXTURES = "mixtures.csv"
MOST_CANDIDATES = 20_000
"""Candidates that the other designs choose among."""


@dataclass(frozen=True, kw_only=True)
class DesignJob(Job):
    """Choose mixtures to train proxies on.

    `dirichlet` draws by RegMix's rules (arXiv:2407.01492, section 3.1); `space_filling` takes of
    such draws those farthest apart; `sequential` takes those where an earlier fit is least sure,
    or expects the optimum, in turns.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("domains", "model", "beside", "limits")
    domains: str
    """Token counts: a corpus, or a CSV of `domain` and `tokens`, and if wanted `cap`, the largest
    weight."""
    count: int = 512
    """Mixtures."""
    method: Literal["dirichlet", "space_filling", "sequential"] = "dirichlet"
    """How they are chosen."""
    rules: Rules = Rules()
    """Bounds and strengths of the draws."""
    model: str = ""
    """A fit (gristmill mix fit), for sequential designs."""
    allow: tuple[str, ...] = ()
    """Modules outside gristmill whose regressors the fit may name; their code is run."""
    targets: tuple[str, ...] = ()
    """Targets that a sequential design is for, `NAME` or `NAME=WEIGHT`; all when none is named."""
    guard: tuple[str, ...] = ()
    """Targets that the mixtures expected to be best may not make worse than the natural one does,
    or `all`; of sequential designs."""
    limits: str = ""
    """CSV of `domain`, `tokens` and `cap`, of sequential designs: what the mixtures expected to be
    best keep. (A column `cap` of --domains bounds every mixture.)"""
    beside: str = ""
    """CSV of mixtures that are there already; the design keeps off them."""
    first_index: int = 1
    """Number of the first row."""
    seed: int = 0
    """Chooses the draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "out", run_folder(self.out))
        if self.count < 1 or self.first_index < 0:
            raise BadInputError(
                f"count ({self.count}) must be at least 1 and first_index ({self.first_index}) 0"
            )
        if not 0 <= self.seed < 1 << 63:
            raise BadInputError(f"seed must be a whole number from 0 to 2**63, not {self.seed}")
        if (self.method == "sequential") != bool(self.model):
            raise BadInputError("a sequential design needs --model, and only it takes one")
        if self.method != "sequential" and (self.targets or self.guard or self.limits):
            raise BadInputError(
                "targets, guard and limits are of sequential designs: give --method sequential "
                "and --model, or leave them out"
            )

    def plan(self) -> Plan:
        """Domains and draws."""
        self.check()
        known = sizes.read_sizes(self.domains)
        names = tuple(known)
        shares = sizes.natural(known, names, self.domains)
        bounds(shares, self.rules, sizes.read_caps(self.domains, names))
        if self.model:
            self._aim(self._fit(names), shares)
        return Plan(
            title=f"design {self.count:,} mixtures of {len(known)} domains ({self.method})",
            reads=[(io.redact(self.domains), 0)],
            writes=[(MIXTURES, self.count * (len(known) + 1) * 7)],
            work=[("draws", f"{self.count * self.rules.candidates:,}")],
        )

    def check(self) -> None:
        """Keep off a CSV of others."""
        require_free(self.out, MIXTURES)

    def goes_on(self, run: Run) -> bool:
        """Whether the CSV that --out named was taken away."""
        named = beside(run.uri)
        return bool(named) and not io.exists(named)

    def inputs(self) -> dict[str, Any]:
        """The sizes, and what else the design goes by."""
        found: dict[str, Any] = {"domains": sizes.identity_of(self.domains)}
        if self.limits:
            found["limits"] = sizes.identity_of(self.limits)
        if self.beside:
            found["beside"] = {"sha256": io.sha256(self.beside)}
        if self.model:
            found["model"] = surface.identity_of(self.model)
        return found

    def execute(self, run: Run) -> None:
        """Draw, choose, write."""
        known = sizes.read_sizes(self.domains)
        pin_inputs(run, self.inputs())
        names = tuple(known)
        shares = sizes.natural(known, names, self.domains)
        taken = self._taken(names)
        with one_thread():
            units = self._units(names, shares, taken)
        weights = units / UNITS
        index = [str(self.first_index + i) for i in range(len(units))]
        write_mixtures(run.path(MIXTURES), index, names, weights)
        run.add_output(MIXTURES)
        publish(run.uri, MIXTURES)
        _report(run, names, shares, weights, self)
        run.set_summary(mixtures=len(units), domains=len(names), method=self.method)

    def _taken(self, names: tuple[str, ...]) -> Array:
        if not self.beside:
            return np.zeros((0, len(names)))
        return aligned(
            read_mixtures(self.beside, names, "the table of domains"), names, "the table"
        )

    def _units(self, names: tuple[str, ...], shares: Array, taken: Array) -> Units:
        there = np.round(taken * UNITS).astype(np.int64)
        caps = sizes.read_caps(self.domains, names)
        if self.method == "dirichlet":
            return draw(self.count, shares, self.rules, self.seed, taken=there, caps=caps)
        random = np.random.default_rng(self.seed)
        found = pool(self.count, shares, self.rules, random, taken=there, caps=caps)
        found = found[random.permutation(len(found))[: max(MOST_CANDIDATES, self.count)]]
        if self.method == "space_filling":
            return found[spread.far_apart(found / UNITS, self.count, taken)]
        return self._sequential(names, shares, found, there)

    def _fit(self, names: tuple[str, ...]) -> surface.Surface:
        fit = surface.Surface.load(self.model, allow=self.allow)
        fit.require_domains(names, io.redact(self.domains))
        return fit

    def _aim(
        self, fit: surface.Surface, shares: Array
    ) -> tuple[dict[str, float], dict[str, float]]:
        """What is to be low, and what may not be higher."""
        wanted = parse_targets(self.targets, fit.targets)
        return wanted, parse_rails(self.guard, fit, shares, 0.0)

    def _sequential(
        self, names: tuple[str, ...], shares: Array, found: Units, there: Units
    ) -> Units:
        fit = self._fit(names)
        wanted, rails = self._aim(fit, shares)
        most = bounds(shares, self.rules, sizes.read_caps(self.domains, names))
        if self.limits:
            limits = np.floor(sizes.read_caps(self.limits, names) * UNITS + 1e-9).astype(np.int64)
            most = np.minimum(most, limits)
            found = with_capped(found, most, there)
        rows = spread.next_batch(
            fit,
            wanted,
            found / UNITS,
            self.count,
            np.concatenate([there / UNITS, fit.weights]),
            rails=rails,
            allowed=np.asarray((found <= most).all(1)),
        )
        return found[rows]


def with_capped(found: Units, most: Units, taken: Units) -> Units:
    """Mixtures, and the same brought under limits, each once; none of those that are taken."""
    if most.sum() < UNITS:
        return found
    capped = to_units(simplex.cap(found / UNITS, most / UNITS), most)
    both = np.unique(np.concatenate([found, capped]), axis=0)
    return without(both, taken)


def _report(
    run: Run, names: tuple[str, ...], shares: Array, weights: Array, job: DesignJob
) -> None:
    page = Report(
        title="Mixtures to try", subtitle=f"{len(weights)} mixtures of {len(names)} domains"
    )
    caps = sizes.read_caps(job.domains, names)
    most, mean = bounds(shares, job.rules, caps) / UNITS, prior(shares, job.rules)
    page.table(
        "Domains",
        ["domain", "token share", "prior", "bound", "mean", "highest", "zero in"],
        [
            [n, *map(float, (s, m, b, w.mean(), w.max())), f"{100 * (w == 0).mean():.0f} %"]
            for n, s, m, b, w in zip(names, shares, mean, most, weights.T, strict=True)
        ],
        note="Weights are multiples of 2e-4, sum to 1 and keep their bounds exactly.",
    )
    page.plot(
        "Weights",
        lambda axes: (
            axes.boxplot(list(weights.T), tick_labels=list(names), orientation="horizontal")
        ),
    )
    page.save(run.path(REPORT))
