"""The resumable map: every slice once, errors in the worker's own words, deaths retried."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killing import environment
from slice_workers import Square

from gristmill.core.errors import BadInputError, CorruptDataError, TryAgainError
from gristmill.execution.session import Execution, source_root
from gristmill.execution.slices import Slice, SliceFailedError, map_slices

pytestmark = pytest.mark.ray


def slices(count, **what):
    return [
        Slice(name=f"{i:03d}", weight=2, payload={"number": i, "what": what.get(f"n{i}", "")})
        for i in range(count)
    ]


@pytest.fixture
def run(tmp_path):
    log = tmp_path / "log"
    log.mkdir()

    def run(pieces, **options):
        execution = options.pop("execution", Execution())
        ledger = str(tmp_path / "ledger")
        return map_slices(
            "square", pieces, Square(str(log)), ledger=ledger, execution=execution, **options
        )

    run.log, run.ledger = log, tmp_path / "ledger"
    return run


def test_every_slice_once_in_the_order_asked_for(run):
    done = run(slices(25), execution=Execution(workers=3))
    assert [d["square"] for d in done] == [i * i for i in range(25)]
    assert {d["ready"] for d in done} == {1}, "setup must run once a process"
    assert all((run.log / str(i)).read_text() == "." for i in range(25))


def test_a_rerun_does_only_what_has_no_marker(run):
    run(slices(6))
    for name in ("001", "004"):
        (run.ledger / f"{name}.json").unlink()
    done = run(slices(6))
    assert [d["square"] for d in done] == [0, 1, 4, 9, 16, 25]
    assert [(run.log / str(i)).read_text() for i in range(6)] == [".", "..", ".", ".", "..", "."]


def test_nothing_to_do(run):
    assert run([]) == []


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("corrupt", CorruptDataError, "shard 7, byte 3"),
        ("bad", BadInputError, "32 hex digits"),
        ("full", SliceFailedError, "the disk is full; make room"),
        ("lost", TryAgainError, "slice 003: ConnectionResetError.*the same command goes on"),
        ("busy", TryAgainError, "^cannot reach s3://b/x now"),
        ("bug", SliceFailedError, "slice 003: KeyError.*nobody thought of this"),
    ],
)
def test_a_worker_s_error_reaches_the_person(run, what, kind, words):
    with pytest.raises(kind, match=words):
        run(slices(6, n3=what))


def test_corrupt_slices_are_counted_when_skipped(run):
    done = run(slices(6, n3="corrupt"), skip_corrupt=True)
    assert done[3] == {"corrupt": "shard 7, byte 3: damaged", "lost": 2}
    assert [d.get("square") for d in done] == [0, 1, 4, None, 16, 25]


def test_a_slice_that_kills_its_process_ends_the_map_by_name(run):
    with pytest.raises(SliceFailedError, match="slice 003 failed in Ray, after up to 5 retries"):
        run(slices(6, n3="die"))
    assert (run.log / "3").read_text() == "." * 6


def on_a_made_up_gpu(tmp_path, pieces):
    """A map in a process of its own, on a cluster that is told it has a GPU: scheduling is real, the
    device is not. Its exit status is the command's; its markers come after RESULT."""
    (tmp_path / "log").mkdir()
    script = f"""
import json, ray
from gristmill.core.cli import guarded
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, map_slices
from slice_workers import Square
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
pieces = [Slice(name=name, payload=payload) for name, payload in json.loads({json.dumps(pieces)!r})]
worker = Square({str(tmp_path / "log")!r}, num_gpus=1.0)
def action():
    done = map_slices("s", pieces, worker, ledger={str(tmp_path / "ledger")!r}, execution=Execution())
    print("RESULT" + json.dumps(done))
    return 0
raise SystemExit(guarded(action))
"""
    path = os.pathsep.join([source_root(), str(Path(__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_gpu_workers_are_actors_and_keep_their_model(tmp_path):
    done = on_a_made_up_gpu(tmp_path, [(f"{i:03d}", {"number": i}) for i in range(5)])
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.split("RESULT")[1])
    assert result == [{"square": i * i, "ready": 1} for i in range(5)]


@pytest.mark.slow
def test_a_slice_that_kills_its_gpu_worker_is_not_tried_for_ever(tmp_path):
    done = on_a_made_up_gpu(tmp_path, [("000", {"number": 0, "what": "die"})])
    assert done.returncode == 1, done.stderr[-2000:]
    assert "error: a slice failed in Ray, after up to 5 retries" in done.stderr
    assert (tmp_path / "log" / "0").read_text() == "." * 6
