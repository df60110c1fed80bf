"""The whole job on Ray: one and two ranks, kills, other widths, object stores."""

import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from training_shards import write_shards, write_tar

from gristmill.core import io as gio
from gristmill.core.errors import DISK_FULL, BadInputError, RunError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.execution.session import Execution, source_root
from gristmill.models.clip import ClipSpec, checkpoint_uri, load_clip
from gristmill.recipes.train_clip import demo
from gristmill.training import launch
from gristmill.training.checkpoint import load

pytestmark = pytest.mark.ray
SIZES = {"train_num_samples": 192, "batch_size": 16, "warmup": 4}
EPOCHS = 3


def job_for(data, out, *, workers=1, **fields):
    base = demo()
    return dataclasses.replace(
        base,
        allow_override=True,
        scale=dataclasses.replace(base.scale, **SIZES),
        data=str(data),
        out=str(out),
        **{"num_checkpoints": EPOCHS, "loader_workers": 0, **fields},
        execution=Execution(workers=workers),
    )


def losses(run):
    lines = [line for line in run.metrics() if line["kind"] == "step"]
    assert [line["step"] for line in lines] == list(range(len(lines))), "a step is there twice"
    return [line["loss"] for line in lines]


def weights(run, epoch=EPOCHS):
    return load(run.path("checkpoints"), epoch)["state_dict"]


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, shards, tmp_path_factory):
    """Two ranks, to the end."""
    return run_job(job_for(shards, tmp_path_factory.mktemp("undisturbed") / "run", workers=2))


def test_a_run_on_two_ranks_leaves_what_others_read(undisturbed):
    run = undisturbed
    assert len(losses(run)) == 12
    done = run.done()
    summary = done["summary"]
    assert summary["comparable"] is False
    assert summary["num_workers"] == 2
    assert summary["samples_seen"] == 192
    assert summary["checkpoint"] == f"checkpoints/epoch_{EPOCHS}.pt"
    assert summary["final_loss"] == losses(run)[-1]
    assert done["outputs"][summary["checkpoint"]]["sha256"]
    [source] = done["inputs"].values()
    assert source["shards"] == 6
    first = run.metrics()[0]
    assert first["kind"] == "run"
    assert first["comparable"] is False
    assert first["precision"] == "fp32"
    page = gio.read_bytes(run.path("report.html")).decode()
    assert "Non-comparable" in page
    assert page.count("<svg") >= 4
    assert sorted(os.listdir(gio.local_path(run.path("checkpoints")))) == [
        f"epoch_{i}.pt" for i in (1, 2, 3)
    ]


def test_the_checkpoint_loads_as_a_model(undisturbed):
    assert checkpoint_uri(undisturbed.uri).endswith(f"epoch_{EPOCHS}.pt")
    arch = undisturbed.config()["config"]["scale"]["model"]
    clip = load_clip(ClipSpec(arch=arch, weights=undisturbed.uri), device="cpu")
    assert clip.weights_sha256
    assert clip.tokenizer(["a cat"]).shape[0] == 1


@pytest.mark.long
def test_one_shard_is_enough_for_two_ranks_with_two_loaders_each(ray_cluster, tmp_path):
    one = write_shards(tmp_path / "one", count=1)
    run = run_job(job_for(one, tmp_path / "out", workers=2, loader_workers=2, num_checkpoints=1))
    assert all(0 < loss < 10 for loss in losses(run))


def test_more_ranks_than_the_cluster_holds_are_refused(ray_cluster, shards, tmp_path):
    with pytest.raises(BadInputError, match="4 workers on a cluster with 2 CPUs"):
        run_job(job_for(shards, tmp_path / "out", workers=4))


@pytest.mark.slow
def test_a_resume_on_another_number_of_ranks(undisturbed, shards, tmp_path):
    shutil.copytree(gio.local_path(undisturbed.uri), tmp_path / "run")
    for name in ("DONE", f"checkpoints/epoch_{EPOCHS}.pt"):
        (tmp_path / "run" / name).unlink()
    before = losses(undisturbed)
    again = run_job(job_for(shards, tmp_path / "run", workers=1))
    assert losses(again)[:8] == before[:8]
    assert len(losses(again)) == 12
    assert losses(again)[8:] != before[8:]
    assert again.done()["summary"]["num_workers"] == 1


def test_a_finished_training_whose_report_was_lost_only_reports(undisturbed, shards):
    job = job_for(shards, undisturbed.uri, workers=2)
    before = losses(undisturbed)
    gio.remove(undisturbed.path("DONE"))
    starts = [line for line in undisturbed.metrics() if line["kind"] == "run"]
    assert losses(run_job(job)) == before
    assert [line for line in undisturbed.metrics() if line["kind"] == "run"] == starts
    assert undisturbed.done() is not None


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_about_the_data_reaches_the_driver_as_it_was(ray_cluster, tmp_path, workers):
    junk = {f"{i}.{end}": b"junk" for i in range(100) for end in ("jpg", "txt")}
    write_tar(tmp_path / "junk" / "0.tar", junk)
    with pytest.raises(BadInputError, match=r"no sample in .*junk has both.*bad_image"):
        run_job(job_for(tmp_path / "junk", tmp_path / "out", workers=workers))
    assert Run(str(tmp_path / "out")).done() is None


class TrainerThat:
    """Stands in for Ray Train: posts what a rank would."""

    def __init__(self, act):
        self.fit = act


def wait_until_dead(mailbox):
    """`ray.kill` only asks for it; a call that overtakes it is still answered."""
    import ray

    end = time.monotonic() + 20
    with pytest.raises(ray.exceptions.RayActorError):
        while time.monotonic() < end:
            ray.get(mailbox.settled.remote(), timeout=20)
            time.sleep(0.05)


def test_a_dead_mailbox_says_that_the_command_resumes(ray_cluster):
    import ray

    mailbox = launch._make_mailbox()
    ray.get(mailbox.settled.remote())
    ray.kill(mailbox)
    wait_until_dead(mailbox)
    with pytest.raises(RunError, match="records died.*same command resumes"):
        launch._fit(TrainerThat(lambda: None), mailbox, lambda record: None)


def test_a_checkpoint_that_the_driver_does_not_see_ends_it(ray_cluster, tmp_path):
    folder = tmp_path / "checkpoints"
    spec = SimpleNamespace(checkpoints=str(folder))
    mailbox = launch._make_mailbox()
    trainer = TrainerThat(lambda: launch._send(mailbox, {"kind": "saved", "epoch": 0}))
    with pytest.raises(
        RunError, match=r"a worker saved epoch_1\.pt.*folder that all of them share"
    ):
        launch._fit(trainer, mailbox, launch._Delivery(spec, lambda record: None))
    wait_until_dead(mailbox)  # whoever trains on is told
    folder.mkdir()
    (folder / "epoch_2.pt").touch()  # a newer one will do: the first may be removed by then
    mailbox = launch._make_mailbox()
    trainer = TrainerThat(lambda: launch._send(mailbox, {"kind": "saved", "epoch": 0}))
    assert launch._fit(trainer, mailbox, launch._Delivery(spec, lambda record: None)) is None


def test_a_local_out_on_several_machines_is_warned_of(ray_cluster, monkeypatch, caplog):
    monkeypatch.setattr(launch.ray, "nodes", lambda: [{"Alive": True}, {"Alive": True}])
    launch._warn_of_private_disks("s3://bucket/run/checkpoints")
    assert not caplog.records
    launch._warn_of_private_disks("/home/me/run/checkpoints")
    assert "local path on a cluster of 2 machines" in caplog.text


@pytest.mark.long
def test_data_and_run_on_an_object_store(undisturbed, bucket, shards):
    for name in os.listdir(shards):
        gio.write_bytes(f"{bucket}/pool/{name}", (shards / name).read_bytes())
    run = run_job(job_for(f"{bucket}/pool", f"{bucket}/run", workers=2))
    assert losses(run) == losses(undisturbed)
    import torch

    state = torch.load(io.BytesIO(gio.read_bytes(checkpoint_uri(run.uri))), weights_only=True)
    same = weights(undisturbed)
    assert all(torch.equal(value, same[name]) for name, value in state["state_dict"].items())


# -- kills, in clusters of their own ---------------------------------------------------------------


def command(data, out, *words):
    flags = ["--data", str(data), "--out", str(out), "--allow-override", "--loader-workers", "0"]
    flags += ["--num-checkpoints", str(EPOCHS), "--workers", "2", *words]
    for name, value in SIZES.items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    return [sys.executable, "-m", "gristmill", "clip", "train", "demo", *flags]


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_ADDRESS", "AWS_"))}
    return {**env, "PYTHONPATH": source_root(), "OMP_NUM_THREADS": "1", **extra}


@pytest.fixture
def same_as_undisturbed(undisturbed):
    import torch

    def check(uri):
        run = Run(str(uri))
        assert run.done() is not None
        assert losses(run) == losses(undisturbed)
        a, b = weights(run), weights(undisturbed)
        assert all(torch.equal(a[name], b[name]) for name in a)

    return check


@pytest.mark.slow
def test_a_killed_rank_changes_nothing(same_as_undisturbed, shards, tmp_path):
    faults = tmp_path / "faults"
    faults.mkdir()
    env = environment(GRISTMILL_FAULT=f"{faults}:step:6:1")
    done = subprocess.run(
        command(shards, tmp_path / "run"), env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (faults / "struck").exists()
    same_as_undisturbed(tmp_path / "run")


@pytest.mark.long
def test_a_killed_driver_changes_nothing(same_as_undisturbed, shards, tmp_path):
    log = open(tmp_path / "log", "wb")  # noqa: SIM115 - outlives this block
    driver = subprocess.Popen(
        command(shards, tmp_path / "run"), env=environment(), stdout=log, stderr=log
    )
    marker = tmp_path / "run" / "checkpoints" / "epoch_1.pt"
    deadline = time.monotonic() + 180
    while not marker.exists() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    log.close()
    assert marker.exists(), (tmp_path / "log").read_text()[-2000:]
    assert Run(str(tmp_path / "run")).done() is None
    again = subprocess.run(
        command(shards, tmp_path / "run"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert again.returncode == 0, again.stderr[-2000:]
    same_as_undisturbed(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "DONE").read_text())["summary"]["samples_seen"] == 192


@pytest.mark.long
@pytest.mark.parametrize("megabytes", [20])
def test_a_full_disk_ends_it_at_once_and_the_same_command_resumes(shards, tmp_path, megabytes):
    """A real file system too small for the first checkpoint, in a namespace of the command's own."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let users mount")
    small = tmp_path / "small"
    small.mkdir()
    words = shlex.join(command(shards, small / "run"))
    more = f"mount -o remount,size=400m {small} && {words} && cat {small}/run/DONE"
    script = (
        f"mount -t tmpfs -o size={megabytes}m none {small} && {words}; test $? = 1 && "
        f"ls {small}/run/checkpoints; {more}"
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count(DISK_FULL) == 1
    assert "Traceback" not in done.stderr
    assert '"samples_seen": 192' in done.stdout
