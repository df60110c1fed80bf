"""CLIP models, all of them open_clip's. The only door to `open_clip` for model building."""

import os
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError, MissingExtraError

if TYPE_CHECKING:
    import torch

CONFIG_SUFFIX = ".json"
MAX_CAPTION_BYTES = 64 << 10
"""A training drops captions that are longer; others read so many characters."""
MAX_WORD = 1000
"""Bytes of a word that are always read; open_clip's BPE takes quadratic time over a word. More are
read where the context is so long that the longest tokens could need them."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """Which CLIP: an architecture and where its weights lie."""

    arch: str
    """An open_clip architecture such as ViT-B-32, or one of ours (gristmill-demo)."""
    weights: str = ""
    """A weights file (.pt, .bin, .safetensors), a checkpoint of ours, or the folder of a
    `clip train` run, whose newest checkpoint is taken. Empty: random weights."""


@dataclass
class LoadedClip:
    """A model in eval mode with the transform and tokenizer that belong to it."""

    model: Any
    transform: Any
    """PIL image -> float tensor [3, H, W], open_clip's evaluation transform."""
    tokenizer: Any
    """list of str -> long tensor [B, context_length]."""
    device: "torch.device"
    weights_sha256: str
    """Of the weights file; empty for random weights."""


def register_configs() -> None:
    """Make our model configs known to open_clip. Each process that builds a model calls it once.

    Raises:
        MissingExtraError: open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError("open_clip_torch", "clip") from error
    with resources.as_file(resources.files("gristmill.models") / "clip_configs") as path:
        open_clip.add_model_config(path)


def check_arch(arch: str) -> None:
    """Refuse an architecture that open_clip does not know.

    Raises:
        BadInputError: Unknown name; the message lists near ones.
    """
    import difflib

    register_configs()
    import open_clip

    known = open_clip.list_models()
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=3)
        hint = f"; perhaps {' or '.join(near)}" if near else ""
        raise BadInputError(f"open_clip has no architecture {arch!r}{hint}")


def checkpoint_uri(weights: str) -> str:
    """The weights file a spec means: itself, or the newest checkpoint of a training run's folder.

    Raises:
        BadInputError: Nothing is there.
    """
    fs, path = io.filesystem(weights)
    if fs.isfile(path):
        return weights
    found = io.list_files(io.join(weights, "checkpoints"), ".pt")
    if not found:
        raise BadInputError(
            f"no weights at {io.redact(weights)}: neither a file nor a training run"
        )
    return max(found, key=_epoch_of)


def _epoch_of(uri: str) -> int:
    stem = os.path.basename(uri).removesuffix(".pt").rpartition("_")[2]
    return int(stem) if stem.isdigit() else -1


def load_clip(spec: ClipSpec, *, device: str = "") -> LoadedClip:
    """Build a model and load its weights, without running any code from the file.

    Args:
        spec: Architecture and weights.
        device: Such as `cpu` or `cuda`; empty means a GPU if there is one.

    Raises:
        BadInputError: Unknown architecture, or weights of another one.
        CorruptDataError: The weights file cannot be read.
    """
    check_arch(spec.arch)
    import open_clip
    import torch

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, _, transform = open_clip.create_model_and_transforms(
        spec.arch, pretrained=None, device=where, precision="fp32"
    )
    digest = ""
    if spec.weights:
        uri = checkpoint_uri(spec.weights)
        digest = io.sha256(uri)
        _load_state(model, uri, spec.arch)
    model.eval()
    return LoadedClip(model, transform, tokenizer_of(spec.arch), where, digest)


def tokenizer_of(arch: str) -> Any:
    """open_clip's tokenizer of an architecture, bounded in time for captions of any length."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = open_clip.get_tokenizer(arch)
    if isinstance(tokenizer, SimpleTokenizer):  # the others, of Hugging Face, are linear
        tokenizer.clean_fn = _BoundedClean(tokenizer)
    return tokenizer


class _BoundedClean:
    """A SimpleTokenizer's cleaning of a caption, leaving only as much as the tokens can show.

    Each word (the tokenizer's own kind: a run of letters or of signs, a digit) gives a token or
    more, and no token is longer than the longest in the vocabulary. So the end of a text, and of a
    word, may go once there are enough words or bytes for all tokens, and the tokens stay as they
    are; those of ordinary captions to the last, whatever their length up to MAX_CAPTION_BYTES.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._clean, self._words = tokenizer.clean_fn, tokenizer.pat
        # A mask that picks among all tokens needs them all.
        self._tokens = None if tokenizer.reduction_fn else tokenizer.context_length
        self._longest = max(map(len, tokenizer.encoder))
        self._most = max(MAX_WORD, self._longest * (self._tokens or 0))

    def __call__(self, text: str) -> str:
        text = self._clean(text[:MAX_CAPTION_BYTES])
        if len(text) <= MAX_WORD:
            return text
        words, num_bytes = [], 0
        for match in self._words.finditer(text):
            word = match.group().encode()[: self._most]
            words.append(word.decode(errors="ignore"))
            num_bytes += len(word)
            if self._tokens and max(len(words), num_bytes // self._longest) >= self._tokens:
                break
        return " ".join(words)


def _load_state(model: Any, uri: str, arch: str) -> None:
    state = read_state(uri)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[:3]
        raise BadInputError(f"{io.redact(uri)} does not fit {arch}: {' '.join(first)}") from error


def read_state(uri: str) -> dict[str, Any]:
    """The model's state dict from .safetensors, a bare .pt, or an open_clip checkpoint.

    Raises:
        CorruptDataError: The file is truncated, or would need pickle to read.
    """
    import pickle

    import torch

    try:
        if uri.endswith(".safetensors"):
            from safetensors.torch import load

            return dict(load(io.read_bytes(uri)))
        with io.open_read(uri) as file:
            data = torch.load(file, map_location="cpu", weights_only=True)
    except BadInputError:
        raise
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise CorruptDataError(f"cannot read weights {io.redact(uri)}: {error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise CorruptDataError(f"cannot read weights {io.redact(uri)}: {error}") from error
    state = data.get("state_dict", data) if isinstance(data, dict) else {}
    if not state:
        raise CorruptDataError(f"{io.redact(uri)} holds no weights")
    return {name.removeprefix("module."): value for name, value in state.items()}
