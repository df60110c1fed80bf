"""`gristmill lm train` as a person meets it: bad input, plan, a run on Ray, what it leaves."""

import dataclasses
import json
import shutil

import pytest
import torch
from lm_training import MODEL, VOCAB, losses, train_here, write_small_tokens

from gristmill.core import io
from gristmill.core.config import from_dict, to_dict
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.models.lm import checkpoint as model_folder
from gristmill.models.lm import hugging_face
from gristmill.models.lm.generate import load_any
from gristmill.recipes.commands import main
from gristmill.training.lm.job import TrainLmJob
from gristmill.training.lm.loop import build_model
from gristmill.training.lm.placement import Placement
from gristmill.training.lm.preflight import check
from gristmill.training.lm.records import Recorder, boards_of
from gristmill.training.lm.schedule import Optimization
from gristmill.training.place import Place


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_small_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def model_json(tmp_path_factory):
    uri = tmp_path_factory.mktemp("model") / "tiny.json"
    io.write_json(str(uri), to_dict(MODEL))
    return str(uri)


@pytest.fixture
def job_for(corpus, model_json, tmp_path):
    def make(*, where=None, **fields):
        given = {
            "preset": model_json, "corpora": (corpus,), "mixture": "one=0.5,two=0.3,three=0.2",
            "steps": 12, "batch_size": 12, "out": str(tmp_path / "run"),
            "optimization": Optimization(lr=3e-3), "validation_sequences": 5,
            "execution": Placement(**{"checkpoint_every": 4, **(where or {})}),
        }  # fmt: skip
        return TrainLmJob(**{**given, **fields})

    return make


# -- what is refused before anything starts --------------------------------------------------------


def refused(job, said):
    for act in (job.plan, lambda: run_job(job)):
        with pytest.raises(BadInputError, match=said):
            act()
    if (run := Run(job.out)).done() is not None or run.metrics():
        pytest.fail("something was trained")


def test_an_unknown_domain(job_for):
    refused(job_for(mixture="oone=0.5,two=0.5"), r"'oone'.*perhaps you meant one")


def test_a_vocabulary_larger_than_the_models(job_for, tmp_path):
    big = write_small_tokens(tmp_path / "t", size=VOCAB + 1)
    refused(job_for(corpora=(big,)), r"tokenizer has 97 tokens, the model's vocabulary 96")


def test_corpora_of_two_tokenizers(job_for, corpus, tmp_path):
    other = write_small_tokens(tmp_path / "t", sha256="c" * 64)
    with pytest.raises(BadInputError, match="give each domain once|tokenize both"):
        job_for(corpora=(corpus, other)).plan()


def test_a_domain_repeated_beyond_the_cap(job_for):
    refused(job_for(steps=5000), r"would repeat .*over the cap of 4; lower these weights")


@pytest.mark.parametrize(("seq_len", "well"), [(8, False), (9, True)])
def test_a_sequence_within_the_prefix(job_for, tmp_path, seq_len, well):
    uri = str(tmp_path / "prefix.json")
    io.write_json(uri, to_dict(dataclasses.replace(MODEL, prefix=9)))
    job = job_for(preset=uri, seq_len=seq_len)
    if well:
        job.plan()
    else:
        refused(job, r"seq_len 8 leaves nothing to learn: .* give --seq-len 9 or more")


def test_a_mixture_found_with_another_tokenizer(job_for, tmp_path):
    weights = {"one": 0.5, "two": 0.5}
    io.write_json(str(tmp_path / "m.json"), {"weights": weights, "vocabulary": "d" * 64})
    refused(job_for(mixture=str(tmp_path / "m.json")), "found with the tokenizer dddddddddddd")
    io.write_json(str(tmp_path / "m.json"), {"weights": weights, "vocabulary": "b" * 64})
    job_for(mixture=str(tmp_path / "m.json")).plan()


def test_a_start_that_is_another_model_or_speaks_another_tongue(job_for, tmp_path):
    folder = str(tmp_path / "start")
    model_folder.save(MODEL.build(seed=1), folder)
    job_for(init=folder).plan()
    io.write_json(f"{folder}/vocabulary.json", {"sha256": "e" * 64})
    refused(job_for(init=folder), "trained with the tokenizer eeeeeeeeeeee")
    other = dataclasses.replace(MODEL, num_layers=1)
    model_folder.save(other.build(seed=1), folder)
    refused(job_for(init=folder), r"another model .*num_layers: 1 -> 2")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 0}, "either --steps or --tokens"),
        ({"tokens": 5}, "either --steps or --tokens"),
        ({"corpora": ()}, "no corpora"),
        ({"preset": "regmix-1mm"}, "perhaps you meant regmix-1m"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"where": {"workers": 5}}, r"12 sequences does not divide by 5 workers"),
        ({"mixture": "one=0.5"}, "sum to 0.5, not 1"),
    ],
)
def test_words_that_cannot_be(job_for, fields, said):
    with pytest.raises(BadInputError, match=said):
        job_for(**fields)


def test_a_disk_too_small_for_the_checkpoints(job_for, monkeypatch):
    import shutil as disks

    real = disks.disk_usage("/")
    monkeypatch.setattr(disks, "disk_usage", lambda path: real._replace(free=1000))
    refused(job_for(), r"checkpoints and model need .* has room for [0-9.]+ (B|KiB); lower --keep")


# -- the plan --------------------------------------------------------------------------------------


def test_the_plan_says_what_it_costs(job_for):
    text = job_for(where={"min_workers": 1, "max_workers": 5}).plan().text()
    for words in (
        "2,304 tokens", "12 of 12 sequences (192 tokens)", "FLOPs, forward and backward",
        "0.06 epochs", "every 4 steps, and when the last is 30 min old", "1 to 5 by torch",
        "4 micro-batches of 3 on the fewest", "does not divide by 5 workers", "a checkpoint",
    ):  # fmt: skip
        assert words in text, text


def test_fewer_workers_of_an_elastic_run_compute_no_more_at_once():
    elastic = Placement(min_workers=2, max_workers=16)
    assert elastic.most_at_once(100) == 7 and elastic.least_workers == 2
    assert dataclasses.replace(elastic, micro_batch_size=3).most_at_once(100) == 3
    assert Placement(workers=4).most_at_once(100) == 0


def test_where_all_checkpoints_are_kept_the_clock_adds_none(job_for):
    job = job_for(where={"keep_checkpoints": 0})
    assert job.execution.minutes_between_checkpoints == 0
    assert "min old" not in job.plan().text()


def test_validations_cost_a_tenth_at_most(job_for):
    job = job_for(steps=200, batch_size=5)  # 3 domains of 5 sequences, forward only: one step
    checked = check(job)
    assert checked.validation_sequences(5) == 15
    assert job.steps_between_validations(checked) == 20
    few = dataclasses.replace(job, steps=30)
    assert few.steps_between_validations(checked) == 10, "15 / 3 / 5 is a tenth of ten steps"
    assert "every 10 steps, on 15 sequences" in few.plan().text()
    told = dataclasses.replace(few, validation_every=2)
    assert told.steps_between_validations(checked) == 2


def test_the_plan_of_seven_billion_parameters_needs_no_memory(corpus, capsys):
    words = ["lm", "train", "pangu-pi-7b", "--corpora", corpus, "--tokens", "100000", "--seq-len"]
    words += ["16", "--batch-size", "64", "--workers", "8", "--engine", "zero3"]
    # On an object store, so that this machine's own disk does not have to hold 12 bytes a parameter.
    status = main([*words, "--max-epochs", "9", "--out", "s3://runs/seven", "--plan"])
    shown = capsys.readouterr().out
    assert status == 0
    assert "params  6,727,240,704" in shown, shown
    assert "weights 1.6 GiB" in shown, shown
    assert "a checkpoint  75.2 GiB" in shown, shown


def test_the_plan_warns_of_what_is_too_much(corpus, model_json, capsys):
    words = ["lm", "train", "--corpora", corpus, "--steps", "1", "--out", "s3://runs/x", "--plan"]
    assert main([*words, model_json, "--batch-size", "12", "--workers", "1"]) == 0
    assert "warning" not in (said := capsys.readouterr().out), said
    big = ["pangu-pi-7b", "--seq-len", "16", "--max-epochs", "9999", "--micro-batch-size", "1"]
    assert main([*words, *big, "--batch-size", "8", "--workers", "8"]) == 0
    said = capsys.readouterr().out
    assert "a GPU are more than the" in said and "tokens a batch" not in said, said
    many = [model_json, "--batch-size", "262144", "--max-epochs", "9999"]
    assert main([*words, *many, "--micro-batch-size", "8"]) == 0
    said = capsys.readouterr().out
    assert "4,194,304 tokens a batch" in said and "a GPU are more" not in said, said


def test_a_place_that_cannot_be_written_is_named(corpus, model_json, capsys):
    words = ["lm", "train", model_json, "--corpora", corpus, "--steps", "1", "--batch-size", "12"]
    assert main([*words, "--out", "/proc/nowhere/run"]) == 1
    said = capsys.readouterr().err
    assert "cannot write to /proc/nowhere/run" in said and "choose another --out" in said


def test_curves_are_taken_back_where_a_resume_goes_on(tmp_path):
    """What TensorBoard is told: a start at step 3 purges what was drawn from there on."""
    tensorboard = pytest.importorskip("tensorboardX")
    told = []
    real = tensorboard.SummaryWriter

    def writer(*words, **options):
        told.append(options["purge_step"])
        return real(*words, **options)

    run = Run(str(tmp_path / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorboard, "SummaryWriter", writer)
        recorder = Recorder(run, "x", steps=9, step_tokens=1, boards=boards_of(run))
        for step in (0, 3):
            recorder({"kind": "start", "step": step, "position": step, "events": 0})
        recorder.close()
    assert told == [0, 3]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2


def test_the_job_survives_json_and_a_changed_preset_is_another(job_for, model_json, tmp_path):
    job = job_for()
    back = from_dict(json.loads(json.dumps(to_dict(job))))
    assert back == job and back.config == MODEL


# -- a run on Ray ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(ray_cluster, corpus, model_json, tmp_path_factory):
    job = TrainLmJob(
        preset=model_json, corpora=(corpus,), mixture="one=0.5,two=0.3,three=0.2", steps=12,
        batch_size=12, out=str(tmp_path_factory.mktemp("trained") / "run"),
        optimization=Optimization(lr=3e-3), validation_sequences=5,
        execution=Placement(checkpoint_every=4, workers=2, tensorboard=True),
    )  # fmt: skip
    return job, run_job(job)


@pytest.mark.ray
def test_a_run_on_two_ranks_leaves_what_others_read(trained):
    _, run = trained
    done = run.done()
    assert done["summary"]["steps"] == 12
    assert done["summary"]["num_workers"] == 2
    assert done["summary"]["tokens"] == 12 * 12 * 16
    steps = [line for line in run.metrics() if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(12))
    assert done["summary"]["order"] == steps[-1]["order"]
    model = load_any(run.path("model"), device="cpu")
    assert model.config == MODEL
    ledger = io.read_json(run.path("ledger.json"))
    assert ledger["planned"] == ledger["realised"]
    page = io.read_bytes(run.path("report.html")).decode()
    assert page.count("<svg") == 5 and "Ledger, realised" in page
    assert any(n.startswith("events") for n in map(lambda u: u.rsplit("/", 1)[-1],
               io.list_files(run.path("tensorboard"))))  # fmt: skip
    assert "checkpoints/step-00000012/checkpoint.json" in done["outputs"]


@pytest.mark.ray
def test_a_resume_on_another_number_of_ranks_goes_on_as_before(trained, tmp_path):
    job, run = trained
    shutil.copytree(io.local_path(run.uri), tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000012")
    fewer = dataclasses.replace(
        job, out=str(tmp_path / "run"), execution=Placement(checkpoint_every=4, workers=1)
    )
    again = run_job(fewer)
    mine, theirs = ([line for line in r.metrics() if line["kind"] == "step"] for r in (again, run))
    assert [line["order"] for line in mine] == [line["order"] for line in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert again.done()["summary"]["num_workers"] == 1


@pytest.mark.ray
def test_a_truncated_checkpoint_ends_it_before_the_first_step(trained, tmp_path):
    job, run = trained
    shutil.copytree(io.local_path(run.uri), tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    [file, *_] = sorted((tmp_path / "run" / "checkpoints" / "step-00000012").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CorruptDataError, match="remove .*step-00000012 to resume"):
        run_job(dataclasses.replace(job, out=str(tmp_path / "run")))


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("custom_code")
def test_an_export_is_transformers_model_and_a_start(trained, corpus, model_json, tmp_path, capsys):
    """Train, export, compare, train on from the export: all by command."""
    transformers = pytest.importorskip("transformers")
    _, run = trained
    out = str(tmp_path / "exported")
    assert main(["lm", "export", run.path("model"), "--out", out]) == 0
    assert "trust_remote_code" in capsys.readouterr().out
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        f"{out}/hugging-face", trust_remote_code=True
    )
    ours = load_any(run.path("model"), device="cpu")
    tokens = torch.randint(0, VOCAB, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(tokens).logits, ours(tokens), rtol=0, atol=1e-5)
    words = ["lm", "train", model_json, "--corpora", corpus, "--mixture", "uniform", "--steps", "1"]
    words += ["--batch-size", "12", "--seed", "5", "--workers", "1"]
    there = str(tmp_path / "next")
    assert main([*words, "--init", f"{out}/hugging-face", "--out", there]) == 0
    [found] = [line["loss"] for line in Run(there).metrics() if line["kind"] == "step"]
    job = TrainLmJob(
        preset=model_json, corpora=(corpus,), mixture="uniform", steps=1, batch_size=12, seed=5,
        init=run.path("model"), out=str(tmp_path / "unused"),
    )  # fmt: skip
    assert losses(train_here(job.spec(Run(job.out), check(job), bf16=False))) == {0: found}


def test_a_llama_is_a_start_whatever_drew_its_weights(job_for, tmp_path):
    llama = dataclasses.replace(MODEL, series=1, shortcuts=0, shortcut_reduction=32)
    folder, uri = str(tmp_path / "llama"), str(tmp_path / "preset.json")
    hugging_face.export(llama.build(seed=1), folder)
    ours = dataclasses.replace(llama, initializer="regmix", context_length=32)
    io.write_json(uri, to_dict(ours))
    job = job_for(preset=uri, init=folder, seq_len=16)
    job.plan()
    place = Place(rank=0, world_size=1, device=torch.device("cpu"))
    model = build_model(job.spec(Run(job.out), check(job), bf16=False), place)
    assert model.config == ours
    assert torch.equal(
        model.blocks[1].attention.q.weight, llama.build(seed=1).blocks[1].attention.q.weight
    )
    io.write_json(f"{folder}/vocabulary.json", {"sha256": "e" * 64})
    refused(job, "trained with the tokenizer eeeeeeeeeeee")
    io.write_json(uri, to_dict(dataclasses.replace(ours, num_layers=1)))
    refused(job_for(preset=uri, init=folder), r"holds another model .*num_layers: 2 -> 1")
