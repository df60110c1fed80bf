"""Sending a job to a Ray cluster: upload, submit, follow its output, hand back its exit code."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, RunError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

NOT_UPLOADED = ("/tests", "/docs", "/runs", "/cluster", "/build", "*.log")
AGENT_SECONDS = 90.0
"""How long a head that is up may take until it takes jobs."""
LOST_SECONDS = 300.0
"""How long the head may be out of reach while a job is followed."""
POLL_SECONDS = 1.0
TOKEN = (
    "the token is looked for in RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, and "
    "~/.ray/auth_token; take the cluster's"
)


def connect(address: str) -> "JobSubmissionClient":
    """A client of the cluster at `address`, such as http://127.0.0.1:8265.

    Raises:
        BadInputError: Nobody answers there, or the token is missing or wrong.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise BadInputError(
            f"--address {address!r} must be the dashboard's, such as http://127.0.0.1:8265; "
            "`ray dashboard CLUSTER.yaml` opens a tunnel to it"
        )
    try:
        client = JobSubmissionClient(address)
        client.list_jobs()
    except AuthenticationError as error:
        raise _refused(address, error) from error
    except (ConnectionError, RuntimeError) as error:
        if "401" in str(error) or "403" in str(error):
            raise _refused(address, error) from error
        raise BadInputError(
            f"no Ray head answers at {io.redact(address)}: {str(error).splitlines()[0]}"
        ) from error
    return client


def _refused(address: str, error: Exception) -> BadInputError:
    text = str(error)
    missing = "Missing" in text or "no token" in text.lower() or "required" in text.lower()
    what = "asks for a token and got none" if missing else "refuses this token"
    return BadInputError(f"the cluster at {io.redact(address)} {what}; {TOKEN}")


def runtime_environment(root: str) -> dict[str, Any]:
    """The runtime environment of jobs/runtime_env.yaml, with the checkout as working directory.

    Raises:
        BadInputError: `root` is no checkout.
    """
    import yaml

    path = Path(root) / "jobs" / "runtime_env.yaml"
    if not path.is_file():
        raise BadInputError(
            f"{root} is no checkout of Gristmill: it has no jobs/runtime_env.yaml; "
            "give --working-dir, or --installed if the cluster's image holds the package"
        )
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return {**found, "working_dir": str(Path(root)), "excludes": list(NOT_UPLOADED)}


def submit(client: "JobSubmissionClient", words: Sequence[str], *, working_dir: str) -> str:
    """Submit `gristmill WORDS`; the submission's id. An empty `working_dir` uploads nothing."""
    environment = runtime_environment(working_dir) if working_dir else {}
    entrypoint = shlex.join(["python", "-m", "gristmill", *words])
    end = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=environment))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise RunError(f"the cluster did not take the job: {error}") from error
            time.sleep(POLL_SECONDS)


def follow(client: "JobSubmissionClient", name: str) -> int:
    """Print a job's output as it comes, until it ends; its exit code.

    A head that is out of reach for a while is waited for: the job goes on without us.

    Raises:
        RunError: The head stayed away, or has forgotten the job.
    """
    from ray.job_submission import JobStatus

    shown, reached = 0, time.monotonic()
    while True:
        try:
            details = client.get_job_info(name)
            text = client.get_job_logs(name)
            reached = time.monotonic()
        except (ConnectionError, RuntimeError, OSError) as error:
            if time.monotonic() - reached > LOST_SECONDS:
                raise RunError(f"lost the head while following {name}: {error}") from error
            time.sleep(POLL_SECONDS)
            continue
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if details.status.is_terminal():
            if details.status == JobStatus.SUCCEEDED:
                return 0
            print(f"{name} {details.status.value}: {details.message}", file=sys.stderr)
            code = getattr(details, "driver_exit_code", None)
            return int(code) if code else 1
        time.sleep(POLL_SECONDS)
