"""How a proxy is trained: RegMix's settings for its models, lighter ones for the demo. No torch."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.presets import preset

MODEL_FILE = ".json"
VOCABULARY_MULTIPLE = 64
SIZES = ("steps", "batch_size", "seq_len", "micro_batch_size", "validation_sequences")
"""Whole numbers that a command line may change."""


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """The model and its training; the defaults are RegMix's (arXiv:2407.01492, released code)."""

    model: ModelConfig
    """What is trained; its vocabulary is the corpus's."""
    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 512
    """Sequences a step."""
    micro_batch_size: int = 16
    """Sequences computed at once."""
    seq_len: int = 2048
    """Tokens of a sequence."""
    lr: float = 4e-4
    """Learning rate, constant between the warm-up and the decay."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_steps: int = 0
    """Steps of linear decay to nothing at the end; RegMix has none."""
    beta1: float = 0.9
    """AdamW's."""
    beta2: float = 0.95
    """AdamW's."""
    weight_decay: float = 0.1
    """AdamW's, on all parameters."""
    clip: float = 1.0
    """Norm that gradients are cut to."""
    validation_sequences: int = 400
    """Sequences of each domain that its loss is the mean of, at most."""

    def __post_init__(self) -> None:
        for name in SIZES:
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.decay_steps <= self.steps:
            raise BadInputError(
                f"decay_steps ({self.decay_steps}) lies from 0 to steps ({self.steps})"
            )
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} must be above 0, not {getattr(self, name)}")

    @property
    def tokens(self) -> int:
        """Tokens that one proxy trains on."""
        return self.steps * self.batch_size * self.seq_len

    @property
    def flops(self) -> float:
        """Of one proxy's training, by PaLM's count."""
        return float(self.model.flops_per_token(self.seq_len)) * self.tokens

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / max(self.decay_steps, 1)
        rate = self.lr * min((step + 1) / max(self.warmup_steps, 1), 1.0)
        return rate * min(left, 1.0) if self.decay_steps else rate


LIGHT: dict[str, dict[str, int | float]] = {
    # One core, some 30 seconds: short sequences and a high rate, since so few tokens are seen. It
    # falls to nothing, since losses of different seeds then differ less.
    "demo": {
        "steps": 160,
        "batch_size": 8,
        "micro_batch_size": 8,
        "seq_len": 128,
        "lr": 4e-3,
        "warmup_steps": 12,
        "decay_steps": 120,
        "validation_sequences": 24,
    },
}
"""What presets other than RegMix's change."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How proxies are trained, as a command line says it; 0 leaves a number to the preset."""

    volatile_fields: ClassVar[tuple[str, ...]] = ("retries",)
    preset: str = "demo"
    """Model: demo, regmix-1m, regmix-60m, another preset, or a JSON file of ModelConfig fields."""
    steps: int = 0
    """Optimiser steps; 0: the preset's (RegMix: 1,000). The warm-up is at most a tenth of them, a
    decay at the end keeps its share."""
    batch_size: int = 0
    """Sequences a step; 0: the preset's (RegMix: 512)."""
    seq_len: int = 0
    """Tokens of a sequence; 0: the preset's (RegMix: 2,048)."""
    lr: float = 0.0
    """Learning rate after the warm-up; 0: the preset's (RegMix: 4e-4)."""
    micro_batch_size: int = 0
    """Sequences computed at once, which changes memory and speed; 0: the preset's (RegMix: 16)."""
    validation_sequences: int = 0
    """Sequences of each domain that its loss is the mean of, at most; 0: the preset's."""
    max_epochs: float = 4.0
    """A mixture that repeats a domain more often is refused before anything starts."""
    cpus_per_proxy: float = 1.0
    """CPUs of a proxy, which is also its number of threads."""
    gpus_per_proxy: float = 0.0
    """GPU of a proxy: 1, or a share of one, as 0.25, which lets four share it. 0: train on CPUs."""
    retries: int = 2
    """How often a proxy that raises, or whose process dies, is begun again."""

    def __post_init__(self) -> None:
        for name in (*SIZES, "lr", "retries", "gpus_per_proxy"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInputError(f"{name} must be 0 or more, not {getattr(self, name):g}")
        if self.gpus_per_proxy > 1:
            raise BadInputError(
                f"gpus_per_proxy is {self.gpus_per_proxy:g}: a proxy trains on one GPU; give 1, or "
                "a share of one"
            )
        for name in ("max_epochs", "cpus_per_proxy"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} must be above 0, not {getattr(self, name):g}")
        if self.preset.endswith(MODEL_FILE):
            object.__setattr__(self, "preset", io.absolute(self.preset))
        else:
            preset(self.preset)

    @property
    def threads(self) -> int:
        """CPU threads of a proxy."""
        return max(int(self.cpus_per_proxy), 1)

    @property
    def on_gpu(self) -> bool:
        """Whether proxies train on GPUs."""
        return self.gpus_per_proxy > 0

    def settings(self, vocab_size: int) -> ProxySettings:
        """All numbers, for a corpus's vocabulary: rows for other ids would never be used.

        Raises:
            BadInputError: The model's file is not one, or numbers do not fit together.
        """
        rows = -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        model = dataclasses.replace(_model(self.preset), vocab_size=rows)
        usual = LIGHT.get(self.preset, {})
        changed = {**usual}
        for name in (*SIZES, "lr"):
            if value := getattr(self, name):
                changed[name] = value
        if changed.get("decay_steps") and self.steps:  # the same share of the steps
            changed["decay_steps"] = int(usual["decay_steps"] * self.steps // usual["steps"])
        found = ProxySettings(model=model, **changed)  # type: ignore[arg-type]
        context = max(model.context_length, found.seq_len)
        return dataclasses.replace(
            found,
            model=dataclasses.replace(model, context_length=context),
            warmup_steps=min(found.warmup_steps, max(found.steps // 10, 1)),
            micro_batch_size=min(found.micro_batch_size, found.batch_size),
        )


def _model(name: str) -> ModelConfig:
    if not name.endswith(MODEL_FILE):
        return preset(name)
    fields = io.read_json(name)
    if not isinstance(fields, dict):
        raise BadInputError(f"{io.redact(name)} is no model: write an object of ModelConfig fields")
    try:
        return ModelConfig(**{"vocab_size": 1, **fields})
    except TypeError as error:
        raise BadInputError(f"{io.redact(name)} is no model: {error}") from error
