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
from gristmill.mixing.odd import Cleaned, fit_without_odd
from gristmill.mixing.predict import ENDS
from gristmill.mixing.selection import PACKAGE, STACK, TargetFit, fit_target, require_mixtures
from gristmill.mixing.surface import Surface, dump, pack, undump, unpack
from gristmill.mixing.tables import (
    Table,
    matched,
    read_losses,
    read_mixtures,
    without_columns,
    write_table,
)
from gristmill.mixing.threads import one_thread
from gristmill.regressors.base import Array, Regressor, groups_of

HELD_OUT, SEEN = "held_out.csv", "_held_out"
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
HeldOut = list[float]
"""A row's losses: measured and held out, target by target."""


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
        mixtures, losses, _ = self._read()
        rows, targets = len(mixtures.index), len(losses.columns)
        fits = (self._folds(rows) + 1) * targets * len(self.regressors)
        return Plan(
            title=f"fit {targets} targets of {rows} mixtures of {len(mixtures.columns)} domains",
            reads=[(io.redact(self.mixtures), 0), (io.redact(self.losses), 0)],
            writes=[("model.json, model.npz", targets * rows * len(mixtures.columns) * 8)],
            work=[("fits", f"{fits:,}"), ("folds", str(self._folds(rows)))],
            cpu_hours=fits * (0.1 + CUBIC_SECONDS * rows**3) / 3600,
            basis="seconds a fit grow with the cube of the mixtures; twice that if a run is wild",
        )

    def _folds(self, rows: int) -> int:
        return min(self.folds or (10 if rows <= FEW_ROWS else 5), rows)

    def _read(self) -> tuple[Table, Table, tuple[str, ...]]:
        """Both tables, and the domains without a column as no mixture holds them."""
        mixtures, losses = read_mixtures(self.mixtures), read_losses(self.losses)
        matched(mixtures, losses)
        _require_own_columns(losses)
        held = np.flatnonzero(mixtures.values.any(0))
        empty = tuple(n for i, n in enumerate(mixtures.columns) if i not in held)
        require_mixtures(groups_of(mixtures.values))
        return without_columns(mixtures, empty), losses, empty

    def inputs(self) -> dict[str, Any]:
        """Both tables."""
        return {name: {"sha256": io.sha256(getattr(self, name))} for name in self.uri_fields}

    def execute(self, run: Run) -> None:
        """Fit target by target, again without runs that went wrong, gather, report."""
        mixtures, losses, empty = self._read()
        values = matched(mixtures, losses)
        pin_inputs(run, self.inputs())
        measured = dict(zip(losses.columns, values.T.copy(), strict=True))
        with session(self.execution):
            found = fit_without_odd(
                mixtures.values, measured, lambda name, *rows: self._fits(run, name, *rows)
            )
        surface = Surface(
            domains=mixtures.columns,
            index=tuple(n for n, kept in zip(mixtures.index, found.kept, strict=True) if kept),
            weights=mixtures.values[found.kept],
            losses={name: all_rows[found.kept] for name, all_rows in measured.items()},
            fits=found.fits,
            seed=self.seed,
            odd={mixtures.index[i]: float(found.error[i]) for i in np.flatnonzero(~found.kept)},
            doubtful=tuple(mixtures.index[i] for i in np.flatnonzero(found.kept & ~found.usual)),
            empty=empty,
        )
        self._publish(run, surface, _held_out(surface, found, mixtures, measured), mixtures.drift)

    def _fits(
        self, run: Run, name: str, weights: Array, measured: Mapping[str, Array]
    ) -> dict[str, TargetFit]:
        """Every target's fit, side by side."""
        worker = FitTarget(
            weights,
            measured,
            self.regressors,
            self._folds(len(weights)),
            self.seed,
            run.scratch(name, "targets"),
        )
        pieces = [
            Slice(name=f"{i:05d}", payload={"target": target}) for i, target in enumerate(measured)
        ]
        done = map_slices(
            name.replace("-", " "),
            pieces,
            worker,
            ledger=run.scratch(name, "fitted"),
            execution=self.execution,
            unit="targets",
        )
        return {
            p.payload["target"]: self._fitted(worker.out, p.name, entry)
            for p, entry in zip(pieces, done, strict=True)
        }

    def _fitted(self, folder: str, name: str, entry: dict[str, Any]) -> TargetFit:
        uri = io.join(folder, f"{name}.npz")
        allowed = [plugins.module_of(regressor) for regressor in self.regressors]
        return unpack(entry, undump(io.read_bytes(uri), io.redact(uri)), allowed)

    def _publish(
        self, run: Run, surface: Surface, held_out: Mapping[str, HeldOut], drift: float
    ) -> None:
        for name in surface.save(run.uri):
            run.add_output(name)
        write_table(
            run.path(HELD_OUT),
            ["index", *(column for t in surface.targets for column in (t, f"{t}{SEEN}"))],
            ([index, *held_out[index]] for index in held_out),
        )
        run.add_output(HELD_OUT)
        fit_report.write(run, surface, drift)
        run.set_summary(**summary(surface))


def _require_own_columns(losses: Table) -> None:
    """Refuse targets whose columns in the tables of a fit would be called alike.

    Raises:
        BadInputError: Two targets are such.
    """
    for name in losses.columns:
        for end in (*ENDS, SEEN):
            if f"{name}{end}" in losses.columns:
                raise BadInputError(
                    f"{losses.source}: {name}{end} is a target, and would also be the column of "
                    f"the target {name} that a fit writes under this name; rename one of them"
                )


def _held_out(
    surface: Surface, found: Cleaned, mixtures: Table, measured: Mapping[str, Array]
) -> dict[str, HeldOut]:
    """Every row by index: what was measured, and what a fit expects that has not seen it."""
    columns = []
    for name in surface.targets:
        fit = surface.fits[name]
        seen = np.empty(len(mixtures.index))
        seen[found.kept] = fit.seen.mean
        seen[~found.kept] = fit.interval(mixtures.values[~found.kept]).mean
        columns += [measured[name], seen]
    return dict(zip(mixtures.index, np.stack(columns, axis=1).tolist(), strict=True))


def summary(surface: Surface) -> dict[str, Any]:
    """Means over targets of the held-out figures, and what was chosen how often.

    Constant targets count in no mean: there is nothing to rank.
    """
    learned = [name for name in surface.targets if name not in surface.constant]
    best = [surface.fits[name].scores[surface.fits[name].chosen] for name in learned]
    chosen = [surface.fits[name].chosen for name in surface.targets]
    found: dict[str, Any] = {
        "mixtures": len(surface.index),
        "domains": len(surface.domains),
        "targets": len(surface.targets),
        "odd_runs": len(surface.odd),
        "left_out": sorted(surface.odd),
        "weak_targets": sorted(surface.weak),
        "constant_targets": list(surface.constant),
        "empty_domains": list(surface.empty),
    }
    if best:
        found |= {
            "held_out_spearman": round(float(np.mean([s.spearman for s in best])), 5),
            "held_out_pearson": round(float(np.mean([s.pearson for s in best])), 5),
            "held_out_mae": round(float(np.mean([s.mae for s in best])), 6),
        }
    return found | {f"chosen_{name}": chosen.count(name) for name in sorted(set(chosen))}


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
