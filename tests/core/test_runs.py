"""`run list|show|watch` and what runs keep of themselves, on a disk and on an S3 server."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest
from killing import environment

from gristmill.core import io, journal
from gristmill.core.errors import BadInputError
from gristmill.core.holding import held_by
from gristmill.core.job import Job, run_job
from gristmill.core.journal import read_events, read_log
from gristmill.core.plan import Plan
from gristmill.core.run import OBSERVER, Run
from gristmill.core.runs import find, status
from gristmill.recipes.commands import main

logger = logging.getLogger("gristmill.tests")


@dataclass(frozen=True, kw_only=True)
class TellJob(Job):
    """Logs, and then ends as it is told."""

    end: str = "done"
    seconds: float = 0.0

    def plan(self):
        return Plan(title="tell")

    def execute(self, run):
        logger.warning("working on it, %s", self.end)
        if self.end == "refuse":
            raise BadInputError("no such thing")
        for step in range(3):
            run.log(step=step, samples_per_second=10.0 * step)
        run.event("checkpoint", epoch=1)
        time.sleep(self.seconds)
        if self.end == "fail":
            raise ValueError("s3://user:secret@bucket/x is bad")
        if self.end == "leave":
            raise KeyboardInterrupt
        run.set_summary(kept=3)


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    local = request.param == "local"
    return str(tmp_path / "runs") if local else request.getfixturevalue("bucket") + "/runs"


def test_a_run_keeps_its_log_and_events_with_itself(folder, caplog):
    run = run_job(TellJob(out=f"{folder}/a"))
    assert [e["event"] for e in read_events(run.uri)] == ["began", "checkpoint", "done"]
    assert any("working on it, done" in line for line in read_log(run.uri, 10))
    with pytest.raises(ValueError, match="bad"):
        run_job(TellJob(out=f"{folder}/b", end="fail"))
    with pytest.raises(KeyboardInterrupt):
        run_job(TellJob(out=f"{folder}/c", end="leave"))
    events = read_events(f"{folder}/b")
    assert events[-1]["event"] == "failed" and events[-1]["kind"] == "ValueError"
    assert "secret" not in events[-1]["message"]
    assert any("Traceback" in line for line in read_log(f"{folder}/b", 50))
    assert not any("secret" in line for line in read_log(f"{folder}/b", 50))
    assert "Traceback" not in caplog.text, "at the terminal an error is one line"
    assert read_events(f"{folder}/c")[-1]["event"] == "stopped"
    with pytest.raises(ValueError, match="bad"):
        run_job(TellJob(out=f"{folder}/b", end="fail"))
    assert "resumed" in [e["event"] for e in read_events(f"{folder}/b")]


def test_what_a_killed_worker_left_half_written_is_gone_in_the_end(tmp_path):
    with Run(str(tmp_path / "a")).open(TellJob(out=str(tmp_path / "a"))) as run:
        io.write_bytes(run.path("part", "x.bin"), b"whole")
        half = tmp_path / "a" / "part" / ".y.bin.0123456789ab.tmp"
        half.write_bytes(b"ha")
        run.finish()
    assert not half.exists() and (tmp_path / "a" / "part" / "x.bin").exists()


def test_a_request_that_is_refused_leaves_no_trace(folder):
    with pytest.raises(BadInputError):
        run_job(TellJob(out=f"{folder}/a", end="refuse"))
    left = io.list_files(f"{folder}/a", recursive=True, hidden=True)
    assert [name for name in left if not name.endswith(".lock")] == []
    assert run_job(TellJob(out=f"{folder}/a")).done(), "it is free for another"


def test_runs_are_listed_and_shown(folder, capsys):
    run_job(TellJob(out=f"{folder}/deep/a"))
    with pytest.raises(ValueError, match="bad"):
        run_job(TellJob(out=f"{folder}/b", end="fail"))
    io.write_bytes(f"{folder}/other/file", b"x")
    io.write_bytes(f"{folder}/deep/a/inner/config.json", b"{}")  # not looked at: it is inside a run
    assert find(folder, 3) == [f"{folder}/b", f"{folder}/deep/a"]
    assert find(folder, 1) == [f"{folder}/b"]
    assert main(["run", "list", folder]) == 0
    said = capsys.readouterr().out
    assert "deep/a" in said and "done" in said and "kept 3" in said
    assert "failed" in said and "ValueError" in said and "secret" not in said
    assert main(["run", "show", f"{folder}/deep/a"]) == 0
    said = capsys.readouterr().out
    assert "TellJob, done" in said and "checkpoint" in said and "working on it" in said
    assert main(["run", "show", f"{folder}/nothing"]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_is_watched_until_it_ends(folder, capsys):
    thread = threading.Thread(target=run_job, args=(TellJob(out=f"{folder}/a", seconds=1.5),))
    thread.start()
    while not io.exists(f"{folder}/a/config.json"):
        time.sleep(0.05)
    time.sleep(0.5)
    assert held_by(f"{folder}/a") == f"process {os.getpid()} on {os.uname().nodename}"
    assert status(f"{folder}/a").state == "running"
    assert main(["run", "watch", f"{folder}/a", "--every", "0.2"]) == 0
    thread.join()
    said = capsys.readouterr().out
    assert '"event": "checkpoint"' in said and "done: kept 3" in said
    assert said.count('"step": 2') == 1
    assert held_by(f"{folder}/a") == ""


def test_a_killed_run_is_told_from_a_failed_one(tmp_path, capsys):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import test_runs as t;"
        "t.run_job(t.TellJob(out=sys.argv[1], seconds=60))"
    )
    out = tmp_path / "k"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out), os.path.dirname(__file__)],
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
    )
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert status(str(out)).state == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert status(str(out)).state == "stopped"
    assert main(["run", "watch", str(out), "--every", "0.1", "--patience", "0.3"]) == 1
    assert "the same command resumes it" in capsys.readouterr().out


def test_what_is_logged_reaches_an_object_store_while_the_run_goes_on(bucket, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.2)
    out = f"{bucket}/a"
    thread = threading.Thread(target=run_job, args=(TellJob(out=out, seconds=2.0),))
    thread.start()
    end = time.monotonic() + 10
    while not (Run(out).metrics() and read_log(out, 5)) and time.monotonic() < end:
        time.sleep(0.1)
    assert thread.is_alive(), "only at its end"
    assert len(Run(out).metrics()) == 3 and any(
        "working on it" in line for line in read_log(out, 5)
    )
    thread.join()


def test_a_long_log_goes_into_parts(bucket, monkeypatch):
    monkeypatch.setattr(journal, "PART_BYTES", 2000)
    one = journal.Journal(f"{bucket}/a", also=lambda: None)
    with one:
        for i in range(60):
            logger.warning("line %d %s", i, "x" * 60)
            if i % 10 == 9:
                one.flush()
    parts = io.list_files(f"{bucket}/a/logs", ".log")
    assert len(parts) > 1
    lines = read_log(f"{bucket}/a", 1000)
    assert [line.split("line ")[1].split()[0] for line in lines] == [str(i) for i in range(60)]
    assert read_log(f"{bucket}/a", 3) == lines[-3:]


def test_an_observer_sees_lines_and_events(tmp_path):
    seen = []
    token = OBSERVER.set(lambda uri, values: seen.append(values))
    try:
        run_job(TellJob(out=str(tmp_path / "a")))
    finally:
        OBSERVER.reset(token)
    assert {"step": 2, "samples_per_second": 20.0} in seen
    assert {"event": "checkpoint", "epoch": 1} in seen


def test_journals_do_not_change_a_job(tmp_path):
    job = TellJob(out=str(tmp_path / "a"))
    first = run_job(job).done()
    assert run_job(dataclasses.replace(job)).done() == first
    assert not [name for name in first["outputs"] if "log" in name or "event" in name]
