"""The loop without Ray: resume, checkpoints, drops, divergence."""

import contextlib
import errno
import io

import pytest
from PIL import Image
from training_shards import picture_bytes, write_shards, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.training import checkpoint, drops


def weights(folder, epoch):
    return checkpoint.load(str(folder), epoch)["state_dict"]


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_resumed_training_goes_on_as_the_undisturbed_one(
    train_here, losses, shards, tmp_path, loader_workers
):
    import torch

    how = {"samples": 240, "epochs": 3, "loader_workers": loader_workers}
    whole = losses(train_here(shards, checkpoints=tmp_path / "a", **how))
    middle = len(whole) // 2
    with pytest.raises(InterruptedError):
        train_here(shards, checkpoints=tmp_path / "b", stop_after=middle, **how)
    assert checkpoint.epochs_done(str(tmp_path / "b")) == [1]
    records = train_here(shards, checkpoints=tmp_path / "b", **how)
    assert records[0]["epoch"] == 1
    rest = losses(records)
    assert min(rest) == len(whole) // 3
    assert rest == {step: whole[step] for step in rest}  # to the last bit
    a, b = weights(tmp_path / "a", 3), weights(tmp_path / "b", 3)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("loader_workers", "accum"),
    [
        (0, 1),
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(0, 2, marks=pytest.mark.slow),
    ],
)
def test_a_notice_is_saved_within_the_epoch_and_gone_on_from(
    train_here, losses, shards, tmp_path, loader_workers, accum
):
    import torch

    how = {"samples": 960, "epochs": 2, "loader_workers": loader_workers, "accum": accum}
    whole = losses(train_here(shards, checkpoints=tmp_path / "a", **how))
    asked = []

    def notice():
        asked.append(True)
        return len(asked) >= 2

    with pytest.raises(InterruptedError):
        train_here(shards, checkpoints=tmp_path / "b", stop_after=23, notice=notice, **how)
    assert len(asked) == 2, "once saved, it asks no more"
    assert (tmp_path / "b" / "step_20.pt").exists()
    records = train_here(shards, checkpoints=tmp_path / "b", **how)
    assert (records[0]["epoch"], records[0]["step"]) == (0, 20)
    rest = losses(records)
    assert min(rest) == 20
    assert rest == {step: whole[step] for step in rest}  # to the last bit
    a, b = weights(tmp_path / "a", 2), weights(tmp_path / "b", 2)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not (tmp_path / "b" / "step_20.pt").exists(), "the epoch's checkpoint replaces it"
    assert [r["kind"] for r in records].count("epoch") == 2


@pytest.fixture
def captions_of(shards):
    """The captions that the loader yields, in order: one list an epoch."""
    import torch
    from open_clip_train.data import SharedEpoch

    from gristmill.training.clip import random_seed
    from gristmill.training.data import StreamSpec, make_loader
    from gristmill.training.shards import resolve

    def read(*, epochs=1, seed=0, loader_workers=0):
        spec = StreamSpec(
            shards=tuple(shard.uri for shard in resolve(str(shards))[0].shards),
            weights=None,
            micro_batch_size=10,
            loader_batches=8 // max(1, loader_workers),
            loader_workers=loader_workers,
            seed=seed,
        )
        epoch = SharedEpoch(0)
        random_seed(seed, 0)
        loader = make_loader(
            spec,
            transform=lambda _: torch.zeros(1),
            tokenizer=lambda text: [text],
            epoch=epoch,
            drops=drops.Drops("here", len(spec.shards)),
        )
        found = []
        for number in range(epochs):
            epoch.set_value(number)
            found.append([text for _, texts in loader for text in texts])
        return found

    return read


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_epochs_see_different_samples_in_a_different_order(captions_of, loader_workers):
    first, second = captions_of(epochs=2, loader_workers=loader_workers)
    assert len(first) == len(second) == 80
    assert sorted(first) != sorted(second)
    common = set(first) & set(second)
    assert len(common) > 10
    once = [[t for t in dict.fromkeys(epoch) if t in common] for epoch in (first, second)]
    assert once[0] != once[1]


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_the_seed_chooses_the_samples(captions_of, loader_workers):
    zero, one = (captions_of(seed=seed, loader_workers=loader_workers) for seed in (0, 1))
    assert captions_of(seed=0, loader_workers=loader_workers) == zero
    assert sorted(zero[0]) != sorted(one[0])


def test_gradient_checkpointing_leaves_the_losses_alone(train_here, losses, shards, tmp_path):
    kept = losses(train_here(shards, samples=80, checkpoints=tmp_path / "a"))
    again = losses(
        train_here(shards, samples=80, checkpoints=tmp_path / "b", grad_checkpointing=False)
    )
    assert kept == pytest.approx(again, abs=1e-6)


def test_a_checkpoint_loads_in_open_clip_and_says_what_it_is(train_here, shards, tmp_path):
    import open_clip
    import torch

    train_here(shards, samples=64, epochs=2, checkpoints=tmp_path)
    data = torch.load(tmp_path / "epoch_2.pt", weights_only=True)
    assert data["epoch"] == 2
    assert data["scale"]["model"] == "tiny-vit"
    assert data["comparable"] is False
    model, _, _ = open_clip.create_model_and_transforms(
        "tiny-vit", pretrained=str(tmp_path / "epoch_2.pt")
    )
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in data["state_dict"].items())


def test_keep_removes_older_checkpoints(train_here, shards, tmp_path):
    train_here(shards, samples=96, epochs=3, keep=2, checkpoints=tmp_path)
    assert checkpoint.epochs_done(str(tmp_path)) == [2, 3]


def test_a_broken_checkpoint_is_named(train_here, shards, tmp_path):
    (tmp_path / "epoch_1.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CorruptDataError, match=r"epoch_1\.pt"):
        train_here(shards, samples=64, epochs=2, checkpoints=tmp_path)


def test_half_written_checkpoints_do_not_count(tmp_path):
    (tmp_path / ".epoch_2.pt.abc.tmp").write_bytes(b"half")
    (tmp_path / "epoch_1.pt").write_bytes(b"whole")
    assert checkpoint.epochs_done(str(tmp_path)) == [1]


def test_records_say_rate_and_time_left(train_here, shards):
    records = train_here(shards, samples=64, epochs=2)
    steps = [r for r in records if r["kind"] == "step"]
    assert [r["step"] for r in steps] == [0, 1, 2, 3]
    assert [r["samples_seen"] for r in steps] == [16, 32, 48, 64]
    assert all(r["samples_per_second"] > 0 and 0 <= r["data_seconds_share"] <= 1 for r in steps)
    assert steps[-1]["seconds_left"] == 0
    assert [r["epoch"] for r in records if r["kind"] == "epoch"] == [0, 1]


def test_a_loss_that_is_no_number_ends_it_and_names_the_step(train_here, shards):
    with pytest.raises(RunError, match=r"loss is nan at step \d+.*learning rate"):
        train_here(shards, samples=320, learning_rate=1e30, warmup=1)


def test_a_full_disk_comes_out_of_torch_as_such(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextlib.contextmanager
    def full(_uri):
        yield Full()

    monkeypatch.setattr(checkpoint.io, "open_write", full)
    import torch

    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(str(tmp_path), 1, {"state_dict": {"a": torch.zeros(10)}}, keep=0)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.timeout(120)
@pytest.mark.parametrize("loader_workers", [0, 1])
def test_captions_without_end_are_counted_and_cost_no_time(train_here, tmp_path, loader_workers):
    folder = write_shards(tmp_path / "long", count=2)
    long = {
        "a.jpg": picture_bytes(),
        "a.txt": b"a" * (1 << 20),
        "b.jpg": picture_bytes(),
        "b.txt": b"b" * 60_000,
    }
    write_tar(folder / "00000002.tar", long)
    records = train_here(folder, samples=320, loader_workers=loader_workers)
    epoch = next(r for r in records if r["kind"] == "epoch")
    assert epoch["dropped"]["bad_caption"] > 0
    assert sum(epoch["dropped"].values()) == epoch["dropped"]["bad_caption"]


def bomb():
    """A PNG of 400 Mpixels in 50 kB."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def dirty(tmp_path):
    """Good shards beside one of each defect."""
    folder = write_shards(tmp_path / "dirty", count=3)
    bad = {
        "a.jpg": picture_bytes(),  # no caption
        "b.txt": b"no picture",
        "c.jpg": b"\xff\xd8 broken",
        "c.txt": b"broken picture",
        "d.jpg": picture_bytes(),
        "d.txt": b"\xff\xfe\xff not UTF-8",
        "e.png": bomb(),
        "e.txt": b"a bomb",
        "f.jpg": picture_bytes(),
        "f.txt": b"a good one with a member nobody may unpickle",
        "f.pyd": b"cos\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.",
    }
    write_tar(folder / "00000003.tar", bad)
    whole = (folder / "00000002.tar").read_bytes()
    (folder / "00000004.tar").write_bytes(whole[: len(whole) // 2 + 100])
    return folder


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_drops_are_counted_by_reason(train_here, dirty, tmp_path, loader_workers):
    records = train_here(dirty, samples=1600, batch=100, epochs=2, loader_workers=loader_workers)
    epochs = [r for r in records if r["kind"] == "epoch"]
    for epoch in epochs:
        assert set(epoch["dropped"]) == set(drops.REASONS)
        assert all(count > 0 for count in epoch["dropped"].values()), epoch
        assert 800 <= epoch["loaded"] < 1400
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("loader_workers", [0, 1])
@pytest.mark.parametrize("kind", ["no_caption", "bad_image"])
def test_nothing_usable_is_an_error_not_a_hang(
    train_here, tmp_path, monkeypatch, loader_workers, kind
):
    members = {f"{i}.jpg": picture_bytes() for i in range(50)}
    if kind == "bad_image":
        members = {f"{i}.{e}": b"junk" for i in range(50) for e in ("jpg", "txt")}
    write_tar(tmp_path / "bad" / "0.tar", members)
    monkeypatch.setattr(drops, "GIVE_UP_AFTER", 500)
    with pytest.raises(BadInputError, match=f"no sample in .*bad has both.*500 {kind}"):
        train_here(tmp_path / "bad", loader_workers=loader_workers)


def test_tars_without_members_are_an_error_not_a_hang(train_here, tmp_path):
    for i in range(2):
        write_tar(tmp_path / "empty" / f"{i}.tar", {})
    with pytest.raises(BadInputError, match="all its tars are empty"):
        train_here(tmp_path / "empty")


def test_whole_shards_are_not_called_broken_and_one_feeds_many_loaders(train_here, tmp_path):
    one = write_shards(tmp_path / "one", count=1)
    records = train_here(one, samples=64, loader_workers=3)
    epoch = next(r for r in records if r["kind"] == "epoch")
    assert set(epoch["dropped"].values()) == {0}


def test_weights_choose_the_folder(train_here, tmp_path):
    good = write_shards(tmp_path / "good", count=2)
    write_tar(tmp_path / "bad" / "0.tar", {"a.jpg": picture_bytes()})
    records = train_here(f"{good}::{tmp_path / 'bad'}", data_weights="1::0", samples=64)
    epoch = next(r for r in records if r["kind"] == "epoch")
    assert epoch["dropped"]["no_caption"] == 0
    records = train_here(f"{good}::{tmp_path / 'bad'}", samples=64, checkpoints=tmp_path / "second")
    epoch = next(r for r in records if r["kind"] == "epoch")
    assert epoch["dropped"]["no_caption"] > 0
