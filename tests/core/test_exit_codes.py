"""The exit status tells whoever retries a job whether trying again helps."""

import signal
import subprocess
import sys
import time

import pytest
from killing import environment

from gristmill.clusters.submission import _exit_code, _Shown
from gristmill.core.cli import guarded
from gristmill.core.errors import BadInputError, MissingExtraError, RunError, TryAgainError
from gristmill.core.holding import hold
from gristmill.core.journal import read_events
from gristmill.core.run import Run

JOB = """
import sys, time
from gristmill.core.cli import guarded
from gristmill.core.run import Run
from gristmill.pools.selection import FilterJob
from gristmill.filters.clip_score import ClipScore

def act():
    job = FilterJob(pool="p", filter=ClipScore(fraction=0.3), out=sys.argv[1])
    with Run(job.out).open(job):
        print("at work", flush=True)
        time.sleep(60)

sys.exit(guarded(act))
"""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInputError("fraction must be in (0, 1], not 7"), 2),
        (MissingExtraError("torch", "clip"), 2),
        (RunError("the ranks died 4 times"), 1),
        (OSError(28, "No space left on device"), 1),
        (PermissionError(13, "Access Denied"), 1),
        (TryAgainError("the cluster lost machines"), 75),
        (ConnectionRefusedError(111, "Connection refused"), 75),
        (TimeoutError("read timed out"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_status_says_whose_fault_it_was(error, status, capsys):
    def act():
        raise error

    assert guarded(act) == status
    assert capsys.readouterr().err.strip()


def test_a_usage_message_keeps_its_status():
    with pytest.raises(SystemExit) as end:
        guarded(lambda: sys.exit(2))
    assert end.value.code == 2


def test_a_run_in_use_may_be_tried_again(tmp_path):
    with hold(str(tmp_path)):
        assert guarded(lambda: hold(str(tmp_path)).__enter__()) == 75


def test_a_job_that_is_told_to_end_notes_it_and_may_be_tried_again(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, tmp_path / "o"], env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "at work\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "told to end" in said, said
    assert read_events(Run(str(tmp_path / "o")).uri)[-1]["event"] == "stopped"


class Details:
    """A job as Ray tells of it."""

    message = "why"

    def __init__(self, status, code=None, error_type=None):
        from ray.job_submission import JobStatus

        self.status, self.driver_exit_code = JobStatus(status), code
        self.error_type = error_type


@pytest.mark.parametrize(
    ("details", "status"),
    [
        (("SUCCEEDED", 0), 0),
        (("FAILED", 2), 2),
        (("FAILED", 1), 1),
        (("FAILED", 75), 75),
        (("FAILED", -9), 75),
        (("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED"), 75),
        (("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE"), 1),
        (("STOPPED", -15), 1),
    ],
)
def test_a_submitted_jobs_status_comes_back(details, status):
    assert _exit_code("job", Details(*details)) == status


def test_each_connection_begins_anew_and_nothing_is_printed_twice(capsys):
    shown = _Shown()
    for pieces in (
        ["one\n", "tw"],
        ["one\ntw", "o\nthree\n"],
        ["one\n"],
        ["one\ntwo\nthree\n", "4"],
    ):
        shown.begin()
        for piece in pieces:
            shown.take(piece)
    assert capsys.readouterr().out == "one\ntwo\nthree\n4"
