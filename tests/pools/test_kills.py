"""kill -9 at any moment, then the same command: the same bytes, nothing lost, nothing twice."""

import json

import pytest
from killing import finish, kill_driver_when, markers
from made_up import folder_bytes, write_metadata, write_pool

from gristmill.core.job import run_job
from gristmill.filters.clip_score import ClipScore
from gristmill.pools.reshard import ReshardJob
from gristmill.pools.selection import FilterJob
from gristmill.pools.subset import Subset
from gristmill.pools.uid import make_uids, sort_uids

pytestmark = pytest.mark.ray


@pytest.fixture
def reshard(tmp_path):
    """A pool, its undisturbed reshard, and the words of the same command."""
    rows = write_pool(tmp_path / "p", shards=6, per_shard=60)
    subset = tmp_path / "s.npy"
    Subset(sort_uids(make_uids([r["uid"] for r in rows[::2]]))).save(str(subset))
    job = ReshardJob(
        pool=str(tmp_path / "p"), subset=str(subset), shard_size=2, out=str(tmp_path / "calm")
    )
    run_job(job)
    words = ["pool", "reshard", "--pool", tmp_path / "p", "--subset", subset, "--shard-size", 2]
    return words, folder_bytes(tmp_path / "calm" / "shards")


@pytest.mark.slow
def test_driver_killed_in_mid_reshard(reshard, tmp_path):
    words, calm = reshard
    out, log = tmp_path / "o", tmp_path / "log"
    written = out / ".work" / "written"
    kill_driver_when(lambda: markers(written) >= 5, *words, "--out", out, log=log)
    before = {p.name: p.stat().st_mtime_ns for p in written.iterdir() if p.suffix == ".json"}
    assert 5 <= len(before) < 90 and not (out / "DONE").exists()
    status, text = finish(*words, "--out", out, log=log)
    assert status == 0, text
    assert "samples were done before" in text
    assert folder_bytes(out / "shards") == calm
    assert json.loads((out / "DONE").read_text())["summary"]["samples"] == 180
    assert not (out / ".work").exists()


def test_worker_killed_in_mid_reshard(reshard, tmp_path):
    words, calm = reshard
    out, log, fault = tmp_path / "o", tmp_path / "log", tmp_path / "fault"
    fault.mkdir()
    strike = f"{fault}:before-commit:00000040"
    status, text = finish(*words, "--out", out, log=log, GRISTMILL_FAULT=strike)
    assert status == 0, text
    assert (fault / "struck").exists()
    assert folder_bytes(out / "shards") == calm


@pytest.mark.long
def test_driver_killed_in_mid_filter(tmp_path):
    write_metadata(tmp_path / "p", 60_000, files=30, row_group=2000)
    run_job(
        FilterJob(
            pool=str(tmp_path / "p"), filter=ClipScore(fraction=0.3), out=str(tmp_path / "calm")
        )
    )
    out, log = tmp_path / "o", tmp_path / "log"
    words = [
        "pool",
        "filter",
        "clip_score",
        "--fraction",
        0.3,
        "--pool",
        tmp_path / "p",
        "--out",
        out,
    ]
    kill_driver_when(lambda: markers(out / ".work" / "judged") >= 1, *words, log=log)
    status, text = finish(*words, log=log)
    assert status == 0, text
    for name in ("subset.npy", "stats.json"):
        assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


@pytest.mark.slow
def test_driver_killed_in_mid_ingest(tmp_path):
    from gristmill.pools.ingest import IngestJob, Tars

    write_pool(tmp_path / "p", shards=40, per_shard=8)
    raw = tmp_path / "p" / "shards"
    run_job(IngestJob(source=Tars(source=str(raw)), out=str(tmp_path / "calm")))
    out, log = tmp_path / "o", tmp_path / "log"
    words = ["pool", "ingest", "tars", "--source", raw, "--out", out]
    kill_driver_when(lambda: markers(out / ".work" / "taken") >= 3, *words, log=log)
    assert not (out / "pool.json").exists()
    status, text = finish(*words, log=log)
    assert status == 0, text
    for part in ("shards", "metadata"):
        assert folder_bytes(out / part) == folder_bytes(tmp_path / "calm" / part)


def test_a_changed_pool_is_not_resumed(tmp_path):
    write_metadata(tmp_path / "p", 60_000, files=30, row_group=2000)
    out, log = tmp_path / "o", tmp_path / "log"
    words = ["pool", "filter", "no_filter", "--pool", tmp_path / "p", "--out", out]
    kill_driver_when(lambda: markers(out / ".work" / "judged") >= 1, *words, log=log)
    (tmp_path / "p" / "metadata" / "0003.parquet").unlink()
    status, text = finish(*words, log=log)
    assert status == 1 and "the pool changed since this run began" in text


def test_a_folder_in_use_is_refused(tmp_path):
    write_pool(tmp_path / "p", shards=2)
    import fcntl

    (tmp_path / "o").mkdir()
    with open(tmp_path / "o" / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on elsewhere")
        lock.flush()
        words = ["pool", "filter", "no_filter", "--pool", tmp_path / "p", "--out", tmp_path / "o"]
        status, text = finish(*words, log=tmp_path / "log")
    assert status == 75 and "is in use by process 1 on elsewhere" in text


def test_a_full_disk_leaves_nothing_that_looks_whole(tmp_path):
    """A real file system of 1 MB, mounted in a namespace of the command's own."""
    import subprocess
    import sys

    from killing import environment

    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let users mount")
    write_metadata(tmp_path / "p", 100_000, files=2, row_group=50_000, nan=0, null=0)
    small = tmp_path / "small"
    small.mkdir()
    command = (
        f"{sys.executable} -m gristmill pool filter no_filter --pool {tmp_path}/p --out {small}/o"
    )
    script = f"mount -t tmpfs -o size=1m none {small} && {command}; status=$?; ls {small}/o; exit $status"
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 1, done.stderr
    assert "the disk is full; make room and run the same command again" in done.stderr
    assert "DONE" not in done.stdout and "subset.npy" not in done.stdout
