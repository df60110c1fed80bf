import dataclasses
import json
import os
import time
from dataclasses import dataclass

import pytest

from gristmill.core import io
from gristmill.core.cli import Invocation, invoke
from gristmill.core.config import config_hash, from_dict, to_dict
from gristmill.core.errors import BadInputError, RunError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job, run_job
from gristmill.core.plan import Plan, human_bytes, human_seconds
from gristmill.core.run import Run
from gristmill.execution.session import Execution


@dataclass(frozen=True, kw_only=True)
class CountJob(Job):
    """Writes numbers, and stops in the middle when told."""

    upto: int
    stop_file: str = ""
    execution: Execution = Execution()

    def plan(self):
        return Plan(title="count")

    def execute(self, run):
        for i in range(self.upto):
            if not io.exists(run.scratch(str(i))):
                if i == 3 and self.stop_file and os.path.exists(self.stop_file):
                    raise RuntimeError("stopped")
                io.write_bytes(run.scratch(str(i)), b"x")
                run.log(step=i)
        io.write_bytes(run.path("result"), str(self.upto).encode())
        run.add_output("result")
        run.set_summary(count=self.upto)


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    return (
        str(tmp_path / "runs")
        if request.param == "local"
        else request.getfixturevalue("bucket") + "/runs"
    )


def test_a_run_is_stopped_resumed_and_then_returns_at_once(folder, tmp_path):
    stop = tmp_path / "stop"
    stop.write_text("")
    job = CountJob(upto=6, out=folder, stop_file=str(stop))
    with pytest.raises(RuntimeError):
        run_job(job)
    assert Run(folder).done() is None
    stop.unlink()
    run = run_job(job)
    assert [m["step"] for m in run.metrics()] == list(range(6))
    done = run.done()
    assert done["summary"] == {"count": 6} and done["outputs"]["result"]["bytes"] == 1
    assert done["outputs"]["result"]["sha256"] == io.sha256(run.path("result"))
    assert not io.list_files(run.scratch())
    before = io.read_bytes(run.path("DONE"))
    run_job(job)
    assert io.read_bytes(run.path("DONE")) == before


def test_another_job_in_the_same_folder_is_refused_or_replaces_it(folder):
    run_job(CountJob(upto=2, out=folder))
    with pytest.raises(RunError, match="upto: 2 -> 4"):
        run_job(CountJob(upto=4, out=folder))
    assert run_job(CountJob(upto=4, out=folder), overwrite=True).done()["summary"] == {"count": 4}


@dataclass(frozen=True, kw_only=True)
class PickyJob(Job):
    """Refuses a word, at once or after it wrote something."""

    word: str
    late: bool = False

    def plan(self):
        return Plan(title="picky")

    def execute(self, run):
        pin_input(run, "word", {"sha256": "0" * 64})
        if self.late:
            io.write_bytes(run.path("part"), b"x")
        if self.word == "proze":
            raise BadInputError("no such word")


def test_a_refused_request_does_not_claim_the_folder(folder):
    with pytest.raises(BadInputError):
        run_job(PickyJob(word="proze", out=folder))
    assert run_job(PickyJob(word="prose", out=folder)).done()


def test_one_refused_after_it_made_something_keeps_it(folder):
    with pytest.raises(BadInputError):
        run_job(PickyJob(word="proze", late=True, out=folder))
    assert io.exists(folder + "/part")
    with pytest.raises(RunError, match="word: 'proze' -> 'prose'"):
        run_job(PickyJob(word="prose", late=True, out=folder))


def test_where_and_how_wide_it_runs_does_not_make_another_job(tmp_path):
    a = CountJob(upto=2, out=str(tmp_path / "a"))
    b = CountJob(upto=2, out=str(tmp_path / "b"), execution=Execution(workers=2))
    assert config_hash(a) == config_hash(b) != config_hash(dataclasses.replace(a, upto=3))


def test_a_folder_of_runs_is_not_an_empty_folder(folder):
    run_job(CountJob(upto=1, out=folder + "/one"))
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is in use"):
            run_job(CountJob(upto=1, out=folder), overwrite=overwrite)
    assert Run(folder + "/one").done()


@dataclass(frozen=True, kw_only=True)
class CheckJob(CountJob):
    """Is done anew each time."""

    always_anew = True


def test_a_check_is_done_anew_but_never_replaces_another_run(folder):
    first = run_job(CheckJob(upto=1, out=folder + "/check")).done()
    time.sleep(1.1)
    assert run_job(CheckJob(upto=1, out=folder + "/check")).done() != first
    run_job(CountJob(upto=1, out=folder + "/other"))
    with pytest.raises(RunError, match="another job's run"):
        run_job(CheckJob(upto=1, out=folder + "/other"))
    assert Run(folder + "/other").done()


def test_overwrite_never_removes_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(RunError):
        run_job(CountJob(upto=1, out=str(tmp_path / "home")), overwrite=True)
    assert (tmp_path / "home" / "letter").exists()


def test_two_at_once_are_refused(folder):
    job = CountJob(upto=1, out=folder)
    run = Run(folder)
    if io.is_local(folder):
        with run.open(job), pytest.raises(RunError, match=f"process {os.getpid()}"):
            run_job(job)
    else:
        io.write_json(run.path(".lock"), {"holder": "process 5 on elsewhere", "until": 9e12})
        with pytest.raises(RunError, match="process 5 on elsewhere"):
            run_job(job)
        io.write_json(run.path(".lock"), {"holder": "process 5 on elsewhere", "until": 5})
        run_job(job)  # a lease that ran out is free


def test_a_metrics_line_cut_by_a_kill_is_dropped(tmp_path):
    run = Run(str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert run.metrics() == [{"step": 1}]


def test_environment_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setattr("sys.argv", ["gristmill", "s3://key:hush-hush@host/x?token=hush-hush"])
    run = run_job(CountJob(upto=1, out=str(tmp_path / "r")))
    assert b"hush-hush" not in io.read_bytes(run.path("env.json"))


def test_config_comes_back_and_foreign_classes_are_refused():
    job = CountJob(upto=2, out="x")
    data = json.loads(json.dumps(to_dict(job)))
    assert from_dict(data, allow=[CountJob.__module__]) == job
    with pytest.raises(BadInputError, match="outside gristmill"):
        from_dict(data)
    with pytest.raises(BadInputError, match="not a config class"):
        from_dict({"type": "gristmill.core.io:remove", "uri": "/"})
    with pytest.raises(BadInputError, match="does not fit this version"):
        from_dict({"type": "gristmill.execution.session:Execution", "colour": 1})


def test_a_write_that_fails_leaves_nothing(folder):
    target = io.join(folder, "file")
    io.write_bytes(target, b"before")
    with pytest.raises(RuntimeError), io.open_write(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert io.read_bytes(target) == b"before"
    assert io.list_files(folder) == [target]


@pytest.mark.parametrize("part", ["../x", "/x", "a/../../x"])
def test_join_keeps_inside(part):
    with pytest.raises(BadInputError):
        io.join("/base", part)


def test_unknown_storage_says_what_to_install():
    with pytest.raises(BadInputError, match=r"gristmill\[s3\]"):
        io.filesystem("nowhere://x")


def test_figures_for_people():
    assert human_bytes(1536) == "1.5 KiB" and human_bytes(5) == "5 B"
    assert human_seconds(5) == "5.0 s" and human_seconds(3725) == "1 h 2 min"


@dataclass(frozen=True, kw_only=True)
class DoubtfulJob(Job):
    """Ends well, but not without doubts."""

    def plan(self):
        return Plan(title="doubt")

    def execute(self, run):
        run.set_summary(gain=0.5, warnings=["the gain may be none"])


def test_warnings_of_a_run_are_said_at_the_terminal_each_time(tmp_path, capsys):
    for _ in range(2):
        assert invoke(Invocation(job=DoubtfulJob(out=str(tmp_path / "o")))) == 0
        said = capsys.readouterr()
        assert "gain: 0.5" in said.out and said.err.endswith("warning: the gain may be none\n")
