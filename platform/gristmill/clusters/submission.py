"""Sending a job to a Ray cluster: upload, submit, follow its output, hand back its exit code."""

import asyncio
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.cli import FAILED, TRY_AGAIN
from gristmill.core.errors import BadInputError, RunError, TryAgainError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

NOT_UPLOADED = ("/tests", "/docs", "/runs", "/cluster", "/build", "*.log")
AGENT_SECONDS = 90.0
"""How long a head that is up may take until it takes jobs."""
LOST_SECONDS = 300.0
"""How long the head may be out of reach while a job is followed."""
POLL_SECONDS, MOST_PAUSE_SECONDS = 1.0, 30.0
SILENCE_SECONDS = 30.0
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""Exit codes of a driver whose machine had no memory left for it, or was taken away."""
TOKEN = (
    "the token is looked for in RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, and "
    "~/.ray/auth_token; take the cluster's"
)


def connect(address: str) -> "JobSubmissionClient":
    """A client of the cluster at `address`, such as http://127.0.0.1:8265.

    Raises:
        BadInputError: The token is missing or wrong.
        TryAgainError: Nobody answers there.
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
        raise TryAgainError(
            f"no Ray head answers at {io.redact(address)}: {str(error).splitlines()[0]}"
        ) from error
    return client


def _refused(address: str, error: Exception) -> BadInputError:
    text = str(error).lower()
    if "couldn't find" in text or "no token was found" in text:  # nothing was asked of the cluster
        return BadInputError(f"RAY_AUTH_MODE asks for a token, and none was found; {TOKEN}")
    missing = "missing" in text or "required" in text
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
            if "No available agent" not in str(error):
                raise RunError(f"the cluster did not take the job: {error}") from error
            if time.monotonic() > end:
                raise TryAgainError(f"the head takes no jobs yet: {error}") from error
            time.sleep(POLL_SECONDS)


def follow(client: "JobSubmissionClient", name: str) -> int:
    """Print a job's output as it comes, until it ends; the exit code that says how.

    A head that is out of reach for a while is waited for: the job goes on without us.

    Raises:
        TryAgainError: The head stayed away, or has forgotten the job.
    """
    from aiohttp import ClientError

    shown, reached, pause = _Shown(), time.monotonic(), POLL_SECONDS
    while True:
        try:
            asyncio.run(_tail(client, name, shown))
            details = client.get_job_info(name)
            reached = time.monotonic()
        except (RuntimeError, OSError, ClientError) as error:
            reached = max(reached, shown.at)
            if time.monotonic() - reached > LOST_SECONDS:
                raise TryAgainError(f"lost the head while following {name}: {error}") from error
        else:
            if details.status.is_terminal():
                return _exit_code(name, details)
        time.sleep(pause)
        pause = min(2 * pause, MOST_PAUSE_SECONDS)


class _Shown:
    """How much of a job's output has been printed: each connection begins with all of it."""

    def __init__(self) -> None:
        self._length, self._passed, self.at = 0, 0, 0.0

    def begin(self) -> None:
        """A new connection."""
        self._passed = 0

    def take(self, text: str) -> None:
        """Print what of a piece was not printed before."""
        new = text[max(self._length - self._passed, 0) :]
        self._passed += len(text)
        self._length += len(new)
        self.at = time.monotonic()
        sys.stdout.write(new)
        sys.stdout.flush()


async def _tail(client: "JobSubmissionClient", name: str, shown: _Shown) -> None:
    """Print what comes over one connection, until the job has ended or the connection.

    A connection that is silent may be dead: then the head is asked whether it is still there.
    """
    stream = client.tail_job_logs(name)
    shown.begin()
    piece = asyncio.ensure_future(anext(stream))
    try:
        while True:
            done, _ = await asyncio.wait({piece}, timeout=SILENCE_SECONDS)
            if not done:
                details = await asyncio.to_thread(client.get_job_info, name)
                if details.status.is_terminal():
                    return
                continue
            shown.take(piece.result())
            piece = asyncio.ensure_future(anext(stream))
    except StopAsyncIteration:
        return
    finally:
        piece.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
            await piece
        await stream.aclose()


def _exit_code(name: str, details: Any) -> int:
    """That of the job's own command, or what its end without one means."""
    from ray.job_submission import JobStatus

    if details.status == JobStatus.SUCCEEDED:
        return 0
    print(f"{name} {details.status.value}: {details.message}", file=sys.stderr)
    if details.status == JobStatus.STOPPED:  # by somebody who wanted that
        return FAILED
    code = getattr(details, "driver_exit_code", None)
    if code is None:
        lost = str(getattr(details, "error_type", "")).startswith("JOB_SUPERVISOR")
        return TRY_AGAIN if lost else FAILED
    return TRY_AGAIN if code in KILLED else int(code) or FAILED
