"""Weights in, eval model out; nothing from a weights file is ever run."""

import json
import pickle

import pytest

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.models.clip import (
    ClipSpec,
    check_arch,
    checkpoint_uri,
    load_clip,
    read_state,
    tokenizer_of,
)

ARCH = "tiny-clip-for-models"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def arch(tmp_path_factory):
    import open_clip

    folder = tmp_path_factory.mktemp("config")
    (folder / f"{ARCH}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    return ARCH


@pytest.fixture
def weights(tmp_path):
    """A checkpoint as open_clip writes it on several GPUs: with DDP's prefix."""
    import open_clip
    import torch

    torch.manual_seed(7)
    model = open_clip.create_model(ARCH)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_weights_transform_and_tokenizer_come_together(weights):
    import torch
    from PIL import Image

    clip = load_clip(ClipSpec(arch=ARCH, weights=str(weights)), device="cpu")
    image = clip.transform(Image.new("RGB", (50, 40)))[None]
    captions = clip.tokenizer(["a red box", "sky"])
    assert image.shape == (1, 3, 32, 32)
    assert captions.shape == (2, 8)
    assert not clip.model.training
    assert clip.weights_sha256 == io.sha256(str(weights))
    expected = torch.load(weights, weights_only=True)["state_dict"]["module.logit_scale"]
    assert clip.model.logit_scale.item() == expected.item()


def test_random_weights_have_no_hash():
    assert load_clip(ClipSpec(arch=ARCH), device="cpu").weights_sha256 == ""


def test_safetensors_are_read(weights, tmp_path):
    import torch
    from safetensors.torch import save_file

    state = read_state(str(weights))
    save_file(state, tmp_path / "w.safetensors")
    again = read_state(str(tmp_path / "w.safetensors"))
    assert all(torch.equal(state[name], again[name]) for name in state)
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CorruptDataError, match=r"w\.safetensors"):
        read_state(str(tmp_path / "w.safetensors"))


def test_an_unknown_architecture_lists_near_ones():
    with pytest.raises(BadInputError, match="ViT-B-32"):
        check_arch("ViT-B-33")


def test_weights_of_another_architecture_are_refused(weights):
    with pytest.raises(BadInputError, match="does not fit RN50"):
        load_clip(ClipSpec(arch="RN50", weights=str(weights)), device="cpu")


def test_truncated_and_empty_weights_are_named(weights, tmp_path):
    import torch

    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptDataError, match=r"weights\.pt"):
        read_state(str(weights))
    torch.save({"state_dict": {}}, tmp_path / "none.pt")
    with pytest.raises(CorruptDataError, match="holds no weights"):
        read_state(str(tmp_path / "none.pt"))


def test_code_in_a_weights_file_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    with open(tmp_path / "evil.pt", "wb") as file:
        pickle.dump({"state_dict": Bomb()}, file)
    with pytest.raises(CorruptDataError):
        read_state(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "pwned").exists()


def test_a_runs_folder_means_its_newest_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for epoch in (1, 2, 10):
        (folder / f"epoch_{epoch}.pt").touch()
    (folder / ".epoch_11.pt.ab.tmp").touch()
    assert checkpoint_uri(str(tmp_path)).endswith("epoch_10.pt")
    assert checkpoint_uri(str(folder / "epoch_2.pt")).endswith("epoch_2.pt")
    with pytest.raises(BadInputError, match="neither a file nor a training run"):
        checkpoint_uri(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a photo of a dog",
        "it's <end_of_text> they'll !'s " * 100,
        "漢字テスト、" * 400,
        "日本" * 1200,
        "1234567890" * 300,
        "ha" * 1200,
        "word " * 5000,
        "&#97;&amp; ſ's " * 200,
        "Antidisestablishmentarianism" * 60,
    ],
)
def test_bounded_tokens_are_open_clips(caption):
    import open_clip
    import torch

    for arch in ("ViT-B-32", ARCH):
        theirs, ours = open_clip.get_tokenizer(arch), tokenizer_of(arch)
        assert torch.equal(theirs([caption]), ours([caption]))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["a", "xq", "漢", "!", "&#97;"])
def test_a_caption_of_a_megabyte_takes_no_time(piece):
    tokenizer = load_clip(ClipSpec(arch=ARCH), device="cpu").tokenizer
    assert tokenizer([piece * (1_000_000 // len(piece))]).shape == (1, 8)
