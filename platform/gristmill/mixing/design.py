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
from gristmill.mixing import sizes, spread, surface
from gristmill.mixing.dirichlet import UNITS, Rules, Units, bounds, draw, pool, prior
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

    uri_fields: ClassVar[tuple[str, ...]] = ("domains", "model", "beside")
    domains: str
    """Token counts: a corpus, or a CSV of `domain` and `tokens`."""
    count: int = 512
    """Mixtures."""
    method: Literal["dirichlet", "space_filling", "sequential"] = "dirichlet"
    """How they are chosen."""
    rules: Rules = Rules()
    """Bounds and strengths of the draws."""
    model: str = ""
    """A fit (gristmill mix fit), for sequential designs."""
    targets: tuple[str, ...] = ()
    """Targets that a sequential design is for; all when none is named."""
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

    def plan(self) -> Plan:
        """Domains and draws."""
        self.check()
        known = sizes.read_sizes(self.domains)
        bounds(sizes.natural(known, tuple(known), self.domains), self.rules)
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
        return aligned(read_mixtures(self.beside), names, "the table of domains")

    def _units(self, names: tuple[str, ...], shares: Array, taken: Array) -> Units:
        there = np.round(taken * UNITS).astype(np.int64)
        if self.method == "dirichlet":
            return draw(self.count, shares, self.rules, self.seed, taken=there)
        random = np.random.default_rng(self.seed)
        found = pool(self.count, shares, self.rules, random, taken=there)
        found = found[random.permutation(len(found))[: max(MOST_CANDIDATES, self.count)]]
        candidates = found / UNITS
        if self.method == "space_filling":
            return found[spread.far_apart(candidates, self.count, taken)]
        return found[self._sequential(names, candidates, taken)]

    def _sequential(self, names: tuple[str, ...], candidates: Array, taken: Array) -> list[int]:
        fit = surface.Surface.load(self.model)
        fit.require_domains(names, io.redact(self.domains))
        targets = [fit.target(word) for word in self.targets] or list(fit.targets)
        even = {name: 1 / len(targets) for name in targets}
        near = np.concatenate([taken, fit.weights])
        return spread.next_batch(fit, even, candidates, self.count, near)


def _report(
    run: Run, names: tuple[str, ...], shares: Array, weights: Array, job: DesignJob
) -> None:
    page = Report(
        title="Mixtures to try", subtitle=f"{len(weights)} mixtures of {len(names)} domains"
    )
    most, mean = bounds(shares, job.rules) / UNITS, prior(shares, job.rules)
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
