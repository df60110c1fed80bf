"""Kill -9 of a rank and of drivers, and resumes on 1, 2, 3 and 2 workers: the same run all along."""

import importlib.util
import json
from pathlib import Path

import killing
import pytest
from killing import finish, kill_driver_when, start, wait_for
from lm_training import MODEL, losses, orders, train_here, write_small_tokens
from nodes import Nodes

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.journal import read_events
from gristmill.core.run import Run
from gristmill.execution.worker_log import DIED, ENDED
from gristmill.training.lm.checkpoint import steps_done
from gristmill.training.lm.job import TrainLmJob
from gristmill.training.lm.placement import Placement
from gristmill.training.lm.preflight import check
from gristmill.training.lm.schedule import Optimization

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS, EVERY = 400, 40


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    (folder / "t").mkdir()
    write_small_tokens(folder / "t", train=60_000)
    io.write_json(str(folder / "model.json"), to_dict(MODEL))
    return folder


@pytest.fixture(scope="module")
def undisturbed(world):
    """The same job on one rank, without Ray and without a break."""
    job = TrainLmJob(
        preset=str(world / "model.json"), corpora=(str(world / "t"),), mixture="uniform",
        steps=STEPS, batch_size=12, out=str(world / "plain"), optimization=Optimization(lr=1e-3),
        validation_sequences=5, execution=Placement(checkpoint_every=EVERY),
    )  # fmt: skip
    return train_here(job.spec(Run(job.out), check(job), bf16=False))


def words(world, out, *more):
    return [
        "lm", "train", world / "model.json", "--corpora", world / "t", "--mixture", "uniform",
        "--steps", STEPS, "--batch-size", 12, "--lr", 1e-3, "--validation-sequences", 5,
        "--checkpoint-every", EVERY, "--out", out, *more,
    ]  # fmt: skip


def newest(out):
    return max(steps_done(str(out / "checkpoints")), default=0)


def metrics(out, count=STEPS):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == list(range(count)), "a step is missing, or there twice"
    return lines


def same(out, undisturbed):
    lines = metrics(out)
    assert orders(lines) == orders(undisturbed)
    found, expected = losses(lines), losses(undisturbed)
    worst = max(abs(found[step] - expected[step]) for step in expected)
    print(f"losses at most {worst:.2e} apart over {STEPS} steps")
    assert worst < 1e-3
    return lines


def test_kills_other_numbers_of_workers_and_engines_change_nothing(world, undisturbed, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    there = importlib.util.find_spec("deepspeed")
    zero2, zero3 = (["--engine", f"zero{n}"] if there else [] for n in (2, 3))
    kill_driver_when(lambda: newest(out) >= EVERY, *words(world, out, "--workers", 1), log=log)
    first = newest(out)
    assert 0 < first < STEPS
    # Two workers; one of them is killed, Ray starts both again; then the driver is killed.
    faults = tmp_path / "faults"
    faults.mkdir()
    kill_driver_when(
        lambda: (faults / "struck").exists() and newest(out) >= first + 2 * EVERY,
        *words(world, out, "--workers", 2, *zero2),
        log=log,
        GRISTMILL_FAULT=f"{faults}:step:{first + EVERY + 10}:1",
    )
    second = newest(out)
    three = words(world, out, "--workers", 3, *zero3)
    kill_driver_when(lambda: newest(out) > second, *three, log=log)
    assert newest(out) < STEPS, "it had ended before it was killed"
    status, said = finish(*words(world, out, "--workers", 2), log=log)
    assert status == 0, said[-3000:]
    lines = same(out, undisturbed)
    sizes = [line["world_size"] for line in lines if line["kind"] == "start"]
    assert sizes == [1, 2, 2, 3, 2]
    done = json.loads((out / "DONE").read_text())["summary"]
    assert done["order"] == orders(undisturbed)[STEPS - 1]
    (death,) = [e for e in read_events(str(out)) if e["event"] == "ranks died"]
    assert "1" in death["ranks"], death
    drivers = "".join(path.read_text() for path in (out / "logs").glob("driver-*"))
    assert f"rank 1 said: {DIED}" in drivers
    ended = [path.read_text().rstrip().splitlines()[-1] for path in (out / "logs").glob("rank-*")]
    assert len(ended) == 10 and ended.count(ENDED) >= 2 and set(ended) == {ENDED, DIED}, ended


@pytest.mark.long
def test_an_elastic_run_takes_what_there_is(world, undisturbed, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    more = ["--min-workers", 1, "--max-workers", 2]
    status, said = finish(*words(world, out, *more), log=log)
    assert status == 0, said[-3000:]
    same(out, undisturbed)


@pytest.mark.long  # seven minutes
def test_an_elastic_run_goes_on_as_machines_go_and_come(world, tmp_path, monkeypatch):
    """The second node vanishes, later another comes; the run takes one worker, then two again."""
    monkeypatch.setattr(killing, "LIMIT_SECONDS", 400)
    out, log, steps = tmp_path / "run", tmp_path / "log", 1500
    job = TrainLmJob(
        preset=str(world / "model.json"), corpora=(str(world / "t"),), mixture="uniform",
        steps=steps, batch_size=12, out=str(tmp_path / "plain"), max_epochs=9,
        optimization=Optimization(lr=1e-3), validation_sequences=5,
    )  # fmt: skip
    expected = train_here(job.spec(Run(job.out), check(job), bf16=False))

    def sizes():
        lines = Run(str(out)).metrics()
        return [line["world_size"] for line in lines if line["kind"] == "start"]

    nodes = Nodes()
    try:
        process = start(
            *words(world, out, "--steps", steps, "--max-epochs", 9, "--micro-batch-size", 1,
                   "--min-workers", 1, "--max-workers", 2, "--resize-seconds", 5,
                   "--max-failures", 0, "--address", nodes.address),
            log=log,
        )  # fmt: skip
        wait_for(lambda: newest(out) >= EVERY, process, log)
        nodes.tell("remove")
        wait_for(lambda: sizes()[-1] == 1, process, log)
        nodes.tell("add")
        wait_for(lambda: sizes()[-1] == 2, process, log)
        assert process.wait(600) == 0, log.read_text()[-3000:]
    finally:
        nodes.close()
    lines = metrics(out, steps)
    assert orders(lines) == orders(expected)
    assert losses(lines)[steps - 1] == pytest.approx(losses(expected)[steps - 1], abs=0.05)
    found = sizes()
    assert found[0] == 2 and 1 in found and found[-1] == 2, found
    print(f"group sizes {found}")


@pytest.mark.long
def test_workers_that_die_again_and_again_end_it(world, tmp_path):
    """Before the first checkpoint there is no progress, so each death counts."""
    out, log = tmp_path / "run", tmp_path / "log"
    process = start(*words(world, out, "--workers", 1, "--max-failures", 0), log=log,
                    GRISTMILL_FAULT=f"{tmp_path}:step:5:0")  # fmt: skip
    assert process.wait(150) == 1
    assert "died 1 times without a checkpoint in between" in log.read_text()
    assert Path(tmp_path / "struck").exists()
