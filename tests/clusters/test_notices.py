"""Notices of the three clouds, from a server on loopback that answers as theirs do."""

import datetime
import email.utils
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from killing import environment

from gristmill.clusters import notices
from gristmill.clusters.notices import ASK, GRACE_SECONDS
from gristmill.core.errors import RunError
from gristmill.recipes.commands import main

TESTS = Path(__file__).parents[1]
SOON = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"


class Service(BaseHTTPRequestHandler):
    """Answers known paths to those who know its rules; nothing else is there."""

    def do_PUT(self):
        lasting = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._say(200 if lasting else 400, "the-token")

    def do_GET(self):
        path, heads = self.path, self.headers
        allowed = {
            "/lat": heads.get("X-aws-ec2-metadata-token") == "the-token",
            "/com": heads.get("Metadata-Flavor") == "Google",
            "/met": heads.get("Metadata") == "true",
        }
        if not allowed.get(path[:4]):
            self._say(401, "")
        else:
            said = self.server.answers.get(path)
            self._say(404 if said is None else 200, said or "")

    def _say(self, code, text):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.answers = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def preempt(*names):
    event = {"EventType": "Preempt", "NotBefore": email.utils.format_datetime(SOON, usegmt=True)}
    return json.dumps({"Events": [{"EventType": "Freeze"}, {**event, "Resources": names}]})


NOTICES = {
    "aws": {
        "/latest/meta-data/spot/instance-action": json.dumps(
            {"action": "terminate", "time": SOON.strftime("%Y-%m-%dT%H:%M:%SZ")}
        )
    },
    "gcp": {"/computeMetadata/v1/instance/preempted": "TRUE"},
    "azure": {EVENTS: preempt("one", "two"), NAME: "two"},
}
NONE = {
    "aws": {},
    "gcp": {"/computeMetadata/v1/instance/preempted": "FALSE"},
    "azure": {EVENTS: preempt("one", "three"), NAME: "two"},
}


@pytest.mark.parametrize("cloud", ASK)
def test_each_clouds_notice_is_understood(service, cloud):
    server, base = service
    server.answers = NONE[cloud]
    assert ASK[cloud](base) is None
    server.answers = NOTICES[cloud]
    seconds = ASK[cloud](base)
    assert seconds == GRACE_SECONDS if cloud == "gcp" else 43_200 < seconds <= 86_400


def test_questions_that_cannot_be_are_refused(capsys):
    assert main(["cluster", "notices", "--source", "aws", "--every", "0"]) == 2
    assert "every must be over 0" in capsys.readouterr().err
    assert main(["cluster", "notices", "--source", "kubernetes", "--grace", "0"]) == 2
    assert "grace must be 1 or more" in capsys.readouterr().err


def test_a_busy_ray_is_asked_again(monkeypatch):
    asked = []

    def drain(node, seconds):
        asked.append((node, seconds))
        if len(asked) < 3:
            raise RunError("Ray did not take the notice in 25 s")

    monkeypatch.setattr(notices, "drain", drain)
    monkeypatch.setattr(notices, "AGAIN_SECONDS", 0.01)
    notices.insist("n", 30)
    assert [node for node, _ in asked] == ["n"] * 3 and asked[0][1] > 28
    asked.clear()
    monkeypatch.setattr(notices, "AGAIN_SECONDS", 60)
    with pytest.raises(RunError, match="did not take"):
        notices.insist("n", 30)
    assert len(asked) == 1, "after the deadline nobody is there to tell"


DRAINING = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(json.dumps(sorted(ray._private.state.state.get_draining_nodes())))
print(json.dumps([n["NodeID"] for n in ray.nodes()
                  if n["Alive"] and "node:__internal_head__" not in n["Resources"]]))
"""


WORKING = """
import sys, time, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At
ray.init(address=sys.argv[1], log_to_driver=False)
work = ray.remote(lambda: time.sleep(120))
work.options(scheduling_strategy=At(sys.argv[2], soft=False)).remote()
time.sleep(3)
print("works", flush=True)
time.sleep(120)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", ["aws", "kubernetes", "kubernetes, idle"])
def test_ray_is_told_of_a_notice(service, source):
    server, base = service
    env, worker = environment(), None
    host = subprocess.Popen(
        [sys.executable, TESTS / "two_node_host.py"],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = next(line.strip() for line in host.stdout if line[0].isdigit())

        def look():
            words = [sys.executable, "-c", DRAINING, address]
            said = subprocess.check_output(words, env=env, text=True, timeout=60)
            return [json.loads(line) for line in said.splitlines()[-2:]]

        none, (node,) = look()
        assert none == []
        source, _, idle = source.partition(", ")
        if source == "kubernetes" and not idle:
            words = [sys.executable, "-c", WORKING, address, node]
            worker = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)
            assert "works" in worker.stdout.read(6)
        words = ["--source", source, "--service", base, "--every", "0.2", "--node", node]
        words += ["--grace", "20"]
        watcher = subprocess.Popen(
            [sys.executable, "-m", "gristmill", "cluster", "notices", *words],
            env={**env, "RAY_ADDRESS": address}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if idle:  # a scale-down: nothing to save, so nothing is waited for
            assert watcher.wait(14) == 0, watcher.stderr.read()
            return
        time.sleep(2)
        assert watcher.poll() is None
        server.answers = NOTICES["aws"]
        if source == "aws":
            _, said = watcher.communicate(timeout=60)
            assert watcher.returncode == 0, said
            assert "will be taken away" in said
        else:
            time.sleep(6)
            assert watcher.poll() is None, "a pod is left its time"
        draining, there = look()
        assert node in draining or node not in there, "an idle node goes at once"
        assert watcher.wait(60) == 0
    finally:
        if worker is not None:
            worker.kill()
        host.stdin.close()
        host.wait(60)
