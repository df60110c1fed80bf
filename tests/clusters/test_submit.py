"""Jobs sent to a real head with authentication, that of cluster/laptop.sh, with data on S3."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from killing import environment
from made_proxies import write_corpus, write_model
from made_up import write_metadata
from ray.job_submission import JobStatus

from gristmill.clusters import submission
from gristmill.clusters.submission import runtime_environment
from gristmill.core import io
from gristmill.core.errors import BadInputError, TryAgainError
from gristmill.core.job import run_job
from gristmill.core.journal import read_events
from gristmill.core.run import Run
from gristmill.filters.clip_score import ClipScore
from gristmill.pools.selection import FilterJob
from gristmill.recipes.commands import main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
sys.path.append(str(ROOT / "tests" / "training"))  # for its maker of shards
PORT, DASHBOARD = 27_379, 29_265


def gristmill(*words, env, timeout=240):
    return subprocess.run(
        [sys.executable, "-m", "gristmill", *map(str, words)],
        env=env, capture_output=True, text=True, timeout=timeout, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def laptop(s3_server, tmp_path_factory):
    """The head that laptop.sh starts, with a home of its own, so with a token of its own.

    Its nodes know the S3 server on loopback as cloud machines know theirs: by their environment.
    """
    home = tmp_path_factory.mktemp("home")
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    env = environment(HOME=str(home), PATH=path)
    words = [
        "bash", ROOT / "cluster" / "laptop.sh", "--num-cpus=2", f"--port={PORT}",
        f"--dashboard-port={DASHBOARD}", f"--dashboard-agent-listen-port={DASHBOARD + 1}",
        "--object-store-memory=100000000", f"--temp-dir=/tmp/gml{os.getpid()}",
    ]  # fmt: skip
    log = home / "head.log"
    process = subprocess.Popen(
        list(map(str, words)), env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )
    address = f"http://127.0.0.1:{DASHBOARD}"
    client = {**env, "RAY_AUTH_MODE": "token"}
    try:
        for _ in range(90):
            asked = subprocess.run(
                [BIN / "ray", "job", "list", "--address", address], env=client, capture_output=True
            )
            if asked.returncode == 0:
                break
            assert process.poll() is None, log.read_text()
            time.sleep(1)
        else:
            pytest.fail(asked.stderr.decode()[-1000:])
        yield address, client, home
    finally:
        process.terminate()
        process.wait(60)


def upload(folder, uri):
    """Every file below a folder."""
    for path in filter(Path.is_file, folder.rglob("*")):
        io.write_bytes(f"{uri}/{path.relative_to(folder)}", path.read_bytes())
    return uri


def submitted(laptop, *words):
    """Send it, follow it to its end: exit code and output."""
    address, env, _ = laptop
    done = gristmill("cluster", "submit", *words, "--address", address, env=env)
    assert "submitted raysubmit_" in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout


def done_on_s3(laptop, out, *words):
    """Send it, and find its run whole on the store; what it left there."""
    status, said = submitted(laptop, *words, "--out", out)
    assert status == 0, said[-3000:]
    assert f"done: {out}" in said
    run = Run(out)
    assert [e["event"] for e in read_events(out)][-1] == "done"
    assert io.list_files(f"{out}/logs", ".log")
    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_filter_is_submitted_followed_and_done_on_s3(laptop, bucket, tmp_path):
    write_metadata(tmp_path / "p", 5000)
    pool = upload(tmp_path / "p", f"{bucket}/p")
    words = ["pool", "filter", "clip_score", "--fraction"]
    run = done_on_s3(laptop, f"{bucket}/runs/f", *words, 0.3, "--pool", pool)
    assert run.done()["summary"]["kept"] > 1000
    here = tmp_path / "here"
    run_job(FilterJob(pool=str(tmp_path / "p"), filter=ClipScore(fraction=0.3), out=str(here)))
    assert io.read_bytes(run.path("subset.npy")) == (here / "subset.npy").read_bytes()

    status, said = submitted(laptop, *words, 7, "--pool", pool, "--out", f"{bucket}/runs/x")
    assert status == 2 and "fraction" in said, "the job's own exit code comes back"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_search_is_submitted_and_done_on_s3(laptop, bucket, tmp_path):
    (tmp_path / "c").mkdir()
    write_corpus(tmp_path / "c")
    corpus = upload(tmp_path / "c", f"{bucket}/c")
    words = shlex.split(
        "mix search --targets prose --first 8 --batch 2 --most 8 --check-random 1 --check-seeds 1 "
        "--steps 20 --batch-size 4 --seq-len 16 --lr 0.01 --max-epochs 99 --workers 2"
    )
    model = write_model(tmp_path)
    run = done_on_s3(laptop, f"{bucket}/runs/s", *words, "--corpora", corpus, "--preset", model)
    assert run.done()["summary"]["proxies"] == 8
    assert "prose" in io.read_bytes(run.path("mixture.json")).decode()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_is_submitted_and_done_on_s3(laptop, bucket, tmp_path):
    from training_shards import write_shards

    data = upload(write_shards(tmp_path / "d"), f"{bucket}/d")
    words = shlex.split(
        "clip train demo --allow-override --loader-workers 0 --num-checkpoints 2 --workers 1 "
        "--train-num-samples 64 --batch-size 16 --warmup 2"
    )
    run = done_on_s3(laptop, f"{bucket}/runs/t", *words, "--data", data)
    assert run.done()["summary"]["samples_seen"] == 64
    assert io.size_bytes(run.path("checkpoints", "epoch_2.pt")) > 1000
    assert [line["step"] for line in run.metrics() if line["kind"] == "step"] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wrong_or_missing_token_is_refused(laptop, tmp_path):
    address, env, home = laptop
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)
    words = ["cluster", "submit", "lm", "describe", "demo", "--address", address]
    refused = gristmill(*words, env={**env, "RAY_AUTH_TOKEN_PATH": str(wrong)})
    assert refused.returncode == 2
    assert "refuses this token" in refused.stderr and "RAY_AUTH_TOKEN_PATH" in refused.stderr
    empty = tmp_path / "nobody"
    empty.mkdir()
    nobody = {**env, "HOME": str(empty), "RAY_AUTH_MODE": "disabled"}
    missing = gristmill(*words, env=nobody)
    assert missing.returncode == 2
    assert "asks for a token and got none" in missing.stderr
    nothing = gristmill(*words, env={**env, "HOME": str(empty)})
    assert nothing.returncode == 2 and "and none was found; the token is looked" in nothing.stderr


def test_words_that_are_no_job_are_refused_before_anything_is_sent(capsys):
    assert main(["cluster", "submit", "pool", "filtre", "--address", "http://127.0.0.1:1"]) == 2
    assert "no job 'pool' 'filtre'" in capsys.readouterr().err
    assert main(["cluster", "submit", "cluster", "plan", "--address", "http://127.0.0.1:1"]) == 2
    assert "no job 'cluster' 'plan'" in capsys.readouterr().err


def test_nobody_at_the_address_is_told(capsys):
    assert main(["cluster", "submit", "lm", "describe", "--address", "http://127.0.0.1:1"]) == 75
    assert "no Ray head answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert main(["cluster", "submit", "lm", "describe", "--address", "ray://h:10001"]) == 2
    assert "must be the dashboard's" in capsys.readouterr().err


def test_the_runtime_environment_is_that_of_the_jobs(tmp_path):
    made = runtime_environment(str(ROOT))
    assert made["env_vars"]["PYTHONPATH"] == "platform" and made["working_dir"] == str(ROOT)
    with pytest.raises(BadInputError, match="no checkout"):
        runtime_environment(str(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_guide_to_a_first_cluster_works_as_written(laptop, tmp_path):
    address, env, _ = laptop
    guide = (ROOT / "docs" / "guides" / "first-cluster.md").read_text()
    (block,) = re.findall(r"<!-- first-cluster -->\n```bash\n(.*?)```", guide, re.S)
    block = block.replace("http://127.0.0.1:8265", address).replace("$PWD/runs", f"{tmp_path}/runs")
    block = block.replace("runs/first\n", f"{tmp_path}/runs/first\n")
    block = block.replace("show runs/", f"show {tmp_path}/runs/")
    block = re.sub(r"\bgristmill (?=cluster|run)", f"{sys.executable} -m gristmill ", block)
    done = subprocess.run(
        ["bash", "-ec", block], env=env, capture_output=True, text=True, timeout=500, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "corpus" in done.stdout and "IngestCorpusJob, done" in done.stdout
    assert (tmp_path / "runs" / "first" / "corpus" / "DONE").exists()
    logs = list((tmp_path / "runs" / "first" / "corpus" / "logs").glob("*.log"))
    assert logs and logs[0].read_text()


class Flaky:
    """A head whose connection ends twice; each begins with the whole of the log."""

    def __init__(self):
        self.calls, self.asked = 0, 0

    async def tail_job_logs(self, name):
        self.calls += 1
        yield "one\n"
        if self.calls == 1:
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield "two\n"
        if self.calls == 2:
            return
        yield "three\n"

    def get_job_info(self, name):
        self.asked += 1
        over = self.calls == 3
        return SimpleNamespace(
            status=JobStatus.FAILED if over else JobStatus.RUNNING,
            message="exit 75", driver_exit_code=75 if over else None,
        )  # fmt: skip


def test_a_dropped_connection_is_made_anew_and_nothing_is_printed_twice(monkeypatch, capsys):
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    client = Flaky()
    assert submission.follow(client, "job") == 75
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    assert (client.calls, client.asked) == (3, 2), "asked when a connection ends, not all the time"


def test_a_head_that_stays_away_is_given_up(monkeypatch):
    class Gone(Flaky):
        async def tail_job_logs(self, name):
            raise OSError("connection refused")
            yield

    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(submission, "LOST_SECONDS", 0.05)
    with pytest.raises(TryAgainError, match="lost the head while following job"):
        submission.follow(Gone(), "job")


def test_silence_is_no_end(monkeypatch, capsys):
    class Silent(Flaky):
        async def tail_job_logs(self, name):
            self.calls = 1
            yield "one\n"
            await asyncio.sleep(0.2)
            self.calls = 3
            yield "two\n"
            await asyncio.sleep(60)

    monkeypatch.setattr(submission, "SILENCE_SECONDS", 0.05)
    assert submission.follow(Silent(), "job") == 75
    assert capsys.readouterr().out == "one\ntwo\n"
