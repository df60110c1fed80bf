"""`clip verify`: check a submission bundle without a network, a line a check."""

import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError, GristmillError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import Run
from gristmill.evaluation import bundle
from gristmill.evaluation.checks import CHECKS, GATES, Warned
from gristmill.evaluation.received import Bundle
from gristmill.execution.session import Execution

MALFORMED = (TypeError, ValueError, OverflowError, AttributeError, KeyError)
"""What JSON of the wrong shape makes of a check that did not foresee it."""
MAX_REASON = 300


class VerifyError(GristmillError):
    """A bundle that failed a check."""


@dataclass(frozen=True)
class Verdict:
    """How one check ended."""

    check: str
    status: Literal["OK", "WARN", "FAIL", "SKIP"]
    reason: str

    def line(self) -> str:
        """As printed."""
        return f"{self.status:<4} {self.check:<10} {self.reason}"


@dataclass(frozen=True, kw_only=True)
class VerifyJob(Job):
    """An offline check of a submission bundle."""

    always_anew: ClassVar[bool] = True
    uri_fields: ClassVar[tuple[str, ...]] = ("bundle", "pool")

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
        if isinstance(self.bundle, str) and isinstance(self.out, str):
            refuse_nested(self.bundle, self.out)

    def plan(self) -> Plan:
        """Names what would be hashed and read."""
        here = io.absolute(self.bundle)
        sizes = [(n, io.size_bytes(io.join(here, n))) for n in sorted(bundle.files_of(here))]
        checks = [*CHECKS, "pool" if self.pool else "pool (skipped: no --pool given)"]
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
        verdicts.append(self._pool_verdict(found, run, verdicts))
        for verdict in verdicts:
            print(verdict.line(), flush=True)
        print(summary_line(verdicts), flush=True)
        failed = [v for v in verdicts if v.status == "FAIL"]
        _save(run, found, verdicts)
        if failed:
            raise VerifyError(
                f"{len(failed)} of {len(verdicts)} checks failed, the first: "
                f"{failed[0].check}: {failed[0].reason}"
            )
        run.set_summary(
            checks=len(verdicts),
            failed=0,
            warned=[v.check for v in verdicts if v.status == "WARN"],
            skipped=[v.check for v in verdicts if v.status == "SKIP"],
            bundle=io.redact(found.uri),
        )
        run.add_input("bundle", {"manifest_sha256": io.sha256(found.path(bundle.MANIFEST))})

    def _pool_verdict(self, found: Bundle, run: Run, before: list[Verdict]) -> Verdict:
        from gristmill.evaluation.membership import check_membership

        if not self.pool:
            return Verdict("pool", "SKIP", "no --pool given")
        gates = [v for v in before if v.check in GATES | {"subset"}]
        bad = next((v for v in gates if v.status in ("FAIL", "SKIP")), None)
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
            said = check(found)
            warned = isinstance(said, Warned)
            reason = said.reason if isinstance(said, Warned) else said
            verdicts.append(Verdict(name, "WARN" if warned else "OK", reason))
        except GristmillError as error:
            verdicts.append(Verdict(name, "FAIL", str(error)))
        except RecursionError:
            verdicts.append(Verdict(name, "FAIL", "a JSON file is nested too deeply"))
        except MALFORMED as error:
            what = f"a value is not what it must be ({type(error).__name__}: {error})"
            verdicts.append(Verdict(name, "FAIL", what[:MAX_REASON]))
        if verdicts[-1].status == "FAIL" and name in GATES:
            closed = name
    return verdicts


def summary_line(verdicts: Sequence[Verdict]) -> str:
    """What to take away: how many checks ended how, and every one that is not OK by name."""
    by_status: dict[str, list[str]] = {}
    for verdict in verdicts:
        by_status.setdefault(verdict.status, []).append(verdict.check)
    parts = [f"{len(by_status.pop('OK', []))} OK"]
    parts += [f"{len(names)} {status} ({', '.join(names)})" for status, names in by_status.items()]
    tied = [v.reason for v in verdicts if v.status == "WARN"]
    return f"{len(verdicts)} checks: " + "; ".join([", ".join(parts), *tied])


def refuse_nested(bundle_uri: str, out: str) -> None:
    """Refuse verdicts in the bundle, which they would change, or a bundle below the verdicts.

    Raises:
        BadInputError: One folder is, or lies in, the other.
    """
    here, there = _folder(bundle_uri), _folder(out)
    if here.startswith(there) or there.startswith(here):
        raise BadInputError(
            f"--out {io.redact(out)} and the bundle {io.redact(bundle_uri)} lie in one another; "
            "choose another --out"
        )


def _folder(uri: str) -> str:
    here = io.absolute(uri)
    return (os.path.realpath(io.local_path(here)) if io.is_local(here) else here).rstrip("/") + "/"


def _save(run: Run, found: Bundle, verdicts: list[Verdict]) -> None:
    rows = [[v.check, v.status, v.reason] for v in verdicts]
    io.write_json(run.path("checks.json"), [dict(vars(v)) for v in verdicts])
    run.add_output("checks.json")
    page = Report("Verification", io.redact(found.uri))
    page.warnings += [f"{v.check}: {v.reason}" for v in verdicts if v.status in ("FAIL", "WARN")]
    page.text("Summary", summary_line(verdicts))
    page.table("Checks", ["check", "status", "reason"], rows)
    page.text(
        "What this shows",
        "The files fit together: hashes, subset, results, averages and lineage agree.",
        "It does not show that the numbers were honestly made; train and evaluate again for that.",
    )
    page.save(run.path("report.html"))
