"""`lm evaluate` and `lm probe` on small corpora: figures against plain sums, refusals, resume."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from lm_world import LLAMA, tokenizer_text, write_corpus, write_model
from made_corpora import finish_job, kill_job_when

from gristmill.core.errors import BadInputError, RunError
from gristmill.core.job import run_job
from gristmill.corpora.stream import validation_batch
from gristmill.corpora.tokens import TokenCorpus
from gristmill.evaluation.lm.evaluate import LmEvaluateJob
from gristmill.evaluation.lm.probe import ProbeJob
from gristmill.evaluation.lm.text_bytes import text_bytes
from gristmill.evaluation.lm.trigram import Trigram


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    held = write_corpus(folder / "t")
    return {"folder": folder, "held": held, "model": write_model(folder / "m")}


def job(world, out, **fields):
    wanted = {"model": str(world["folder"] / "m"), "corpora": (str(world["folder"] / "t"),)}
    return LmEvaluateJob(out=str(out), **{**wanted, **fields})


def results(out, name="results.json"):
    return json.loads((out / name).read_text())


def plain_losses(model, tokens):
    """By sequence, through all logits."""
    with torch.no_grad():
        logits = model(tokens[:, :-1])
    targets = tokens[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    return losses.view(len(tokens), -1).double().mean(1).numpy()


@pytest.mark.ray
def test_figures_are_those_of_plain_sums(world, tmp_path):
    run_job(job(world, tmp_path / "o", baseline="trigram", batch_size=5))
    found, corpus = results(tmp_path / "o"), TokenCorpus(str(world["folder"] / "t"))
    assert list(found["domains"]) == ["bread", "mills"] and found["seq_len"] == 48
    rows = [corpus.between(d, 0, corpus.tokens(d)) for d in corpus.domains]
    trigram = Trigram(rows, corpus.vocabulary.size)
    nats, gaps = {}, {}
    for domain, entry in found["domains"].items():
        tokens = validation_batch(corpus, domain, seq_len=48)
        losses = plain_losses(world["model"], torch.from_numpy(tokens))
        assert entry["sequences"] == len(tokens) and entry["tokens"] == 48 * len(tokens)
        assert entry["nats_per_token"] == pytest.approx(losses.mean(), rel=1e-5)
        error = losses.std(ddof=1) / math.sqrt(len(losses))
        assert entry["standard_error"] == pytest.approx(error, rel=1e-3)
        low, high = entry["interval_95"]
        assert (low + high) / 2 == pytest.approx(losses.mean(), rel=1e-5)
        assert high - low == pytest.approx(2 * 1.96 * error, rel=1e-3)
        assert entry["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
        text = "".join(world["held"][domain]).encode()
        share = entry["tokens"] / corpus.tokens(domain, "validation")
        assert entry["bytes"] == pytest.approx(len(text) * share, rel=0.03)
        bits = losses.sum() * 48 / math.log(2) / entry["bytes"]
        assert entry["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
        other = trigram.losses(tokens).mean(1)
        assert entry["trigram"]["nats_per_token"] == pytest.approx(other.mean(), rel=1e-9)
        gap = losses - other
        less = entry["model_less_trigram"]
        assert less["nats_per_token"] == pytest.approx(gap.mean(), rel=1e-4)
        assert less["standard_error"] == pytest.approx(
            gap.std(ddof=1) / math.sqrt(len(gap)), rel=1e-3
        )
        nats[domain], gaps[domain] = losses, gap
    mean = np.mean([x.mean() for x in nats.values()])
    assert found["mean_of_domains"]["nats_per_token"] == pytest.approx(mean, rel=1e-5)
    whole = np.concatenate(list(nats.values())).mean()
    assert found["all_tokens"]["nats_per_token"] == pytest.approx(whole, rel=1e-5)
    gap = np.concatenate(list(gaps.values())).mean()
    assert found["all_tokens"]["model_less_trigram"]["nats_per_token"] == pytest.approx(
        gap, rel=1e-4
    )
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Held-out loss" in page and "mills" in page and "Kneser-Ney" in page


def test_bytes_are_those_of_the_text(world):
    corpus = TokenCorpus(str(world["folder"] / "t"))
    for domain, documents in world["held"].items():
        whole = corpus.tokens(domain, "validation")
        first = len(documents[0].encode()) - text_bytes(corpus, domain, 0)
        assert text_bytes(corpus, domain, 0) == 0 and first > 0
        all_bytes = sum(len(d.encode()) for d in documents)
        # all but what the first token stands for
        assert all_bytes - 8 <= text_bytes(corpus, domain, whole - 1) < all_bytes
        some = [text_bytes(corpus, domain, n) for n in range(0, whole, 97)]
        assert some == sorted(some)


@pytest.mark.ray
def test_probes_by_domain_in_json_and_on_the_page(world, tmp_path):
    out = tmp_path / "p"
    run_job(
        ProbeJob(
            model=str(world["folder"] / "m"),
            corpora=(str(world["folder"] / "t"),),
            num_sequences=10,
            seq_len=32,
            out=str(out),
        )
    )
    found = results(out, "probes.json")["domains"]
    assert list(found) == ["bread", "mills"]
    for probes in found.values():
        assert set(probes) == {
            "loss",
            "attention_sink",
            "massive_activation",
            "effective_dimension",
            "feature_diversity",
        }
        assert probes["loss"]["sequences"] == 10 and probes["loss"]["up_to_place"][-1] == 32
        assert 10 < probes["attention_sink"]["sequences"] <= 100
        assert len(probes["effective_dimension"]["d_0.8"]) == LLAMA.num_layers
    corpus = TokenCorpus(str(world["folder"] / "t"))
    there = corpus.num_sequences("bread", 32, "validation")
    numbers = np.arange(10) * there // 10
    tokens = torch.from_numpy(corpus.sequences("bread", numbers, 32, "validation"))
    wanted = plain_losses(world["model"], tokens).mean()
    assert found["bread"]["loss"]["nats_per_token"] == pytest.approx(wanted, rel=1e-5)
    assert "massive_activation: hidden" in (out / "report.html").read_text()


def test_what_cannot_be_right_is_refused_before_the_start(world, tmp_path):
    folder = world["folder"]
    with pytest.raises(BadInputError, match="perhaps you meant bread"):
        job(world, tmp_path, domains=("bred",)).plan()
    with pytest.raises(BadInputError, match="nothing to evaluate"):
        job(world, tmp_path, corpora=())
    with pytest.raises(BadInputError, match="no model at"):
        job(world, tmp_path, model=str(tmp_path)).plan()
    with pytest.raises(BadInputError, match="less than one sequence of 9000"):
        job(world, tmp_path, seq_len=8999).plan()
    write_corpus(tmp_path / "empty", domains=("none",), validation=0)
    with pytest.raises(BadInputError, match="domain none has 0 tokens in its validation split"):
        job(world, tmp_path, corpora=(str(tmp_path / "empty"),)).plan()
    write_model(tmp_path / "other", tokenizer=tokenizer_text(seed=5))
    with pytest.raises(BadInputError, match="tokenize the text with the model's"):
        job(world, tmp_path, model=str(tmp_path / "other")).plan()
    small = dataclasses.replace(LLAMA, vocab_size=300)
    write_model(tmp_path / "small", config=small, tokenizer="")
    with pytest.raises(BadInputError, match=r"ids up to 399, the model in .* vocabulary of 300"):
        job(world, tmp_path, model=str(tmp_path / "small")).plan()
    learned = dataclasses.replace(LLAMA, positions="learned")
    write_model(tmp_path / "learned", config=learned)
    with pytest.raises(BadInputError, match="more than the 48 learned positions"):
        job(world, tmp_path, model=str(tmp_path / "learned"), seq_len=64).plan()
    with pytest.raises(BadInputError, match="no probe named 'los'; perhaps you meant loss"):
        ProbeJob(model=str(folder / "m"), corpora=(str(folder / "t"),), probes=("los",))
    assert "tokens" in job(world, tmp_path).plan().text()


def test_a_training_runs_folder_says_its_vocabulary(world, tmp_path):
    write_model(tmp_path / "run" / "model", tokenizer="")
    run = job(world, tmp_path, model=str(tmp_path / "run"))
    assert "no tokenizer.json" in run.plan().text()  # so only the sizes were compared
    (tmp_path / "run" / "model" / "vocabulary.json").write_text(json.dumps({"sha256": "b" * 64}))
    with pytest.raises(BadInputError, match="has bbbbbbbbbbbb"):
        run.plan()


@pytest.mark.ray
def test_a_loss_that_is_no_number_is_an_error(world, tmp_path):
    from gristmill.models.lm import checkpoint

    broken = write_model(tmp_path / "m")
    with torch.no_grad():
        broken.norm.weight[0] = float("nan")
    checkpoint.save(broken, str(tmp_path / "m"))
    with pytest.raises(BadInputError, match="loss on bread is not finite"):
        run_job(job(world, tmp_path / "o", model=str(tmp_path / "m"), domains=("bread",)))


@pytest.mark.long
def test_a_killed_evaluation_goes_on_with_the_next_domain(world, tmp_path):
    out, log = tmp_path / "o", tmp_path / "log"
    write_corpus(tmp_path / "more", domains=tuple("abcdefgh"), validation=900)
    wanted = job(world, out, corpora=(str(tmp_path / "more"),), batch_size=1)
    from killing import markers

    kill_job_when(lambda: markers(out / ".work" / "scored") >= 2, wanted, log)
    first = {p.name: p.stat().st_mtime_ns for p in (out / "losses").glob("*.npy")}
    committed = {p.stem for p in (out / ".work" / "scored").glob("*.json")}
    assert committed and not (out / "DONE").exists()
    write_model(tmp_path / "m2", seed=1)
    (world["folder"] / "m" / "model.safetensors").rename(tmp_path / "kept")
    (tmp_path / "m2" / "model.safetensors").rename(world["folder"] / "m" / "model.safetensors")
    with pytest.raises(RunError, match="the model changed since this run began"):
        run_job(wanted)
    (tmp_path / "kept").rename(world["folder"] / "m" / "model.safetensors")
    assert finish_job(wanted, log)[0] == 0
    for domain in committed:
        assert (out / "losses" / f"{domain}.npy").stat().st_mtime_ns == first[f"{domain}.npy"]
    run_job(again := dataclasses.replace(wanted, out=str(tmp_path / "again")))
    assert results(out) == results(tmp_path / "again"), again.out
