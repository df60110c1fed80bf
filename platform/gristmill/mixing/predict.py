"""The predict job: mixtures in, the mean and 90 % interval of every target out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.mixing.output import publish, require_free, run_folder
from gristmill.mixing.selection import Interval
from gristmill.mixing.surface import Surface, identity_of
from gristmill.mixing.tables import INDEX, Table, read_mixtures, write_table
from gristmill.mixing.threads import one_thread

PREDICTIONS = "predictions.csv"
ROWS_AT_ONCE = 4096
ENDS = ("_lo", "_hi")
"""Of the columns of a target's interval."""


@dataclass(frozen=True, kw_only=True)
class PredictJob(Job):
    """Predict losses of mixtures from a fit."""

    always_anew: ClassVar[bool] = True
    uri_fields: ClassVar[tuple[str, ...]] = ("model", "mixtures")
    model: str
    """Folder that gristmill mix fit wrote."""
    mixtures: str
    """CSV of `index` and a column a domain, the same domains as the fit's, in any order."""
    allow: tuple[str, ...] = ()
    """Modules outside gristmill whose regressors the fit may name; their code is run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "out", run_folder(self.out))

    def plan(self) -> Plan:
        """Rows and targets."""
        self.check()
        surface, mixtures = self._read()
        surface.aligned(mixtures)
        return Plan(
            title=f"predict {len(surface.targets)} targets of {len(mixtures.index)} mixtures",
            reads=[(io.redact(self.model), 0), (io.redact(self.mixtures), 0)],
            writes=[(PREDICTIONS, len(mixtures.index) * len(surface.targets) * 60)],
        )

    def _read(self) -> tuple[Surface, Table]:
        surface = Surface.load(self.model, allow=self.allow)
        known = surface.domains
        return surface, read_mixtures(self.mixtures, known, "the fit", empty=surface.empty)

    def check(self) -> None:
        """Keep off a CSV of others, such as the mixtures themselves."""
        require_free(self.out, PREDICTIONS)

    def execute(self, run: Run) -> None:
        """Predict every target and write the table, rows in the order they came."""
        pin_input(run, "model", identity_of(self.model))
        surface, mixtures = self._read()
        pin_input(run, "mixtures", {"sha256": io.sha256(self.mixtures)})
        with one_thread():
            found = intervals(surface, surface.aligned(mixtures))
        header = [INDEX]
        for name in surface.targets:
            header += [name, *(f"{name}{end}" for end in ENDS)]
        write_table(run.path(PREDICTIONS), header, _rows(mixtures, surface, found))
        run.add_output(PREDICTIONS)
        publish(run.uri, PREDICTIONS)
        _report(run, surface, mixtures, found)
        run.set_summary(mixtures=len(mixtures.index), targets=len(surface.targets))


def intervals(surface: Surface, weights: np.ndarray) -> dict[str, Interval]:
    """Every target's mean and interval, of mixtures [n, domains]."""
    found = {}
    for name in surface.targets:
        pieces = [
            surface.predict(name, weights[start : start + ROWS_AT_ONCE])
            for start in range(0, max(len(weights), 1), ROWS_AT_ONCE)
        ]
        found[name] = Interval(
            mean=np.concatenate([p.mean for p in pieces]),
            half=np.concatenate([p.half for p in pieces]),
        )
    return found


def _rows(
    mixtures: Table, surface: Surface, found: dict[str, Interval]
) -> Iterator[list[str | float]]:
    place = {name: i for i, name in enumerate(mixtures.index)}
    for index in mixtures.given:
        row: list[str | float] = [index]
        for name in surface.targets:
            mean, half = found[name].mean[place[index]], found[name].half[place[index]]
            row += [float(mean), float(mean - half), float(mean + half)]
        yield row


def _report(run: Run, surface: Surface, mixtures: Table, found: dict[str, Interval]) -> None:
    page = Report(
        title="Predicted losses",
        subtitle=f"{len(mixtures.index)} mixtures, {len(surface.targets)} targets, 90 % intervals",
    )
    if mixtures.drift > 1e-6:
        page.warnings.append(
            f"Sums of weights drift from 1 by up to {mixtures.drift:.2g}, as rounding explains; "
            "each row was divided by its sum."
        )
    page.table(
        "Targets",
        ["target", "lowest", "at", "highest", "at", "mean width of 90 %"],
        [
            [
                name,
                float(f.mean.min()),
                mixtures.index[int(f.mean.argmin())],
                float(f.mean.max()),
                mixtures.index[int(f.mean.argmax())],
                float(2 * f.half.mean()),
            ]
            for name, f in found.items()
        ],
    )
    page.save(run.path(REPORT))
