"""`gristmill lm train`: a language model on a mixture, as a job. Imports nothing heavy."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.corpora.mixture import NATURAL, UNIFORM, settled
from gristmill.execution.session import session
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.presets import read_model
from gristmill.training.lm.guard import Guard
from gristmill.training.lm.names import Precision
from gristmill.training.lm.placement import Placement
from gristmill.training.lm.schedule import Optimization

if TYPE_CHECKING:
    from gristmill.training.lm.loop import LmSpec
    from gristmill.training.lm.preflight import Checked

LOGGED_STEPS = 2000
"""Steps are logged so that a run leaves about this many lines."""
TENTH = 10
MOST_VALIDATION_SHARE = 0.1
"""Of a training's compute, unless told --validation-every."""
UNSET = ModelConfig(vocab_size=1, width=2, num_layers=1, num_heads=1, ffn_hidden=1)
"""A configuration not yet filled in."""


@dataclass(frozen=True, kw_only=True)
class TrainLmJob(Job):
    """Train a language model on the stream of a mixture; any kill can be resumed."""

    uri_fields: ClassVar[tuple[str, ...]] = ("init",)
    preset: Annotated[str, tyro.conf.Positional]
    """A preset (demo, regmix-1m, pangu-pi-1b, ...), or a model.json with a configuration."""
    corpora: tuple[str, ...]
    """Token corpora, made by `gristmill corpus tokenize`."""
    mixture: str = NATURAL
    """`natural` (by size), `uniform`, `name=weight,name=weight`, or a JSON file of weights."""
    steps: int = 0
    """Updates; or give --tokens."""
    tokens: int = 0
    """Tokens to train on, rounded up to whole steps; or give --steps."""
    batch_size: int = 64
    """Sequences a step, over all workers."""
    seq_len: int = 0
    """Tokens of a sequence; 0: the preset's context length."""
    max_epochs: float = 4.0
    """A training that would repeat a domain more often is refused."""
    seed: int = 0
    """Of the weights and of the order."""
    init: str = ""
    """Folder of a model to start from, ours or in Hugging Face's format, or DeepSpeed's universal
    checkpoint, whose moments are taken too; empty: fresh weights."""
    precision: Precision = "auto"
    """auto: bf16 on GPUs, fp32 on CPUs."""
    optimization: Optimization = field(default_factory=Optimization)
    """The optimizer and its rate."""
    guard: Guard = field(default_factory=Guard)
    """What to do about divergence."""
    validation_every: int = 0
    """Steps between validations; 0: a tenth of the training, or as many as keep their compute under
    a tenth of it. One follows the last step always."""
    validation_sequences: int = 64
    """Most sequences of each domain in a validation."""
    config: Annotated[ModelConfig, tyro.conf.Suppress] = UNSET
    """What the preset says; filled in, so that a changed preset is another job."""
    mixture_vocabulary: Annotated[str, tyro.conf.Suppress] = ""
    """Hash of the tokenizer that the mixture's file names, if it does; filled in."""
    execution: Placement = field(default_factory=Placement)
    """Where and how it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corpora:
            raise BadInputError("no corpora; give --corpora FOLDER ...")
        for name, least in (
            ("steps", 0), ("tokens", 0), ("batch_size", 1), ("seq_len", 0), ("seed", 0),
            ("validation_every", 0), ("validation_sequences", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise BadInputError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if bool(self.steps) == bool(self.tokens):
            raise BadInputError("give either --steps or --tokens")
        if not self.max_epochs > 0:
            raise BadInputError(f"max_epochs must be above 0, not {self.max_epochs}")
        if any(map(io.has_credentials, self.corpora)):
            raise BadInputError("a corpus carries a password or signature; use the environment")
        object.__setattr__(self, "corpora", tuple(map(io.absolute, self.corpora)))
        object.__setattr__(self, "mixture_vocabulary", _vocabulary_named(self.mixture, self))
        object.__setattr__(self, "mixture", settled(self.mixture))
        if self.config == UNSET:
            object.__setattr__(self, "config", read_model(self.preset))
        if self.execution.workers:
            self.execution.require_division(self.batch_size, self.execution.workers)

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence."""
        return self.seq_len or self.config.context_length

    @property
    def num_steps(self) -> int:
        """Updates in all."""
        return self.steps or -(-self.tokens // (self.batch_size * self.sequence_length))

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        return self.execution.checkpoint_every or max(self.num_steps // TENTH, 1)

    def steps_between_validations(self, checked: "Checked") -> int:
        """As told; else a tenth, or more where so few steps cost less than their validation."""
        if self.validation_every:
            return self.validation_every
        sequences = checked.validation_sequences(self.validation_sequences)
        # a forward pass costs a third of a step's forward and backward
        least = math.ceil(sequences / (3 * MOST_VALIDATION_SHARE * self.batch_size))
        return max(self.num_steps // TENTH, least, 1)

    def plan(self) -> Plan:
        """Steps, tokens, epochs, memory, time and disk; refuses what would fail."""
        from gristmill.training.lm.plan import make_plan

        return make_plan(self)

    def execute(self, run: Run) -> None:
        """Train, or resume, to the last step; then keep the model and report."""
        from gristmill.training.lm import checkpoint
        from gristmill.training.lm.conclusion import conclude
        from gristmill.training.lm.plan import require_room
        from gristmill.training.lm.preflight import check

        checked = check(self)
        require_room(self, run.uri)
        pin_input(run, "corpora", checked.corpus.identity())
        folder = run.path(checkpoint.FOLDER)
        done = checkpoint.steps_done(folder)[-1:]
        if done:
            checkpoint.read_manifest(folder, done[0], model=self.config)
        if done != [self.num_steps]:
            with session(self.execution.session()):
                self._train(run, checked)
        conclude(self, run, checked)

    def _train(self, run: Run, checked: "Checked") -> None:
        from gristmill.training.lm.launch import launch, ranks_of
        from gristmill.training.lm.records import Recorder, boards_of
        from gristmill.training.ranks import tell_of_waiting

        num_workers, use_gpu = ranks_of(self.execution)
        self.execution.require_division(self.batch_size, num_workers)
        bf16 = self.precision == "bf16" or (self.precision == "auto" and use_gpu)
        boards = boards_of(run) if self.execution.tensorboard else None
        run.log(
            kind="run",  # again after a kill, perhaps on other machines
            precision="bf16" if bf16 else "fp32",
            engine=self.execution.engine,
            device="gpu" if use_gpu else "cpu",
            steps=self.num_steps,
        )
        least = self.execution.min_workers or num_workers
        tell_of_waiting(run, least, use_gpu=use_gpu)
        recorder = Recorder(
            run,
            f"train {self.preset}",
            steps=self.num_steps,
            step_tokens=self.batch_size * self.sequence_length,
            boards=boards,
        )
        try:
            launch(
                self.spec(run, checked, bf16=bf16),
                self.execution,
                name="lm-train",
                num_workers=num_workers,
                use_gpu=use_gpu,
                on_record=recorder,
            )
        finally:
            recorder.close()

    def spec(self, run: Run, checked: "Checked", *, bf16: bool) -> "LmSpec":
        """What the ranks need."""
        from gristmill.training.lm import checkpoint
        from gristmill.training.lm.engine import EngineSpec
        from gristmill.training.lm.loop import LmSpec

        where = self.execution
        return LmSpec(
            model=self.config,
            init=self.init,
            corpora=self.corpora,
            mixture=dict(checked.mixture.weights),
            seq_len=self.sequence_length,
            batch_size=self.batch_size,
            steps=self.num_steps,
            seed=self.seed,
            engine=EngineSpec(
                name=where.engine,
                bf16=bf16,
                offload=where.offload,
                micro_batch_size=where.most_at_once(self.batch_size),
                micro_batches=1,
                optimization=self.optimization,
            ),
            recompute=where.recompute,
            compile=where.compile,
            attention_kernel=where.attention_kernel,
            guard=self.guard,
            validation_every=self.steps_between_validations(checked),
            validation_sequences=self.validation_sequences,
            log_every=max(1, self.num_steps // LOGGED_STEPS),
            checkpoints=run.path(checkpoint.FOLDER),
            checkpoint_every=self.checkpoint_every,
            checkpoint_minutes=where.minutes_between_checkpoints,
            keep_checkpoints=where.keep_checkpoints,
        )


def _vocabulary_named(mixture: str, job: TrainLmJob) -> str:
    """The tokenizer's hash in a mixture's file, where a search has written it."""
    if mixture in (NATURAL, UNIFORM) or not mixture.endswith(".json"):
        return job.mixture_vocabulary
    data: Any = io.read_json(mixture)
    return str(data.get("vocabulary", "")) if isinstance(data, dict) else ""
