"""What worker processes say reaches the run's folder: bounded, without secrets, after a death too."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from killing import environment
from slice_workers import Square

from gristmill.core import io
from gristmill.core.journal import LOG_NAME, read_log
from gristmill.core.run import CURRENT, Run
from gristmill.execution import worker_log
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceFailedError, map_slices
from gristmill.execution.worker_log import DIED, ENDED, WorkerLog, last_lines

FOLLOWED = """
import ctypes, os, sys, time
from gristmill.execution import follower
follower.own_files = lambda: sys.argv[2:]
with follower.followed(sys.argv[1], "rank-003"):
    print("token=hunter2hunter2 s3://me:pass@bucket/x", flush=True)
    print("trouble", file=sys.stderr, flush=True)
    print("within", file=sys.__stdout__, flush=True)
    if os.environ["END"] == "crash":
        ctypes.string_at(0)
    if os.environ["END"] == "wait":
        time.sleep(60)
"""


def text_of(folder, kind=""):
    return "".join(
        io.read_bytes(n).decode() for n in io.list_files(str(folder), ".log") if kind in n
    )


@pytest.mark.parametrize(
    ("end", "words", "status"),
    [("", ENDED, 0), ("crash", "Segmentation fault", -signal.SIGSEGV), ("wait", DIED, -9)],
)
def test_a_rank_is_followed_beyond_its_end(tmp_path, end, words, status):
    out, err = tmp_path / "o.out", tmp_path / "o.err"
    out.write_text("of an earlier task\n")
    with out.open("ab") as stdout, err.open("ab") as stderr:
        rank = subprocess.Popen(
            [sys.executable, "-c", FOLLOWED, tmp_path / "logs", out, err],
            env=environment(END=end, SOME_TOKEN="hunter2hunter2"), stdout=stdout, stderr=stderr,
        )  # fmt: skip
        while end == "wait" and "within" not in out.read_text():
            time.sleep(0.05)
        if end == "wait":
            rank.kill()
        assert rank.wait(60) == status, err.read_text()
    said = last_lines(str(tmp_path / "logs"), "rank-003", 100)
    assert "trouble" in said and any(words in line for line in said), said
    assert said[0] == "token=*** s3://***@bucket/x", "no secret, and nothing said before"
    assert said[-1] == (ENDED if not end else DIED)
    (name,) = os.listdir(tmp_path / "logs")
    assert LOG_NAME.fullmatch(f"logs/{name}"), name


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("AZURE_STORAGE_ACCOUNT_KEY", True),
        ("AZURE_STORAGE_CONNECTION_STRING", True),
        ("AWS_ACCESS_KEY_ID", True),
        ("WANDB_API_KEY", True),
        ("DB_PASSWORD", True),
        ("KEYBOARD_LAYOUT", False),
        ("MONKEY_NAME", False),
    ],
)
def test_which_variables_reach_no_log(monkeypatch, name, hidden):
    monkeypatch.setenv(name, "hunter2hunter2")
    assert ("hunter2hunter2" in worker_log._secrets()) == hidden


def test_a_worker_that_never_stops_fills_no_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_log, "PART_BYTES", 1000)
    source = tmp_path / "w.out"
    source.touch()
    log = WorkerLog([str(source)], str(tmp_path / "logs"), "worker-1")
    for number in range(400):
        with source.open("a") as file:
            file.write(f"{number:049d}\n" + ("x" * 7 if number == 399 else ""))
        log.look()
    log.look(ENDED)
    said = text_of(tmp_path / "logs")
    assert said.startswith(f"{0:049d}\n") and said.endswith(f"{399:049d}\nxxxxxxx{ENDED}\n")
    assert "bytes were cut before this" in said and len(said) < 11_000
    with source.open("a") as file:  # faster than it is copied
        file.write("y" * 50_000 + "\n")
    log.look()
    told = re.findall(r"\[([\d,]+) bytes were cut before this", text_of(tmp_path / "logs"))
    assert int(told[-1].replace(",", "")) > 50_000, "of both kinds"


@pytest.mark.ray
def test_a_crash_in_a_slice_leaves_its_trace_with_the_run(ray_cluster, tmp_path):
    (tmp_path / "log").mkdir()
    run = Run(str(tmp_path / "run"))
    token = CURRENT.set(run)
    pieces = [Slice(name=f"{i}", payload={"number": i}) for i in range(4)]
    pieces[2].payload["what"] = "crash"
    try:
        with pytest.raises(SliceFailedError):
            map_slices(
                "s", pieces, Square(str(tmp_path / "log")), ledger=str(tmp_path / "l"),
                execution=Execution(workers=1),
            )  # fmt: skip
    finally:
        CURRENT.reset(token)
    assert "working on 0" in text_of(run.path("logs"), "/worker-")
    said = text_of(run.path("logs"), "/crashed-")
    assert "Segmentation fault" in said and "in _crash" in said and DIED in said
    assert read_log(run.uri, 9) == [], "the run's own log is its driver's"
