"""`clip verify`: check a submission bundle without a network, a line a check."""

import os
import secrets
import tempfile
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from gristmill.core import io
from gristmill.core.errors import GristmillError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import Run
from gristmill.evaluation import bundle
from gristmill.evaluation.checks import CHECKS, GATES
from gristmill.evaluation.received import Bundle
from gristmill.execution.session import Execution


class VerifyError(GristmillError):
    """A bundle that failed a check."""


@dataclass(frozen=True)
class Verdict:
    """How one check ended."""

    check: str
    status: Literal["OK", "FAIL", "SKIP"]
    reason: str

    def line(self) -> str:
        """As printed."""
        return f"{self.status:<4} {self.check:<10} {self.reason}"


@dataclass(frozen=True, kw_only=True)
class VerifyJob(Job):
    """An offline check of a submission bundle."""

    always_anew: ClassVar[bool] = True

    bundle: str
    """The bundle's folder (any fsspec URI)."""
    pool: str = ""
    """The pool, to check that every uid of the subset is in it; reads its metadata once."""
    out: str = ""
    """Folder for the verdicts; empty takes a new temporary one, so that each call checks anew.
    Name one to go on with an interrupted check against a large pool."""
    execution: Execution = field(default_factory=Execution)
    """Where the pool is read."""

    def __post_init__(self) -> None:
        if self.out == "":
            name = f"gristmill-verify-{secrets.token_hex(6)}"
            object.__setattr__(self, "out", os.path.join(tempfile.gettempdir(), name))
        super().__post_init__()

    def plan(self) -> Plan:
        """Names what would be hashed and read."""
        here = io.absolute(self.bundle)
        sizes = [(n, io.size_bytes(io.join(here, n))) for n in sorted(bundle.files_of(here))]
        checks = [*CHECKS, "pool"] if self.pool else list(CHECKS)
        reads = [*sizes, (f"metadata of {io.redact(self.pool)}", 0)] if self.pool else sizes
        return Plan(
            title=f"verify {io.redact(self.bundle)}",
            reads=reads,
            work=[("checks", ", ".join(checks))],
        )

    def execute(self, run: Run) -> None:
        """Run every check, print and keep the verdicts, and raise if one failed."""
        found = Bundle(io.absolute(self.bundle))
        verdicts = run_checks(found)
        if self.pool:
            verdicts.append(self._pool_verdict(found, run, verdicts))
        for verdict in verdicts:
            print(verdict.line(), flush=True)
        failed = [v for v in verdicts if v.status == "FAIL"]
        _save(run, found, verdicts)
        if failed:
            raise VerifyError(
                f"{len(failed)} of {len(verdicts)} checks failed, the first: "
                f"{failed[0].check}: {failed[0].reason}"
            )
        run.set_summary(checks=len(verdicts), failed=0, bundle=io.redact(found.uri))
        run.add_input("bundle", {"manifest_sha256": io.sha256(found.path(bundle.MANIFEST))})

    def _pool_verdict(self, found: Bundle, run: Run, before: list[Verdict]) -> Verdict:
        from gristmill.evaluation.membership import check_membership

        bad = next((v for v in before if v.check in GATES | {"subset"} and v.status != "OK"), None)
        if bad is not None:
            return Verdict("pool", "SKIP", f"needs {bad.check}")
        if not found.has(bundle.SAMPLES):
            return Verdict("pool", "OK", "no subset, byod")
        name = found.scaled(bundle.SAMPLES)
        try:
            distinct, rows = check_membership(
                found.path(name), found.manifest[name], self.pool, run=run, execution=self.execution
            )
        except GristmillError as error:
            return Verdict("pool", "FAIL", str(error))
        return Verdict("pool", "OK", f"{distinct:,} uids, all among {rows:,} rows of the pool")


def run_checks(found: Bundle) -> list[Verdict]:
    """Every check but the pool's, in order; those behind a failed gate are skipped."""
    verdicts: list[Verdict] = []
    closed = ""
    for name, check in CHECKS.items():
        if closed:
            verdicts.append(Verdict(name, "SKIP", f"needs {closed}"))
            continue
        try:
            verdicts.append(Verdict(name, "OK", check(found)))
        except GristmillError as error:
            verdicts.append(Verdict(name, "FAIL", str(error)))
        except RecursionError:
            verdicts.append(Verdict(name, "FAIL", "a JSON file is nested too deeply"))
        if verdicts[-1].status == "FAIL" and name in GATES:
            closed = name
    return verdicts


def _save(run: Run, found: Bundle, verdicts: list[Verdict]) -> None:
    rows = [[v.check, v.status, v.reason] for v in verdicts]
    io.write_json(run.path("checks.json"), [dict(vars(v)) for v in verdicts])
    run.add_output("checks.json")
    page = Report("Verification", io.redact(found.uri))
    page.warnings += [f"{v.check}: {v.reason}" for v in verdicts if v.status == "FAIL"]
    page.table("Checks", ["check", "status", "reason"], rows)
    page.text(
        "What this shows",
        "The files fit together: hashes, subset, results, averages and lineage agree.",
        "It does not show that the numbers were honestly made; train and evaluate again for that.",
    )
    page.save(run.path("report.html"))
