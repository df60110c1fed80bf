"""The loop of a language model's training, in this process and on two ranks."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
from lm_training import (
    MODEL,
    losses,
    of_kind,
    orders,
    spec_for,
    train_here,
    train_ranks,
    write_small_tokens,
)
from torch._dynamo.testing import CompileCounter

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.corpora.stream import validation_batch
from gristmill.corpora.tokens import TokenCorpus
from gristmill.training.lm import checkpoint, loop
from gristmill.training.lm.guard import Guard
from gristmill.training.lm.loop import train
from gristmill.training.place import Place


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_small_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted training, its records and its checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    return train_here(spec_for(corpus, folder)), folder


def states(folder, step=24):
    manifest = checkpoint.read_manifest(str(folder), step, model=MODEL)
    return dict(checkpoint.read_states(str(folder), step, manifest)), manifest


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(getattr(one[n], k), getattr(other[n], k))
        for n in one for k in ("param", "exp_avg", "exp_avg_sq")
    )  # fmt: skip


def test_the_loss_falls_and_every_domain_is_validated(whole):
    records, _ = whole
    found = losses(records)
    assert list(found) == list(range(24))
    assert found[23] < found[0] - 0.3
    first, last = of_kind(records, "validation")
    assert first["step"] == 12 and last["step"] == 24
    assert sorted(last["loss"]) == ["one", "three", "two"]
    assert all(last["loss"][d] < first["loss"][d] for d in last["loss"])
    assert of_kind(records, "step")[-1]["mfu"] == "unknown device"


def test_a_resume_gives_the_very_same_run(whole, corpus, tmp_path):
    records, folder = whole
    shutil.copytree(folder / "step-00000008", tmp_path / "step-00000008")
    (tmp_path / "step-00000016").mkdir()
    (tmp_path / "step-00000016" / "state-00000-of-00001.safetensors").write_bytes(b"begun")
    again = train_here(spec_for(corpus, tmp_path))
    assert of_kind(again, "start")[0]["step"] == 8
    expected = {s: v for s, v in losses(records).items() if s >= 8}
    assert losses(again) == expected
    assert orders(again)[23] == orders(records)[23]
    assert same(states(folder)[0], states(tmp_path)[0])
    assert states(folder)[1]["progress"] == states(tmp_path)[1]["progress"]


def test_micro_batches_and_recomputation_change_nothing_but_rounding(whole, corpus, tmp_path):
    records, _ = whole
    other = train_here(spec_for(corpus, tmp_path, micro=5, recompute=True))
    for step, loss in losses(records).items():
        assert losses(other)[step] == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("world", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_more_ranks_read_the_same_and_learn_the_same(whole, corpus, tmp_path, world):
    """Five do not divide the batch of 12: some rows are empty, as an elastic run may have it."""
    records, _ = whole
    [found] = train_ranks(world, [spec_for(corpus, tmp_path)])
    assert orders(found) == orders(records)
    for step, loss in losses(records).items():
        assert losses(found)[step] == pytest.approx(loss, abs=1e-5)
    last, expected = of_kind(found, "validation")[-1], of_kind(records, "validation")[-1]
    assert last["loss"] == pytest.approx(expected["loss"], abs=1e-4)
    mine, theirs = states(tmp_path)[1], states(whole[1])[1]
    assert len(mine["files"]) == world
    assert mine["progress"]["drawn"] == theirs["progress"]["drawn"]


def test_the_order_is_another_for_another_seed_or_text(whole, corpus, tmp_path):
    other = train_here(spec_for(corpus, tmp_path / "a", seed=4, steps=1))
    assert orders(other)[0] != orders(whole[0])[0]
    changed = write_small_tokens(tmp_path / "t", train=20_001)
    other = train_here(spec_for(changed, tmp_path / "b", steps=1))
    assert orders(other)[0] != orders(whole[0])[0]


def test_a_notice_is_saved_at_once_and_gone_on_from(whole, corpus, tmp_path, monkeypatch):
    """Checkpoints come every 8 steps; the notice is there when it is asked for the third time."""
    monkeypatch.setattr(loop, "NOTICE_SECONDS", 0.0)
    asked = []

    def notice():
        asked.append(True)
        return len(asked) == 3

    place = Place(rank=0, world_size=1, device=torch.device("cpu"))
    records = []

    def post(record):
        records.append(record)
        if record["kind"] == "step" and record["step"] == 6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(spec_for(corpus, tmp_path), place, post, notice=notice)
    assert len(asked) == 3, "once saved, it asks no more"
    [said] = of_kind(records, "notice")
    assert said["step"] == 3
    again = train_here(spec_for(corpus, tmp_path))
    assert of_kind(again, "start")[0]["step"] == 3
    expected = {s: v for s, v in losses(whole[0]).items() if s >= 3}
    assert losses(again) == expected
    assert orders(again)[23] == orders(whole[0])[23]
    assert same(states(whole[1])[0], states(tmp_path)[0])


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_share_their_graphs(recompute):
    """Of shapes of which the batch changes: with gradients and without, first fixed and then not."""
    torch._dynamo.reset()
    counter = CompileCounter()
    config = dataclasses.replace(MODEL, num_layers=5, series=2, shortcuts=1)
    model, plain = config.build(seed=1), config.build(seed=1)
    model.recompute_blocks = recompute
    loop.compile_blocks(model, backend=counter)
    for rows in (4, 4, 2, 3):
        tokens = torch.randint(0, MODEL.vocab_size, (rows, 17))
        losses = [m(tokens[:, :-1], tokens[:, 1:]) for m in (model, plain)]
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(*losses)
        with torch.no_grad():
            model(tokens[:, :-1], tokens[:, 1:])
    assert counter.frame_count == 4, "not one for each of five blocks"
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_only_so_many_checkpoints_are_kept(corpus, tmp_path):
    train_here(spec_for(corpus, tmp_path, checkpoint_every=5, keep_checkpoints=2))
    assert checkpoint.steps_done(str(tmp_path)) == [20, 24]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020", "step-00000024"]


def test_a_checkpoint_is_never_older_than_told(whole, corpus, tmp_path):
    spec = spec_for(corpus, tmp_path, checkpoint_every=0, checkpoint_minutes=1e-9)
    records = train_here(spec)
    assert checkpoint.steps_done(str(tmp_path)) == list(range(1, 25))
    assert losses(records) == losses(whole[0])


def test_checkpoints_on_an_object_store(whole, corpus, bucket):
    train_here(spec_for(corpus, f"{bucket}/run"))
    for step in ("step-00000016", "step-00000024"):
        io.remove(f"{bucket}/run/{step}/checkpoint.json")
    again = train_here(spec_for(corpus, f"{bucket}/run"))
    assert of_kind(again, "start")[0]["step"] == 8
    assert losses(again)[23] == losses(whole[0])[23]


def test_a_prefixs_targets_count_in_no_loss(corpus, tmp_path):
    """A validation loss is the mean over the targets that the model is to say."""
    model = dataclasses.replace(MODEL, prefix=9)
    records = train_here(spec_for(corpus, tmp_path, model=model, steps=1, validation_every=1))
    manifest = checkpoint.read_manifest(str(tmp_path), 1, model=model)
    trained = model.build()
    for name, state in checkpoint.read_states(str(tmp_path), 1, manifest):
        trained.get_parameter(name).data.copy_(state.param)
    for domain, found in of_kind(records, "validation")[-1]["loss"].items():
        rows = validation_batch(TokenCorpus(corpus), domain, seq_len=16, count=5)
        tokens = torch.from_numpy(rows)
        with torch.no_grad():
            assert found == pytest.approx(float(trained(tokens[:, :-1], tokens[:, 1:])), abs=1e-5)


# -- divergence ------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch):
    """Makes the loss of chosen steps of the stream come out wrong."""

    def arrange(positions, factor):
        real = loop.Trainer._gradients

        def gradients(self, tokens):
            if self.now.position in positions:
                forward = self.engine.forward
                monkeypatch.setattr(self.engine, "forward", lambda r: forward(r) * factor)
                try:
                    return real(self, tokens)
                finally:
                    monkeypatch.setattr(self.engine, "forward", forward)
            return real(self, tokens)

        monkeypatch.setattr(loop.Trainer, "_gradients", gradients)

    return arrange


@pytest.mark.parametrize(
    ("factor", "why"), [(math.nan, "the loss is nan"), (40.0, "after a mean of")]
)
def test_a_bad_step_is_left_out_and_said(broken, corpus, tmp_path, factor, why):
    broken({10}, factor)
    spec = spec_for(corpus, tmp_path, guard=Guard(spike_window=8), checkpoint_every=1)
    records = train_here(spec)
    [said] = of_kind(records, "guard")
    assert (said["step"], said["position"], said["action"]) == (10, 10, "skip")
    assert why in said["why"]
    before, after = (states(tmp_path, step)[0] for step in (10, 11))
    assert same(before, after)
    assert states(tmp_path)[1]["progress"]["applied"] == 23
    assert len(losses(records)) == 24


def test_bad_steps_in_a_row_set_it_back_and_pass_over_their_data(broken, corpus, tmp_path):
    broken({10, 11, 12}, math.nan)
    records = train_here(spec_for(corpus, tmp_path, guard=Guard(max_bad_steps=2)))
    [back] = of_kind(records, "rewind")
    assert (back["from_step"], back["step"], back["position"]) == (12, 8, 13)
    assert [r["action"] for r in of_kind(records, "guard")] == ["skip", "skip", "rewind"]
    progress = states(tmp_path)[1]["progress"]
    assert (progress["step"], progress["position"], progress["rewinds"]) == (24, 29, 1)
    assert sum(progress["drawn"].values()) == 29 * 12
    assert progress["applied"] == 24


def test_it_ends_when_it_diverges_again_and_again(broken, corpus, tmp_path):
    broken(set(range(10, 99)), math.nan)
    guard = Guard(on_bad_step="rewind", max_rewinds=2)
    with pytest.raises(RunError, match="diverged at step 8: the loss is nan, after 2 rewinds"):
        train_here(spec_for(corpus, tmp_path, guard=guard))
    with pytest.raises(RunError, match="before its first checkpoint"):
        train_here(spec_for(corpus, tmp_path / "b", guard=guard, checkpoint_every=0))


# -- broken checkpoints ----------------------------------------------------------------------------


def test_a_truncated_checkpoint_is_refused_by_name(whole, corpus, tmp_path):
    shutil.copytree(whole[1] / "step-00000008", tmp_path / "step-00000008")
    file = tmp_path / "step-00000008" / "state-00000-of-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptDataError, match=r"state-00000.*should have.*remove .*step-00000008"):
        train_here(spec_for(corpus, tmp_path))


@pytest.mark.parametrize("place", [9, -100])
def test_a_damaged_checkpoint_of_the_right_size_is_refused(whole, corpus, tmp_path, place):
    """A byte of the header, and one of a weight."""
    shutil.copytree(whole[1] / "step-00000008", tmp_path / "step-00000008")
    file = tmp_path / "step-00000008" / "state-00000-of-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"state-00000.* is damaged.*remove .*step-00000008"):
        train_here(spec_for(corpus, tmp_path))


def test_a_truncated_manifest_is_refused_by_name(whole, corpus, tmp_path):
    shutil.copytree(whole[1] / "step-00000008", tmp_path / "step-00000008")
    file = tmp_path / "step-00000008" / "checkpoint.json"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptDataError, match=r"checkpoint.json is not JSON.*remove .*00000008"):
        train_here(spec_for(corpus, tmp_path))


def test_a_checkpoint_damaged_on_an_object_store_is_refused(whole, corpus, bucket):
    for file in (whole[1] / "step-00000008").iterdir():
        data = bytearray(file.read_bytes())
        data[-3] ^= file.suffix == ".safetensors"
        io.write_bytes(f"{bucket}/run/step-00000008/{file.name}", bytes(data))
    with pytest.raises(CorruptDataError, match=r"is damaged.*remove .*step-00000008"):
        train_here(spec_for(corpus, f"{bucket}/run"))


def test_a_checkpoint_of_another_model_is_refused(whole, corpus):
    wider = dataclasses.replace(MODEL, width=64)
    with pytest.raises(BadInputError, match=r"another model .*width: 32 -> 64"):
        train_here(spec_for(corpus, whole[1], model=wider, steps=30))


def test_manifests_are_plain_json(whole):
    text = (whole[1] / "step-00000024" / "checkpoint.json").read_text()
    assert json.loads(text)["progress"]["step"] == 24
