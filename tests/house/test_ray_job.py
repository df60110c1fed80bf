"""A real head with authentication, and a job submitted to it the way the headers say."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import environment
from made_up import write_metadata

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def head(tmp_path):
    """The address of a head of our own with token authentication; ends with the test."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), PATH=path)
    port, dashboard = 26_379, 28_265
    words = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=100000000",
        f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
        f"--dashboard-agent-listen-port={dashboard + 1}",
        "--node-ip-address=127.0.0.1", f"--temp-dir=/tmp/gmh{os.getpid()}",
    ]  # fmt: skip
    log = (tmp_path / "head.log").open("wb")
    process = subprocess.Popen(list(map(str, words)), env=env, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(90):
            asked = subprocess.run(
                [BIN / "ray", "job", "list", "--address", address], env=env, capture_output=True
            )
            if asked.returncode == 0:
                break
            assert process.poll() is None, (tmp_path / "head.log").read_text()
            time.sleep(1)
        yield address, env
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_filter_runs_as_a_submitted_job(head, tmp_path):
    address, env = head
    write_metadata(tmp_path / "p", 5000)
    out = tmp_path / "o"
    words = [
        BIN / "ray", "job", "submit", "--address", address, "--working-dir", str(ROOT),
        "--runtime-env", str(ROOT / "jobs" / "runtime_env.yaml"), "--",
        "python", "jobs/pool_filter.py", "clip_score", "--fraction", "0.3", "--pool", str(tmp_path / "p"), "--out", str(out),
    ]  # fmt: skip
    for _ in range(30):  # the head answers before its agent can take a job
        done = subprocess.run(
            list(map(str, words)), env=env, capture_output=True, text=True, timeout=120, cwd=ROOT
        )
        if "No available agent" not in done.stderr:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert (out / "DONE").exists() and (out / "subset.npy").stat().st_size > 128

    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)
    refused = subprocess.run(
        [BIN / "ray", "job", "list", "--address", address],
        env={**env, "RAY_AUTH_TOKEN_PATH": str(wrong)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode != 0
