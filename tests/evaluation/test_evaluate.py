import json
import subprocess
import sys
import tempfile
from pathlib import Path

import eval_world
import pytest
from test_submission import submit

from gristmill.core.errors import BadInputError, RunError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.evaluation.candidate import candidate_of_run
from gristmill.evaluation.evalset import CONTENT
from gristmill.evaluation.evaluate import EvaluateJob, TaskWorker, _forget_changed
from gristmill.evaluation.tasks.demo_drawings import DemoDrawings
from gristmill.evaluation.verify import VerifyJob
from gristmill.execution.session import Execution
from gristmill.execution.slices import committed


@pytest.fixture
def chain(tmp_path, arch, weights, uids):
    return eval_world.write_chain(tmp_path / "runs", arch, weights.read_bytes(), uids)


@pytest.mark.ray
def test_a_training_run_is_evaluated_and_the_file_is_datacomps(
    ray_cluster, demo_arch, chain, tmp_path
):
    job = EvaluateJob(run=str(chain.train), benchmark="demo")  # as the issue writes it
    out = chain.train / "evaluate/demo"
    assert job.out == str(out)
    plan = job.plan().text()
    assert "tasks   2" in plan
    assert "demo_drawings" in plan
    run_job(job)
    rows = [json.loads(x) for x in (out / "eval_results.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == ["demo_drawings", "demo_retrieval"]
    assert all(set(row) == {"key", "dataset", "metrics"} for row in rows)
    done = Run(job.out).done()
    summary = done["summary"]
    main = [row["metrics"]["main_metric"] for row in rows]
    assert summary["average"] == pytest.approx(sum(main) / 2)
    assert summary["demo_drawings"] == main[0]
    assert (summary["comparable"], summary["scale"]) == (True, "demo")
    assert (summary["benchmark"], summary["benchmark_version"]) == ("demo", 1)
    digest = eval_world.sha(chain.train / "checkpoints/epoch_1.pt")
    assert summary["weights_sha256"] == done["inputs"]["model"]["weights_sha256"] == digest
    assert done["inputs"]["eval_data/demo_drawings"][CONTENT] == DemoDrawings.digest
    assert [row["metrics"]["num_samples"] for row in rows] == [224, 632]
    assert not list(Path(tempfile.gettempdir()).glob("gristmill-eval-*"))
    page = (out / "report.html").read_text()
    assert "Demo drawings: confusion" in page
    assert "data:image/webp" in page
    assert "Non-comparable" not in page
    bundle = str(tmp_path / "bundle")
    run_job(submit(chain, bundle, eval_run=str(out), include_checkpoint=True))
    run_job(VerifyJob(bundle=bundle))


@pytest.mark.ray
def test_finished_tasks_are_kept_and_the_flag_of_the_training_carries_over(
    ray_cluster, eval_data, tmp_path, demo_arch, weights, uids
):
    import shutil

    chain = eval_world.write_chain(
        tmp_path / "runs", demo_arch, weights.read_bytes(), uids, comparable=False
    )
    data = tmp_path / "data"
    shutil.copytree(eval_data, data)
    broken = data / "wds_demo_retrieval_test/test/0.tar"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:2000])
    job = EvaluateJob(
        run=str(chain.train),
        eval_data=str(data),
        out=str(tmp_path / "out"),
        execution=Execution(workers=1),
    )
    with pytest.raises(BadInputError, match=r"demo_retrieval_test/test/0.tar.*truncated"):
        run_job(job)
    assert not (tmp_path / "out/DONE").exists()
    ledger = next((tmp_path / "out/.work").iterdir())
    assert set(committed(str(ledger))) == {"demo_drawings"}
    marker = ledger / "demo_drawings.json"
    kept = json.loads(marker.read_text())
    kept["metrics"]["from_the_first_start"] = 1
    marker.write_text(json.dumps(kept))
    broken.write_bytes(whole)
    run_job(job)
    rows = (tmp_path / "out/eval_results.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["metrics"]["from_the_first_start"] == 1
    assert Run(job.out).done()["summary"]["comparable"] is False
    assert "Non-comparable" in (tmp_path / "out/report.html").read_text()
    before = (tmp_path / "out/DONE").read_bytes()
    run_job(job)  # finished: returns at once
    assert (tmp_path / "out/DONE").read_bytes() == before


@pytest.mark.ray
def test_a_worker_error_is_told_in_its_own_words(
    ray_cluster, weights, demo_arch, eval_data, tmp_path
):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(eval_data, data)
    (data / "wds_demo_drawings_test/classnames.txt").write_text("red\ngreen\n")
    job = EvaluateJob(
        arch=demo_arch, weights=str(weights), eval_data=str(data), out=str(tmp_path / "out")
    )
    with pytest.raises(BadInputError, match=r"label \d+ is not in 0\.\.1"):
        run_job(job)


def test_what_is_missing_is_said_before_anything_starts(chain, eval_data, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(BadInputError, match="give either --run, or --arch with --weights"):
        EvaluateJob(out=out)
    with pytest.raises(BadInputError, match="give either --run, or --arch with --weights"):
        EvaluateJob(out=out, run="a", arch="b", weights="c")
    with pytest.raises(BadInputError, match="no benchmark named 'demos'"):
        EvaluateJob(out=out, run="a", benchmark="demos")
    with pytest.raises(BadInputError, match="output folder is empty"):
        EvaluateJob(arch="b", weights="c")
    empty = str(tmp_path / "empty")
    with pytest.raises(BadInputError, match=r"no evaluation set at .*wds_demo_drawings_test"):
        EvaluateJob(out=out, run=str(chain.train), eval_data=empty).plan()
    (chain.train / "checkpoints/epoch_1.pt").write_bytes(b"other")
    with pytest.raises(BadInputError, match="changed after its training"):
        EvaluateJob(out=out, run=str(chain.train), eval_data=str(eval_data)).plan()
    (chain.train / "DONE").unlink()
    with pytest.raises(RunError, match="is not finished"):
        EvaluateJob(out=out, run=str(chain.train), eval_data=str(eval_data)).plan()


def test_weights_swapped_between_plan_and_worker_are_refused(chain, tmp_path, weights):
    candidate = candidate_of_run(str(chain.train))
    import torch

    state = torch.load(weights)
    torch.save({name: value + 1 for name, value in state.items()}, candidate.spec.weights)
    worker = TaskWorker(candidate, "", 64, str(tmp_path), False)
    with pytest.raises(BadInputError, match="changed while it was evaluated"):
        worker.setup()


def test_another_set_under_the_tasks_name_is_refused(tiny, tmp_path):
    from gristmill.demo.noise import write_eval

    write_eval(tmp_path)
    names = tmp_path / "wds_demo_drawings_test/classnames.txt"
    names.write_text(names.read_text().replace("flag", "banner"))
    with pytest.raises(BadInputError, match="not the task's own: its content digest is"):
        DemoDrawings().evaluate(tiny, str(tmp_path), 64)


def test_changed_data_is_noticed_by_file(eval_data, tmp_path):
    import shutil

    shutil.copytree(eval_data, tmp_path / "e")
    task, name = DemoDrawings(), "wds_demo_drawings_test/test/0.tar"
    inputs = {"test/0.tar": eval_world.sha(tmp_path / "e" / name), CONTENT: "x"}
    assert not task.data_changed(str(tmp_path / "e"), inputs)
    (tmp_path / "e" / name).write_bytes(b"x")
    assert task.data_changed(str(tmp_path / "e"), inputs)
    (tmp_path / "e" / name).unlink()
    assert task.data_changed(str(tmp_path / "e"), inputs)
    assert not task.data_changed("", inputs)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    for name, read in (("demo_drawings", inputs), ("demo_retrieval", {CONTENT: "x"})):
        (ledger / f"{name}.json").write_text(json.dumps({"metrics": {}, "inputs": read}))
    _forget_changed(str(ledger), str(tmp_path / "e"))
    assert set(committed(str(ledger))) == {"demo_retrieval"}


def test_jobs_import_nothing_heavy():
    code = (
        "import sys, gristmill.evaluation.evaluate, gristmill.evaluation.submission, "
        "gristmill.evaluation.verify; "
        "bad = {'torch', 'ray', 'open_clip', 'sklearn', 'pyarrow'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "platform"})
