"""Run the real command in its own process, and end it or a worker of it with SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gristmill.execution.session import source_root

LIMIT_SECONDS = 150


def environment(**extra):
    """Without this test session's own cluster, so that the command starts one of its own."""
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("RAY_") or k == "RAY_USAGE_STATS_ENABLED"
    }
    return {**env, "PYTHONPATH": source_root(), **extra}


def start(*words, log, **extra):
    return subprocess.Popen(
        [sys.executable, "-m", "gristmill", *map(str, words)],
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env=environment(**extra),
    )


def finish(*words, log, **extra):
    status = start(*words, log=log, **extra).wait(LIMIT_SECONDS)
    return status, log.read_text(errors="replace")


def wait_for(condition, process, log):
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None, f"ended too soon:\n{log.read_text(errors='replace')[-2000:]}"
        assert time.monotonic() < end, (
            f"nothing happened:\n{log.read_text(errors='replace')[-2000:]}"
        )
        time.sleep(0.02)


def kill_driver_when(condition, *words, log, **extra):
    """Start the command and end its driver with SIGKILL once `condition` holds."""
    process = start(*words, log=log, **extra)
    wait_for(condition, process, log)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def markers(folder):
    """How many slices of a map are committed."""
    folder = Path(folder)
    return len([n for n in os.listdir(folder) if n.endswith(".json")]) if folder.is_dir() else 0
