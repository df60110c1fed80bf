"""The fit job: mixtures and their losses in, a response surface with error bars out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io, plugins
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_inputs
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.mixing import fit_report
from gristmill.mixing.selection import (
    PACKAGE,
    STACK,
    TargetFit,
    calibrated,
    fit_target,
    odd_runs,
    require_mixtures,
)
from gristmill.mixing.surface import Surface, dump, pack, undump, unpack
from gristmill.mixing.tables import Table, matched, read_losses, read_mixtures, write_table
from gristmill.mixing.threads import one_thread
from gristmill.regressors.base import Array, Regressor, groups_of

HELD_OUT = "held_out.csv"
REGRESSORS = (
    "boosted_trees",
    "gaussian_process",
    "mixing_law",
    "ordinary_least_squares",
    "stack",
)
FEW_ROWS = 256
"""Up to this many mixtures there are ten folds, above it five."""
CUBIC_SECONDS = 6e-9
"""Seconds a row cubed of fitting one Gaussian process, roughly."""


@dataclass(frozen=True, kw_only=True)
class FitJob(Job):
    """Learn every target's loss as a function of the mixture (RegMix, arXiv:2407.01492, section 3).

    Each target gets the regressor that predicts its held-out rows best, by cross-validation over
    the rows given; nothing else is read.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("mixtures", "losses")
    mixtures: str
    """CSV of `index` and a column a domain; rows sum to 1."""
    losses: str
    """CSV of `index` and a column a target."""
    regressors: tuple[str, ...] = REGRESSORS
    """Candidates: files of gristmill.regressors, or python:module:Class."""
    folds: int = 0
    """Folds of the cross-validation. 0: ten of up to 256 mixtures, else five."""
    seed: int = 0
    """Chooses the folds and what is random in a regressor."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds < 0 or self.folds == 1:
            raise BadInputError(f"folds must be 0 or at least 2, not {self.folds}")
        if not 0 <= self.seed < 1 << 31:
            raise BadInputError(f"seed must be a whole number from 0 to 2**31, not {self.seed}")
        if not set(self.regressors) - {STACK}:
            raise BadInputError("regressors names nothing to fit beside the stack")
        for name in self.regressors:
            plugins.find(PACKAGE, name, Regressor)

    def plan(self) -> Plan:
        """Rows, targets and fits."""
        mixtures, losses = self._read()
        rows, targets = len(mixtures.index), len(losses.columns)
        fits = (self._folds(rows) + 1) * targets * len(self.regressors)
        return Plan(
            title=f"fit {targets} targets of {rows} mixtures of {len(mixtures.columns)} domains",
            reads=[(io.redact(self.mixtures), 0), (io.redact(self.losses), 0)],
            writes=[("model.json, model.npz", targets * rows * len(mixtures.columns) * 8)],
            work=[("fits", f"{fits:,}"), ("folds", str(self._folds(rows)))],
            cpu_hours=fits * (0.1 + CUBIC_SECONDS * rows**3) / 3600,
            basis="seconds a fit grow with the cube of the mixtures",
        )

    def _folds(self, rows: int) -> int:
        return min(self.folds or (10 if rows <= FEW_ROWS else 5), rows)

    def _read(self) -> tuple[Table, Table]:
        mixtures, losses = read_mixtures(self.mixtures), read_losses(self.losses)
        matched(mixtures, losses)
        for name, column in zip(mixtures.columns, mixtures.values.T, strict=True):
            if not column.any():
                raise BadInputError(
                    f"{mixtures.source}: domain {name!r} is empty: its weight is 0 in every "
                    "mixture, so nothing can be learned of it; take the column out"
                )
        require_mixtures(groups_of(mixtures.values))
        return mixtures, losses

    def inputs(self) -> dict[str, Any]:
        """Both tables."""
        return {name: {"sha256": io.sha256(getattr(self, name))} for name in self.uri_fields}

    def execute(self, run: Run) -> None:
        """Fit target by target, gather, report."""
        mixtures, losses = self._read()
        values = matched(mixtures, losses)
        pin_inputs(run, self.inputs())
        measured = dict(zip(losses.columns, values.T.copy(), strict=True))
        fits = self._fits(run, mixtures, measured)
        group = groups_of(mixtures.values)
        odd = odd_runs(fits, measured, group)
        surface = Surface(
            domains=mixtures.columns,
            index=mixtures.index,
            weights=mixtures.values,
            losses=measured,
            fits={name: calibrated(fit, measured[name], odd, group) for name, fit in fits.items()},
            seed=self.seed,
            odd=tuple(name for name, is_odd in zip(mixtures.index, odd, strict=True) if is_odd),
        )
        self._publish(run, surface, mixtures.drift)

    def _fits(
        self, run: Run, mixtures: Table, measured: Mapping[str, Array]
    ) -> dict[str, TargetFit]:
        """Every target's fit, side by side."""
        worker = FitTarget(
            mixtures.values,
            measured,
            self.regressors,
            self._folds(len(mixtures.index)),
            self.seed,
            run.scratch("targets"),
        )
        pieces = [
            Slice(name=f"{i:05d}", payload={"target": name}) for i, name in enumerate(measured)
        ]
        with session(self.execution):
            done = map_slices(
                "fit",
                pieces,
                worker,
                ledger=run.scratch("fitted"),
                execution=self.execution,
                unit="targets",
            )
        return {
            p.payload["target"]: self._fitted(run, p.name, entry)
            for p, entry in zip(pieces, done, strict=True)
        }

    @staticmethod
    def _fitted(run: Run, name: str, entry: dict[str, Any]) -> TargetFit:
        uri = run.scratch("targets", f"{name}.npz")
        return unpack(entry, undump(io.read_bytes(uri), io.redact(uri)))

    def _publish(self, run: Run, surface: Surface, drift: float) -> None:
        for name in surface.save(run.uri):
            run.add_output(name)
        write_table(
            run.path(HELD_OUT),
            ["index", *(column for t in surface.targets for column in (t, f"{t}_held_out"))],
            ([index, *_pairs(surface, i)] for i, index in enumerate(surface.index)),
        )
        run.add_output(HELD_OUT)
        fit_report.write(run, surface, drift)
        run.set_summary(**summary(surface))


def _pairs(surface: Surface, row: int) -> list[float]:
    found = []
    for name in surface.targets:
        found += [float(surface.losses[name][row]), float(surface.fits[name].seen.mean[row])]
    return found


def summary(surface: Surface) -> dict[str, Any]:
    """Means over targets of the held-out figures, and what was chosen how often."""
    best = [surface.fits[name].scores[surface.fits[name].chosen] for name in surface.targets]
    chosen = [surface.fits[name].chosen for name in surface.targets]
    return {
        "mixtures": len(surface.index),
        "domains": len(surface.domains),
        "targets": len(surface.targets),
        "odd_runs": len(surface.odd),
        "held_out_spearman": round(float(np.mean([s.spearman for s in best])), 5),
        "held_out_pearson": round(float(np.mean([s.pearson for s in best])), 5),
        "held_out_mae": round(float(np.mean([s.mae for s in best])), 6),
        **{f"chosen_{name}": chosen.count(name) for name in sorted(set(chosen))},
    }


@dataclass
class FitTarget(SliceWorker):
    """Fits one target."""

    weights: Array
    losses: Mapping[str, Array]
    candidates: tuple[str, ...]
    folds: int
    seed: int
    out: str

    def process(self, piece: Slice) -> dict[str, Any]:
        """Cross-validate and fit; arrays go to a file, figures to the marker."""
        losses = self.losses[piece.payload["target"]]
        with one_thread():
            fit = fit_target(
                self.weights, losses, self.candidates, num_folds=self.folds, seed=self.seed
            )
        entry, arrays = pack(fit)
        io.write_bytes(io.join(self.out, f"{piece.name}.npz"), dump(arrays))
        return entry
