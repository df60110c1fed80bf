"""A job: a frozen dataclass that the command line parses and a run folder keeps."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.core.errors import BadInputError
from gristmill.core.inputs import require_inputs
from gristmill.core.io import absolute, has_credentials
from gristmill.core.plan import Plan
from gristmill.core.run import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """Base of all jobs. A child adds fields, `plan` and `execute`; nothing derives from a child."""

    always_anew: ClassVar[bool] = False
    """Whether an earlier result is never reused: true of checks, whose subject may have changed."""
    uri_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that name a file or folder to read; made absolute, so that the same words in another
    folder are another job."""
    out: str
    """Folder (any fsspec URI) that receives the results; the same command again resumes there."""

    def __post_init__(self) -> None:
        if isinstance(self.out, str) and not self.out:
            raise BadInputError("the output folder is empty; give --out a path or URI")
        for name in (*self.uri_fields, "out"):
            value = getattr(self, name)
            if isinstance(value, str) and value:
                if has_credentials(value):
                    raise BadInputError(
                        f"{name} carries a password or signature, which would be stored with the "
                        "run; give credentials through the environment or the machine's role"
                    )
                object.__setattr__(self, name, absolute(value))

    @abstractmethod
    def plan(self) -> Plan:
        """What `execute` would read, write and cost. Starts nothing and writes nothing."""

    @abstractmethod
    def execute(self, run: Run) -> None:
        """Do the work into `run`. Called again after a kill; what was committed is still there."""

    def check(self) -> None:
        """Refuse what is seen to be wrong before the folder is looked at, claimed or cleared."""
        return

    def inputs(self) -> dict[str, Any]:
        """What pins the bytes that are read, by name: a finished run is of these, or is refused."""
        return {}

    def goes_on(self, run: Run) -> bool:  # noqa: ARG002  children ask it
        """Whether a finished run has more to do, as a field outside the identity now asks for."""
        return False


def run_job(job: Job, *, overwrite: bool = False) -> Run:
    """Run a job to its `DONE`, resume it, or return at once when it is done already.

    Args:
        job: What to do.
        overwrite: First remove what another job left in the output folder.

    Raises:
        RunError: The output folder is in use, belongs to another job, or is done from inputs that
            have changed since.
    """
    if not isinstance(job.out, str):  # a recipe leaves it to the caller
        raise BadInputError("the job has no output folder; set its field `out`")
    job.check()
    run = Run(job.out)
    if overwrite:
        run.clear()
    done = run.finished_by(job)
    if done and job.always_anew:
        run.clear()
    elif done:
        require_inputs(run, job.inputs)
        if not job.goes_on(run):
            logger.info("%s is done already; --overwrite does it anew", run.uri)
            return run
    with run.open(job):
        run.reopen()
        try:
            job.execute(run)
        except BadInputError:
            run.withdraw()
            raise
        run.finish()
    return run
