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
from lm_training import MODEL, write_small_tokens
from made_proxies import write_corpus
from made_up import write_numbered

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.job import run_job
from gristmill.core.journal import read_events
from gristmill.core.run import Run
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
def small_cluster(request, tmp_path):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"something listens on {PORT}")
    config = yaml.safe_load((ROOT / "cluster" / "two-node.yaml").read_text())
    config["provider"]["gcs_address"] = f"127.0.0.1:{PORT}"
    config["available_node_types"]["worker"]["resources"] |= getattr(request, "param", {})
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


def grown(small_cluster, what, folder):
    """What the job said on a cluster that grew from one node to two for it, and shrank after."""
    address, env = small_cluster
    (folder / "log").mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "growing.py", address, what, folder],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "began with: 1" in done.stdout and "most nodes: 2" in done.stdout, done.stdout
    assert "nodes left: 1" in done.stdout, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_cluster_grows_for_a_job_and_shrinks_after(small_cluster, tmp_path):
    write_numbered(tmp_path / "p", 60)
    calm = tmp_path / "calm"
    calm.mkdir()
    grown(small_cluster, "filter", tmp_path)
    run_job(
        FilterJob(
            pool=str(tmp_path / "p"), filter=Logged(folder=str(calm)), out=str(tmp_path / "c")
        )
    )
    after, undisturbed = (np.fromfile(tmp_path / n / "subset.npy", np.uint8) for n in "oc")
    assert np.array_equal(after, undisturbed)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_training_waits_for_the_node_of_its_second_rank(small_cluster, tmp_path):
    (tmp_path / "t").mkdir()
    write_small_tokens(tmp_path / "t")
    io.write_json(str(tmp_path / "model.json"), to_dict(MODEL))
    said = grown(small_cluster, "train", tmp_path)
    assert "refused: 4 workers on a cluster with 1 CPUs that may grow to 3; give" in said
    run = Run(str(tmp_path / "o"))
    assert run.done() is not None
    waiting = [e for e in read_events(run.uri) if e["event"] == "waiting"]
    assert [(e["ranks"], e["resource"], e["alive"], e["most"]) for e in waiting] == [
        (2, "CPU", 1, 3)
    ]


@pytest.mark.slow
@pytest.mark.long  # three minutes
@pytest.mark.timeout(400)
def test_more_proxies_train_at_once_on_the_node_that_comes(small_cluster, tmp_path):
    (tmp_path / "t").mkdir()
    write_corpus(tmp_path / "t", sizes=(120_000, 180_000, 60_000))
    grown(small_cluster, "proxies", tmp_path)
    assert len((tmp_path / "o" / "losses.csv").read_text().splitlines()) == 1 + 16


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("small_cluster", [{"CPU": 2, "GPU": 1}], indirect=True)
def test_work_for_gpus_waits_for_a_machine_that_has_one(small_cluster, tmp_path):
    """Scheduling is real, the device is not."""
    said = grown(small_cluster, "gpus", tmp_path)
    assert "refused: no GPU is alive now, and the cluster may grow to 1: say with --workers" in said
    assert "squares: [0, 1, 4, 9, 16, 25]" in said
