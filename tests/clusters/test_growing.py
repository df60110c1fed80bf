"""The real autoscaler on cluster/two-node.yaml: from one node to two for a job, and back."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from group_filters import Logged
from killing import environment
from made_up import write_numbered

from gristmill.core.job import run_job
from gristmill.execution.session import source_root
from gristmill.pools.selection import FilterJob

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PORT = 27_479
"""Ray's provider has 6379 built in, where another cluster may be; it takes another from the file."""


def end_what_uses(folder):
    """Processes whose command line names our own temporary folder: the head's and the worker's."""
    for process in psutil.process_iter(["cmdline"]):
        if any(folder in word for word in process.info["cmdline"] or ()):
            process.send_signal(signal.SIGKILL)


@pytest.fixture
def small_cluster(tmp_path):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"something listens on {PORT}")
    config = yaml.safe_load((ROOT / "cluster" / "two-node.yaml").read_text())
    config["provider"]["gcs_address"] = f"127.0.0.1:{PORT}"
    path = tmp_path / "two-node.yaml"
    path.write_text(yaml.safe_dump(config))
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    folder = f"/tmp/gmg{os.getpid()}"
    env = environment(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_FAKE_CLUSTER="1",
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=os.pathsep.join([source_root(), str(ROOT / "tests")]),
    )
    words = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=1", f"--port={PORT}",
        "--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--include-dashboard=false",
        f"--temp-dir={folder}", f"--autoscaling-config={path}",
    ]  # fmt: skip
    log = tmp_path / "head.log"
    process = subprocess.Popen(
        list(map(str, words)), env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )
    try:
        for _ in range(60):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            assert process.poll() is None, log.read_text()
            time.sleep(1)
        yield f"127.0.0.1:{PORT}", env
    finally:
        process.terminate()
        process.wait(60)
        end_what_uses(folder)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_cluster_grows_for_a_job_and_shrinks_after(small_cluster, tmp_path):
    address, env = small_cluster
    write_numbered(tmp_path / "p", 60)
    calm, log = tmp_path / "calm", tmp_path / "log"
    calm.mkdir()
    log.mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "growing.py", address, tmp_path / "p", tmp_path / "o", log, "0.7"],
        env=env, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "began with: 1" in done.stdout and "most nodes: 2" in done.stdout, done.stdout
    assert "nodes left: 1" in done.stdout, done.stdout
    run_job(
        FilterJob(
            pool=str(tmp_path / "p"), filter=Logged(folder=str(calm)), out=str(tmp_path / "c")
        )
    )
    grown, undisturbed = (np.fromfile(tmp_path / n / "subset.npy", np.uint8) for n in "oc")
    assert np.array_equal(grown, undisturbed)
