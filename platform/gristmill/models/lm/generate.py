"""The generate job: text from a saved model and its tokenizer."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.core import io
from gristmill.core.config import config_hash
from gristmill.core.errors import BadInputError, CorruptDataError, MissingExtraError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run

TOKENIZER = "tokenizer.json"
TEXTS = "texts.jsonl"


@dataclass(frozen=True, kw_only=True)
class GenerateJob(Job):
    """Continue a prompt with a language model."""

    always_anew: ClassVar[bool] = True
    uri_fields: ClassVar[tuple[str, ...]] = ("model", "tokenizer")
    model: str
    """Folder of a model: model.json and model.safetensors, or config.json of a Llama."""
    tokenizer: str = ""
    """A tokenizer.json; empty: the one in the model's folder."""
    prompt: str = ""
    """Text to continue; empty starts from the tokenizer's begin or end-of-text token."""
    num_texts: int = 1
    """Continuations, each with a choice of its own."""
    max_new_tokens: int = 128
    """Most tokens to add."""
    temperature: float = 0.8
    """0 takes the likeliest token at each step."""
    top_k: int = 0
    """Choose among the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens that together reach this probability."""
    seed: int = 0
    """Of the choice."""
    device: str = ""
    """Such as cuda; empty: a GPU if there is one."""
    out: str = ""
    """Folder for texts.jsonl; empty: one of its own under runs/."""

    def __post_init__(self) -> None:
        for name in ("num_texts", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not self.out:
            plain = dataclasses.replace(self, out="runs/lm-generate")
            object.__setattr__(self, "out", f"{plain.out}-{config_hash(plain)[:8]}")
        super().__post_init__()

    def plan(self) -> Plan:
        """Model and tokens."""
        from gristmill.models.lm import checkpoint

        uri = io.join(self.model, checkpoint.WEIGHTS)
        size = io.size_bytes(uri) if io.exists(uri) else 0
        return Plan(
            title=f"{self.num_texts} texts of up to {self.max_new_tokens} tokens",
            reads=[(f"the model in {io.redact(self.model)}", size)],
            writes=[(f"{TEXTS}, {REPORT}", 0)],
        )

    def execute(self, run: Run) -> None:
        """Load, generate, print and keep."""
        import torch

        from gristmill.models.lm.sampling import Sampling, generate

        uri = self.tokenizer or io.join(self.model, TOKENIZER)
        tokenizer = read_tokenizer(uri)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = load_any(self.model, device=device)
        ids, stop = prompt_ids(tokenizer, self.prompt), end_of_text(tokenizer)
        how = Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        prompts = torch.tensor([ids], device=device).repeat(self.num_texts, 1)
        rows = generate(
            model,
            prompts,
            max_new_tokens=self.max_new_tokens,
            sampling=how,
            seed=self.seed,
            stop_token=stop,
        ).tolist()
        texts = [tokenizer.decode(row) for row in rows]
        lines = [
            json.dumps({"prompt": self.prompt, "text": text, "tokens": row})
            for text, row in zip(texts, rows, strict=True)
        ]
        io.write_bytes(run.path(TEXTS), ("\n".join(lines) + "\n").encode())
        run.add_output(TEXTS)
        for text in texts:
            print(text, end="\n\n")
        page = Report(title="Generated text", subtitle=io.redact(self.model))
        page.table("Texts", ("prompt", "text"), [(self.prompt, text) for text in texts])
        page.save(run.path(REPORT))


def load_any(folder: str, *, device: str) -> Any:
    """A model of ours, or one in Hugging Face's format."""
    from gristmill.models.lm import checkpoint, hugging_face

    if io.exists(io.join(folder, checkpoint.CONFIG)):
        return checkpoint.load(folder, device=device)
    if io.exists(io.join(folder, hugging_face.CONFIG)):
        return hugging_face.read(folder, device=device)
    raise BadInputError(
        f"no model at {io.redact(folder)}: it has neither {checkpoint.CONFIG} "
        f"nor {hugging_face.CONFIG}"
    )


def read_tokenizer(uri: str) -> Any:
    """A tokenizer from its JSON file.

    Raises:
        BadInputError: There is no such file.
        CorruptDataError: It is no tokenizer.
        MissingExtraError: The tokenizers package is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "lm") from error
    data = io.read_bytes(uri)
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare Exception
        raise CorruptDataError(f"{io.redact(uri)} is not a tokenizer: {error}") from error


SPECIAL = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<s>", "<bos>")
"""Names of the token that ends a text, then of the one that begins it."""


def end_of_text(tokenizer: Any) -> int:
    """The id of the token that ends a text; -1 if there is none."""
    found = (tokenizer.token_to_id(name) for name in SPECIAL[:4])
    return next((i for i in found if i is not None), -1)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The prompt's tokens; for an empty one the token that begins or ends texts.

    Raises:
        BadInputError: An empty prompt, and the tokenizer has no such token.
    """
    if ids := tokenizer.encode(prompt).ids:
        return list(ids)
    for name in (*SPECIAL[4:], *SPECIAL[:4]):
        if (special := tokenizer.token_to_id(name)) is not None:
            return [special]
    raise BadInputError("the prompt has no tokens and the tokenizer no begin token; give --prompt")
