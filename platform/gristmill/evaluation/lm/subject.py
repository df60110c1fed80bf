"""The model that is evaluated: what pins it, and whether a corpus is of its tokens."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.corpora.domains import require_known
from gristmill.corpora.tokenizer import FILE, content_hash, read_tokenizer
from gristmill.corpora.tokens import TokenCorpus
from gristmill.models.lm.config import ModelConfig

if TYPE_CHECKING:
    from gristmill.models.lm.decoder import Decoder

IN_RUN = "model"
"""Where a training run keeps its last model."""
VOCABULARY = "vocabulary.json"
"""What training writes beside a model: the hash of the tokenizer that its corpora had."""
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model's folder, as far as it can be told without loading the weights."""

    uri: str
    config: ModelConfig
    tokenizer: str
    """URI of its tokenizer.json; empty when it has none."""
    tokenizer_sha256: str
    """The hash that token corpora are pinned by; empty when nothing says it."""
    files: dict[str, str]
    """SHA-256 of configuration and weights, by name."""

    @property
    def sha256(self) -> str:
        """One hash of all files."""
        text = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What pins the model."""
        return {"uri": io.redact(self.uri), "files": self.files}

    def require_fits(self, corpus: TokenCorpus) -> None:
        """Refuse a corpus whose ids mean something else to the model.

        Raises:
            BadInputError: It has another tokenizer, or ids beyond the model's embedding.
        """
        found, vocabulary = self.tokenizer_sha256, corpus.vocabulary
        if found and found != vocabulary.sha256:
            raise BadInputError(
                f"the corpus has the tokenizer {vocabulary.sha256[:12]}, the model in "
                f"{io.redact(self.uri)} has {found[:12]}; tokenize the text with the model's "
                f"{FILE}"
            )
        if vocabulary.size > self.config.vocab_size:
            raise BadInputError(
                f"the corpus has ids up to {vocabulary.size - 1:,}, the model in "
                f"{io.redact(self.uri)} a vocabulary of {self.config.vocab_size:,}; "
                "it was trained with another tokenizer"
            )


def subject_of(uri: str, tokenizer: str = "") -> Subject:
    """Read what is in a model's folder, ours or in Hugging Face's format; not its weights.

    Args:
        uri: The folder, or that of a training run.
        tokenizer: A tokenizer.json or its folder, instead of the one beside the model.

    Raises:
        BadInputError: It holds no model.
    """
    from gristmill.models.lm import checkpoint, hugging_face

    if not io.exists(io.join(uri, checkpoint.CONFIG)) and io.exists(
        io.join(uri, IN_RUN, checkpoint.CONFIG)
    ):
        uri = io.join(uri, IN_RUN)
    if io.exists(io.join(uri, checkpoint.CONFIG)):
        config = checkpoint.read_config(uri)
    elif io.exists(io.join(uri, hugging_face.CONFIG)):
        config = hugging_face.read_config(uri)
    else:
        raise BadInputError(
            f"no model at {io.redact(uri)}: it has neither {checkpoint.CONFIG} "
            f"nor {hugging_face.CONFIG}"
        )
    if tokenizer and not tokenizer.endswith(".json"):
        tokenizer = io.join(tokenizer, FILE)
    beside = io.join(uri, FILE)
    found = tokenizer or (beside if io.exists(beside) else "")
    return Subject(
        uri=uri,
        config=config,
        tokenizer=found,
        tokenizer_sha256=_hash_of(uri, found, given=bool(tokenizer)),
        files=model_files(uri),
    )


def _hash_of(uri: str, tokenizer: str, *, given: bool) -> str:
    said = io.join(uri, VOCABULARY)
    if not given and io.exists(said):
        return str(io.read_json(said)["sha256"])
    return content_hash(read_tokenizer(tokenizer)) if tokenizer else ""


def model_files(uri: str) -> dict[str, str]:
    """SHA-256 of a model's configuration and weights, by name."""
    from gristmill.models.lm import checkpoint, hugging_face

    ours = io.exists(io.join(uri, checkpoint.CONFIG))
    names = [checkpoint.CONFIG if ours else hugging_face.CONFIG]
    names += [name.rpartition("/")[2] for name in io.list_files(uri, ".safetensors")]
    return {name: io.sha256(io.join(uri, name)) for name in names}


def check_uris(uris: tuple[str, ...]) -> tuple[str, ...]:
    """URIs as a job keeps them: absolute, without credentials.

    Raises:
        BadInputError: One carries a password or signature.
    """
    for uri in uris:
        if io.has_credentials(uri):
            raise BadInputError(
                f"{io.redact(uri)} carries a password or signature, which would be stored with "
                "the run; give credentials through the environment or the machine's role"
            )
    return tuple(io.absolute(uri) for uri in uris)


def open_corpus(uris: tuple[str, ...], domains: tuple[str, ...]) -> tuple[TokenCorpus, list[str]]:
    """Token corpora and the domains that are meant: those named, or all.

    Raises:
        BadInputError: No such corpus or domain.
    """
    corpus = TokenCorpus(*uris)
    require_known(domains, corpus.domains, "the token corpora")
    return corpus, sorted(set(domains)) or list(corpus.domains)


def length_of(config: ModelConfig, seq_len: int) -> int:
    """Tokens of a sequence: those asked for, or the model's context.

    Raises:
        BadInputError: The model has fewer learned positions.
    """
    limit = config.context_length
    if config.positions == "learned" and seq_len > limit:
        raise BadInputError(f"seq_len {seq_len} is more than the {limit} learned positions")
    return seq_len or limit


def load_on_device(uri: str, *, gpu: bool) -> "Decoder":
    """The model, in eval mode, on the GPU if there is one for it."""
    from gristmill.models.lm.generate import load_any

    model: Decoder = load_any(uri, device="cuda" if gpu else "cpu")
    return model


def autocast(device: str, precision: Precision) -> Any:
    """The context of a forward pass: bf16 on a GPU and fp32 on a CPU, unless one is asked for."""
    import torch

    bf16 = precision == "bf16" or (precision == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16, enabled=bf16)
