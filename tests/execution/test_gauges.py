"""Figures of a run reach Prometheus through the exporter of a real node."""

import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from killing import environment

from gristmill.execution.gauges import Gauges, tags_of

CODE = """
import sys, time
import ray
from gristmill.core.run import OBSERVER
from gristmill.execution.session import Execution, session
ray.init(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, _temp_dir=sys.argv[1],
         _metrics_export_port=int(sys.argv[2]))
with session(Execution()):
    tell = OBSERVER.get()
    tell("s3://u:secret@b/runs/train1", {"kind": "step", "step": 7, "tokens_per_second": 1234.5, "mfu": "unknown"})
    tell("s3://u:secret@b/runs/train1", {"event": "checkpoint", "step": 7})
    print("told", flush=True)
    time.sleep(120)
assert OBSERVER.get() is None
"""


@pytest.mark.slow
def test_gauges_are_served_by_the_node(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, f"/tmp/gmm{port}", str(port)],
        env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "told\n"
        text = ""
        for _ in range(60):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            if "gristmill_tokens_per_second" in text:
                break
            time.sleep(1)
        found = re.search(r"ray_gristmill_tokens_per_second\{(.*)\} ([\d.]+)", text)
        assert found and float(found[2]) == 1234.5 and 'run="train1-' in found[1]
        assert 'uri="s3://***@b/runs/train1"' in found[1]
        assert "secret" not in text
        assert "ray_gristmill_checkpoint_time_seconds{" in text
        assert "ray_gristmill_mfu" not in text, "a figure that is not known is not a number"
    finally:
        process.terminate()
        process.wait(30)


def test_without_ray_nothing_happens():
    Gauges()("runs/x", {"step": 1})


def test_runs_of_one_name_in_two_folders_are_two_series():
    one, other = (tags_of(f"s3://bucket/{folder}/train1/") for folder in "ab")
    assert one["run"] != other["run"] and one["run"].startswith("train1-")
    assert one == tags_of("s3://bucket/a/train1")
