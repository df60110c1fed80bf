import dataclasses
import json
import os

import numpy as np
import pytest
from killing import markers
from made_corpora import finish_job, kill_job_when
from made_proxies import DOMAINS, VOCAB, Idle, Raising, job, training, write_corpus, write_design

from gristmill.core.config import config_hash
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.execution import growth as growth_module
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, map_slices
from gristmill.mixing import sweep as sweep_module
from gristmill.mixing.proxies import LOSSES, MIXTURES, RESULTS
from gristmill.mixing.proxy import ProxyBench, Trial
from gristmill.mixing.results import Result, file_name, load_results
from gristmill.mixing.sweep import Sweep, run_sweep
from gristmill.mixing.tables import matched, read_losses, read_mixtures

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def finished(ray_cluster, corpus, tmp_path_factory):
    """A sweep of four that nothing befell."""
    folder = tmp_path_factory.mktemp("finished")
    run_job(job(folder, corpus, folder / "o"))
    return folder


def stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in (folder / RESULTS).iterdir()}


def test_losses_of_every_target_for_every_mixture(finished):
    losses = read_losses(str(finished / "o" / LOSSES))
    mixtures = read_mixtures(str(finished / "o" / MIXTURES))
    assert losses.columns == DOMAINS and losses.index == ("1", "2", "3", "4")
    assert matched(mixtures, losses).shape == (4, 3)
    results = load_results(str(finished / "o" / RESULTS))
    assert results["3"].losses["prose"] == losses.rows(["3"])[0][1]
    done = Run(str(finished / "o")).done()
    assert done["summary"]["proxies"] == 4 and done["summary"]["failed"] == 0
    assert f"{RESULTS}/1.json" in done["outputs"]
    report = (finished / "o" / "report.html").read_text()
    assert "Ledger" in report and "Losses by target" in report


def test_one_worker_gives_the_same_bytes(finished, corpus):
    run_job(job(finished, corpus, finished / "one", workers=1))
    assert (finished / "one" / LOSSES).read_bytes() == (finished / "o" / LOSSES).read_bytes()


@pytest.mark.long
def test_the_order_of_rows_and_columns_changes_nothing(finished, corpus):
    lines = (finished / "design-4.csv").read_text().splitlines()
    cells = [line.split(",") for line in [lines[0], *reversed(lines[1:])]]
    turned = finished / "turned.csv"
    turned.write_text("".join(",".join([c[0], *reversed(c[1:])]) + "\n" for c in cells))
    run_job(job(finished, corpus, finished / "t", design=str(turned)))
    assert (finished / "t" / LOSSES).read_bytes() == (finished / "o" / LOSSES).read_bytes()


def test_other_work_finds_the_cluster_free_after_a_sweep(finished, tmp_path):
    pieces = [Slice(name=str(i)) for i in range(3)]
    found = map_slices(
        "after", pieces, Idle(), ledger=str(tmp_path), execution=Execution(workers=2)
    )
    assert len(found) == 3


def test_what_finished_is_not_trained_again(finished, corpus, tmp_path):
    """Results of two of the four, one of them altered: it must be believed, not made anew."""
    wanted = job(finished, corpus, tmp_path / "o")
    source = finished / "o" / RESULTS
    with Run(wanted.out).open(wanted):
        pass
    (tmp_path / "o" / RESULTS).mkdir()
    for name in ("1.json", "3.json"):
        entry = json.loads((source / name).read_text())
        entry["losses"]["code"] = 9.75
        (tmp_path / "o" / RESULTS / name).write_text(json.dumps(entry))
    before = stamps(tmp_path / "o")
    run_job(wanted)
    assert {n: t for n, t in stamps(tmp_path / "o").items() if n in before} == before
    losses = read_losses(str(tmp_path / "o" / LOSSES))
    there = read_losses(str(finished / "o" / LOSSES))
    assert losses.rows(["1", "3"])[:, 0].tolist() == [9.75, 9.75]
    assert np.array_equal(losses.rows(["2", "4"]), there.rows(["2", "4"]))


@pytest.mark.long
def test_a_killed_driver_resumes_without_training_again(corpus, tmp_path):
    whole = job(tmp_path, corpus, tmp_path / "whole", count=8, steps=200)
    run_job(whole)
    killed = job(tmp_path, corpus, tmp_path / "killed", count=8, steps=200)
    assert config_hash(killed) == config_hash(whole)
    log = tmp_path / "log"
    kill_job_when(lambda: markers(tmp_path / "killed" / RESULTS) >= 2, killed, log)
    before = stamps(tmp_path / "killed")
    assert 2 <= len(before) < 8
    assert not os.path.exists(tmp_path / "killed" / "DONE")
    status, said = finish_job(killed, log)
    assert status == 0, said
    assert "of 8 proxies were trained before" in said
    after = stamps(tmp_path / "killed")
    assert {name: after[name] for name in before} == before
    assert (tmp_path / "killed" / LOSSES).read_bytes() == (tmp_path / "whole" / LOSSES).read_bytes()


# -- failures ----------------------------------------------------------------------------------


def sweep(tmp_path, corpus, times, retries=1):
    (tmp_path / "marks").mkdir()
    bench = Raising(corpora=(corpus,), settings=training(tmp_path).settings(VOCAB))
    bench.times, bench.marks = times, str(tmp_path / "marks")
    table = read_mixtures(write_design(tmp_path))
    trials = tuple(
        Trial(index=index, weights=dict(zip(DOMAINS, row.tolist(), strict=True)), seed=0)
        for index, row in zip(table.index, table.values, strict=True)
    )
    return Sweep(trials=trials, bench=bench, folder=str(tmp_path / "r"), retries=retries)


def assert_same_losses(outcome, finished):
    """As of a sweep that nothing befell."""
    whole = load_results(str(finished / "o" / RESULTS))
    assert {i: r.losses for i, r in outcome.results.items()} == {
        i: r.losses for i, r in whole.items()
    }


def test_a_trial_that_raises_once_is_begun_again(finished, corpus, tmp_path):
    asked = sweep(tmp_path, corpus, times=1)
    outcome = run_sweep(asked, Execution(workers=2))
    assert outcome.retried == {"2": 1} and outcome.failed == {}
    assert run_sweep(asked, Execution(workers=2)).retried == {"2": 1}  # as after a driver's death
    assert_same_losses(outcome, finished)


@pytest.mark.slow
def test_a_trial_that_tune_gives_up_early_is_begun_again(finished, corpus, tmp_path, monkeypatch):
    """As when a process's death reaches Tune twice: the second time while the trial waits."""
    from ray.tune.experiment import Trial as TuneTrial

    monkeypatch.setattr(TuneTrial, "should_recover", lambda self: False)
    outcome = run_sweep(sweep(tmp_path, corpus, times=1), Execution(workers=2))
    assert outcome.retried == {"2": 1} and outcome.failed == {}
    assert_same_losses(outcome, finished)


def test_a_trial_that_always_raises_leaves_the_others_alone(corpus, tmp_path):
    asked = sweep(tmp_path, corpus, times=99)
    outcome = run_sweep(asked, Execution(workers=2))
    assert sorted(outcome.results) == ["1", "3", "4"]
    assert list(outcome.failed) == ["2"]
    kept = tmp_path / "r" / "failed" / "2.txt"
    said = f"OSError: the disk of proxy 2 went away (traceback: {kept})"
    assert outcome.failed["2"] == said and "raise OSError" in kept.read_text()
    assert len(os.listdir(tmp_path / "marks")) == 2
    again = run_sweep(asked, Execution(workers=2))
    assert sorted(again.results) == ["1", "3", "4"] and list(again.failed) == ["2"]


def test_a_trial_that_leaves_no_result_has_failed(corpus, tmp_path):
    """As on another machine whose --out is a folder of its own."""
    asked = sweep(tmp_path, corpus, times=0)
    lost = dataclasses.replace(asked, trials=asked.trials[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gristmill.mixing.sweep._tune", lambda *_: ({"1": "disk full"}, []))
        outcome = run_sweep(lost, Execution(workers=2))
    assert outcome.results == {} and outcome.failed["1"] == "disk full"
    assert "storage that all share" in outcome.failed["2"]


@pytest.mark.slow
def test_a_worker_that_dies_is_begun_again(finished, corpus, tmp_path):
    log = tmp_path / "log"
    asked = job(finished, corpus, tmp_path / "o")
    fault = {"GRISTMILL_FAULT": f"{tmp_path}:proxy:2:6"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fault.items():
            patch.setenv(name, value)
        status, said = finish_job(asked, log)
    assert status == 0, said
    assert (tmp_path / "struck").exists() and "proxy 2 failed and is begun again" in said
    assert (tmp_path / "o" / LOSSES).read_bytes() == (finished / "o" / LOSSES).read_bytes()
    assert Run(asked.out).done()["summary"]["retried"] == 1


def test_a_loss_that_is_no_number_is_named_and_final(corpus, tmp_path):
    asked = job(tmp_path, corpus, tmp_path / "o", lr=1e30)
    with pytest.raises(RunError, match=r"4 of 4 proxies have no losses: 1: the .*loss.* is nan"):
        run_job(asked)
    before = stamps(tmp_path / "o")
    with pytest.raises(RunError, match="a lower --lr"):
        run_job(asked)
    assert stamps(tmp_path / "o") == before
    assert load_results(str(tmp_path / "o" / RESULTS))["2"].status == "diverged"


def test_one_that_diverged_may_be_left_out(finished, corpus, tmp_path):
    first = job(finished, corpus, tmp_path / "o")
    with Run(first.out).open(first):
        Result(
            index="2", status="diverged", step=4, tokens=1, seconds=1.0, why="the loss is nan"
        ).save(str(tmp_path / "o" / RESULTS))
    with pytest.raises(RunError, match="--max-failed leaves them out"):
        run_job(first)
    before = stamps(tmp_path / "o")
    run_job(job(finished, corpus, tmp_path / "o", max_failed=1))
    assert stamps(tmp_path / "o") == before and len(before) == 4
    assert read_losses(str(tmp_path / "o" / LOSSES)).index == ("1", "3", "4")
    assert read_mixtures(str(tmp_path / "o" / MIXTURES)).index == ("1", "3", "4")
    assert "the loss is nan" in (tmp_path / "o" / "failed.csv").read_text()
    assert "the loss is nan" in (tmp_path / "o" / "report.html").read_text()


def test_a_row_that_must_have_losses(finished, corpus, tmp_path):
    for name, required in (("a", ("2", "3")), ("b", ("3",))):
        asked = dataclasses.replace(
            job(finished, corpus, tmp_path / name, max_failed=4), required=required
        )
        for index in "134":
            source = finished / "o" / RESULTS / f"{index}.json"
            (tmp_path / name / RESULTS).mkdir(parents=True, exist_ok=True)
            with Run(asked.out).open(asked):
                (tmp_path / name / RESULTS / f"{index}.json").write_bytes(source.read_bytes())
        Result(
            index="2", status="diverged", step=4, tokens=1, seconds=1.0, why="the loss is nan"
        ).save(str(tmp_path / name / RESULTS))
        if name == "a":
            with pytest.raises(RunError, match="1 of 4 proxies have no losses: 2: the loss is nan"):
                run_job(asked)
        else:
            assert run_job(asked).done()["summary"]["proxies"] == 3


def test_patience_makes_no_other_job(corpus, tmp_path):
    plain = job(tmp_path, corpus, tmp_path / "o")
    assert config_hash(plain) == config_hash(job(tmp_path, corpus, tmp_path / "o", max_failed=3))
    assert config_hash(plain) == config_hash(job(tmp_path, corpus, tmp_path / "o", retries=7))
    assert config_hash(plain) != config_hash(job(tmp_path, corpus, tmp_path / "o", steps=17))


def test_asha_ends_some_early_and_keeps_what_it_ended(corpus, tmp_path):
    asked = job(tmp_path, corpus, tmp_path / "o", count=8, steps=32, asha="mean", workers=1)
    run_job(asked)
    results = load_results(str(tmp_path / "o" / RESULTS))
    stopped = [r for r in results.values() if r.status == "stopped"]
    assert len(results) == 8 and 1 <= len(stopped) < 8
    assert all(r.step < 32 and set(r.losses) == set(DOMAINS) for r in stopped)
    done = [i for i, r in results.items() if r.status == "done"]
    assert set(read_losses(str(tmp_path / "o" / LOSSES)).index) == set(done)


# -- input that cannot be ----------------------------------------------------------------------


def refused(tmp_path, corpus, text, **fields):
    path = tmp_path / "d.csv"
    path.write_text(text)
    out = tmp_path / f"o{len(list(tmp_path.iterdir()))}"
    asked = job(tmp_path, corpus, out, design=str(path), **fields)
    (tmp_path / f"{out.name}-used").touch()
    with pytest.raises(BadInputError) as error:
        asked.plan()
    with pytest.raises(BadInputError):
        run_job(asked)
    return str(error.value)


def test_designs_that_cannot_be_are_refused_by_name(corpus, tmp_path):
    header = "index,code,prose,tables\n"
    said = refused(tmp_path, corpus, "index,code,pose\n1,0.5,0.5\n")
    assert "no domain 'pose'" in said and "perhaps you meant prose" in said
    assert ".csv: no domain" in said
    said = refused(tmp_path, corpus, header + "1,0.5,0.5,0.5\n")
    assert "row 1 sum to 1.5, not 1" in said
    said = refused(tmp_path, corpus, header + "7,0.1,0.1,0.8\n", steps=2000)
    assert "row 7" in said and "would repeat" in said and "tables" in said
    said = refused(tmp_path, corpus, header + "7,0.1,0.1,0.8\n", asha="proze")
    assert "perhaps you meant prose" in said


@pytest.mark.parametrize(("sizes", "validation"), [((6000, 10, 3000), 400), ((6000, 900, 3000), 0)])
def test_an_empty_domain_is_named(tmp_path, sizes, validation):
    (tmp_path / "t").mkdir()
    empty = write_corpus(tmp_path / "t", sizes, validation)
    asked = job(tmp_path, empty, tmp_path / "o")
    want = "domain code .* validation split" if not validation else "domain prose .* train split"
    with pytest.raises(BadInputError, match=want):
        asked.plan()


def test_a_proxy_larger_than_the_cluster_is_refused(corpus, tmp_path):
    with pytest.raises(BadInputError, match="asks for 64 CPUs"):
        run_job(job(tmp_path, corpus, tmp_path / "o", cpus_per_proxy=64))


def test_room_is_that_of_one_machine(monkeypatch):
    for module in (sweep_module, growth_module):
        monkeypatch.setattr(module, "node_rooms", lambda: [(4.0, 0.0), (4.0, 2.0)])
    monkeypatch.setattr(growth_module, "growth", lambda: None)
    with pytest.raises(BadInputError, match="asks for 6 CPUs and 0 GPUs of one machine"):
        sweep_module.require_room(6, 0)
    sweep_module.require_room(4, 1)
    asked = Sweep(trials=(), bench=None, folder="", cpus=3)
    assert sweep_module._width(asked, Execution()) == 2  # not 8 // 3 over both, and not 0
    shared = dataclasses.replace(asked, cpus=1, gpus=0.4)
    assert sweep_module._width(shared, Execution()) == 4  # two to a GPU: 0.4 of each stay over


def test_the_plan_counts(finished, corpus, tmp_path):
    text = job(finished, corpus, tmp_path / "o").plan().text()
    assert "train 4 proxies" in text and "1,024 a proxy, 4,096 in all" in text
    assert "16 of 4 x 16 tokens" in text
    asked = job(finished, corpus, tmp_path / "half")
    for index in "12":
        name = f"{index}.json"
        (tmp_path / "half" / RESULTS).mkdir(parents=True, exist_ok=True)
        entry = json.loads((finished / "o" / RESULTS / name).read_text()) | {"seconds": 600}
        (tmp_path / "half" / RESULTS / name).write_text(json.dumps(entry))
    text = asked.plan().text()
    assert "train 2 proxies" in text
    assert "20 min 0 s of one CPU (as the 2 that are done)" in text


def test_any_index_can_name_a_file(tmp_path):
    for index in ("a/b", "..", "x y", "é%", "random-1"):
        Result(index=index, status="done", step=1, tokens=1, seconds=0.0).save(str(tmp_path))
        assert "/" not in file_name(index)
    assert set(load_results(str(tmp_path))) == {"a/b", "..", "x y", "é%", "random-1"}


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "null",
        '{"index": "1"}',
        '{"index": "2", "status": "done", "step": 1, "tokens": 1, "seconds": 1.0}',
        '{"index": "1", "status": "gone", "step": 1, "tokens": 1, "seconds": 1.0}',
        '{"index": "1", "status": "done", "step": 1, "tokens": 1, "seconds": 1.0, "losses": 3}',
        '{"index": "1", "status": "done", "step": 1, "tokens": 1, "seconds": 1, "losses": {"a": NaN}}',
        '{"index": "1", "sta',
    ],
)
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "1.json").write_text(text)
    with pytest.raises(CorruptDataError, match=r"1\.json"):
        load_results(str(tmp_path))


def test_a_result_without_a_target_is_named(finished, corpus, tmp_path):
    asked = job(finished, corpus, tmp_path / "o")
    with Run(asked.out).open(asked):
        for index in "1234":
            Result(
                index=index, status="done", step=16, tokens=1, seconds=1.0, losses={"code": 1.0}
            ).save(str(tmp_path / "o" / RESULTS))
    with pytest.raises(CorruptDataError, match=r"1\.json has no loss of prose"):
        run_job(asked)


def test_the_bench_is_small_to_send(corpus, tmp_path):
    import pickle

    bench = ProxyBench(corpora=(corpus,), settings=training(tmp_path).settings(VOCAB))
    assert len(pickle.dumps(bench)) < 10_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ray::P.step()\n  File x, line 1, in f\n    raise OSError(1)\n    ^^^^^\nOSError: no disk",
            "OSError: no disk",
        ),
        ("KeyError: 'a'\n\nDuring:\n\na.b.OwnError: two\nlines", "a.b.OwnError: two lines"),
        ("The actor died unexpectedly", "The actor died unexpectedly"),
        ("", "RuntimeError"),
    ],
)
def test_what_a_trial_raised_is_one_line(text, said):
    assert sweep_module._said(RuntimeError(text)) == said
