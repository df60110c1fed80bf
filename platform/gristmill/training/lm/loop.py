"""What every rank runs: from the first step, or the newest checkpoint, to the last.

Everything but weights and moments is a function of the step (rate, data, random numbers) or lies in
`Progress`. Knows nothing of Ray: `post` carries records to whoever started it.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gristmill.core.config import to_dict
from gristmill.core.errors import RunError
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.hosting import fault_point
from gristmill.models.lm.config import AttentionKernel, ModelConfig
from gristmill.training.lm import batches, checkpoint
from gristmill.training.lm.checkpoint import Progress
from gristmill.training.lm.clock import Clock
from gristmill.training.lm.engine import (
    EngineSpec,
    ParamState,
    make_engine,
    shares,
    trained_parameters,
    with_micro_batches,
)
from gristmill.training.lm.guard import Guard
from gristmill.training.lm.universal import is_universal, read_universal, updates_applied
from gristmill.training.lm.validation import Validation
from gristmill.training.place import Place, never

NOTICE_SECONDS = 2.0
"""How often the ranks ask whether a machine will be taken away; all wait for each other then."""
Post = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class LmSpec:
    """All that a rank needs to know; the same for every rank."""

    model: ModelConfig
    init: str
    """Folder of a model to start from; empty: a fresh one, from the seed."""
    corpora: tuple[str, ...]
    mixture: Mapping[str, float]
    seq_len: int
    batch_size: int
    steps: int
    seed: int
    engine: EngineSpec
    recompute: bool
    compile: bool
    attention_kernel: AttentionKernel
    guard: Guard
    validation_every: int
    validation_sequences: int
    log_every: int
    checkpoints: str
    checkpoint_every: int
    checkpoint_minutes: float
    keep_checkpoints: int


def train(spec: LmSpec, place: Place, post: Post, *, notice: Callable[[], bool] = never) -> None:
    """Train to the end. Records go to `post` on rank 0: start, step, validation, guard, saved.

    `notice` says whether a machine of this training will soon be taken away, the same to all ranks
    when each has asked; then a checkpoint is written at once, and training goes on.

    Raises:
        BadInputError: Corpus, mixture or checkpoint cannot be right.
        CorruptDataError: The newest checkpoint cannot be read.
        RunError: The loss diverged again and again.
    """
    Trainer(spec, place, post, notice=notice).run()


class Trainer:
    """One rank's training."""

    def __init__(
        self, spec: LmSpec, place: Place, post: Post, *, notice: Callable[[], bool] = never
    ) -> None:
        self.spec, self.place = spec, place
        self._notice, self._noticed = notice, False
        self._asked, self._unasked = time.monotonic(), 0.0
        self._saved, self._unsaved = time.monotonic(), 0.0
        self._tell: Post = post if place.rank == 0 else lambda _: None
        corpus = TokenCorpus(*spec.corpora)
        stream = TokenStream(
            corpus,
            Mixture(weights=spec.mixture),
            seq_len=spec.seq_len,
            batch_size=spec.batch_size,
            seed=spec.seed,
        )
        self._domains = stream.domains
        rows = batches.rows_per_rank(spec.batch_size, place.world_size)
        engine = with_micro_batches(spec.engine, rows)
        self.engine = make_engine(build_model(spec, place), engine, place)
        self._batches = batches.Batches(stream, place)
        self._validation = Validation(
            corpus, spec.seq_len, spec.validation_sequences, engine.micro_batch_size, place
        )
        sizes = {name: math.prod(shape) for name, shape in shapes_of(spec.model).items()}
        self._mine = shares(sizes, place.world_size)[place.rank]
        self._writer = checkpoint.Writer(
            spec.checkpoints,
            rank=place.rank,
            world_size=place.world_size,
            keep=spec.keep_checkpoints,
            post=self._tell,
        )
        self._targets = spec.batch_size * (spec.seq_len - spec.model.hidden_targets)
        self._clock = Clock(spec, place)

    # -- the whole -----------------------------------------------------------------------------

    def run(self) -> None:
        """Resume, then step by step."""
        self.now = self._resume()
        self._tell({"kind": "start", "world_size": self.place.world_size, **self._marks()})
        self._clock.start(self.now.step)
        while self.now.step < self.spec.steps:
            if self._step():
                step, last = self.now.step, self.now.step == self.spec.steps
                fault_point(f"step:{step}:{self.place.rank}")
                if last or self._due(self.spec.validation_every):
                    self._validate()
                due = last or self._due(self.spec.checkpoint_every) or self._old()
                if due or self._given_notice():
                    self._save()
        self._batches.close()
        self._writer.close()
        if self.place.world_size > 1:
            torch.distributed.barrier()  # no rank ends while another still writes

    def _due(self, every: int) -> bool:
        return bool(every) and self.now.step % every == 0

    def _old(self) -> bool:
        """Whether the last checkpoint is, by the mean of the ranks' clocks: the same to all."""
        seconds = 60 * self.spec.checkpoint_minutes
        return bool(seconds) and self._unsaved >= seconds * self.place.world_size

    def _given_notice(self) -> bool:
        """Whether a notice came; true once. Every rank asks after the same steps."""
        if self._noticed or self._unasked < NOTICE_SECONDS * self.place.world_size:
            return False
        self._noticed, self._asked = self._notice(), time.monotonic()
        if self._noticed:
            self._tell({"kind": "notice", "step": self.now.step})
        return self._noticed

    def _marks(self) -> dict[str, Any]:
        return {"step": self.now.step, "position": self.now.position, "events": self.now.events}

    # -- one step ------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Take a step; False when it ended in a rewind."""
        now, spec = self.now, self.spec
        torch.manual_seed(spec.seed * 1_000_003 + now.position * 1009 + self.place.rank)
        self._clock.start_data()
        rows = self._batches.at(now.position)
        self._clock.end_data()
        loss, fault = self._gradients(rows.tokens)
        lr = spec.engine.optimization.rate(now.step, spec.steps, spec.batch_size)
        norm = self.engine.step(lr)
        if not fault and not math.isfinite(norm):
            fault = f"the norm of the gradient is {norm}"
        self._count(rows)
        if fault and self._bad(fault, loss):
            return False
        now.skipped += bool(fault)
        if not fault:
            now.recent = [*now.recent, loss][-spec.guard.spike_window :]
            now.bad_steps, now.applied = 0, now.applied + 1
        step, now.step, now.position = now.step, now.step + 1, now.position + 1
        if step % spec.log_every == 0 or now.step == spec.steps:
            figures = self._clock.figures(now.step)
            self._tell(
                {"kind": "step", "step": step, "loss": _plain(loss), "lr": lr,
                 "grad_norm": _plain(norm), "order": now.order,
                 "tokens": now.step * spec.batch_size * spec.seq_len, **figures}
            )  # fmt: skip
        return True

    def _gradients(self, tokens: torch.Tensor) -> tuple[float, str]:
        """Forward and backward over the micro-batches; the global loss and what is wrong with it.

        The last backward waits for the losses of all ranks, so that all discard a bad step.
        """
        pieces = tokens.split(self.engine.spec.micro_batch_size)
        self.engine.train(True)
        total, value, fault = torch.zeros((), dtype=torch.float64), 0.0, ""
        for i, piece in enumerate(pieces):
            piece = piece.to(self.place.device, non_blocking=True)
            loss = self.engine.forward(piece) / self._targets
            last = i + 1 == len(pieces)
            total = total.to(loss.device) + loss.detach()
            if last:
                at = time.monotonic()
                mine = [total.item(), at - self._asked, at - self._saved]
                sums = batches.sum_over_ranks(mine, torch.float64, self.place)
                value, self._unasked, self._unsaved = sums
                fault = self.spec.guard.fault(value, self.now.recent)
            self.engine.backward(loss, last=last, discard=bool(fault))
        return value, fault

    def _count(self, rows: batches.Rows) -> None:
        """Into the order's hash and the ledger, what all ranks read."""
        mine = [batches.signed(rows.digest), *rows.drawn]
        digest, *drawn = batches.sum_over_ranks(mine, torch.int64, self.place)
        self.now.order = batches.chained(self.now.order, digest)
        for domain, count in zip(self._domains, drawn, strict=True):
            self.now.drawn[domain] = self.now.drawn.get(domain, 0) + count

    # -- what may come of a step ---------------------------------------------------------------

    def _bad(self, fault: str, loss: float) -> bool:
        """Act on a bad step; True when the training was set back."""
        now = self.now
        now.bad_steps += 1
        action = self.spec.guard.action(now.bad_steps)
        self._tell(
            {"kind": "guard", "event": now.events, "step": now.step, "position": now.position,
             "loss": _plain(loss), "why": fault, "action": action}
        )  # fmt: skip
        now.events += 1
        if action == "skip":
            return False
        if action == "stop" or now.rewinds >= self.spec.guard.max_rewinds:
            raise RunError(
                f"the training diverged at step {now.step}: {fault}, after {now.rewinds} rewinds; "
                "lower --lr, set --clip, or look for bad data"
            )
        self._rewind()
        return True

    def _rewind(self) -> None:
        """Back to the newest checkpoint; the data since then are passed over."""
        self._writer.wait()
        before = self.now
        self.now = self._resume()
        if self.now.step == 0:
            raise RunError(
                f"the training diverged at step {before.step}, before its first checkpoint; lower "
                "--lr or --checkpoint-every"
            )
        self.now.position = before.position + 1
        self.now.rewinds, self.now.events = before.rewinds + 1, before.events
        self.now.drawn = before.drawn  # read is read
        self._tell({"kind": "rewind", "from_step": before.step, **self._marks()})
        self._clock.start(self.now.step)

    def _validate(self) -> None:
        with self._clock.paused():
            losses = self._validation.losses(self.engine)
        self._tell({"kind": "validation", "step": self.now.step, "loss": losses})

    def _save(self) -> None:
        about = {"model": to_dict(self.spec.model), "world_size": self.place.world_size}
        with self._clock.paused():
            self._writer.save(self.engine, self._mine, copy.deepcopy(self.now), about)
        self._saved = time.monotonic()

    def _resume(self) -> Progress:
        """The newest checkpoint into the engine. Rank 0 looks, so that all agree."""
        found = [0]
        if self.place.rank == 0:
            checkpoint.sweep(self.spec.checkpoints)
            found = checkpoint.steps_done(self.spec.checkpoints)[-1:] or [0]
        if self.place.world_size > 1:
            torch.distributed.broadcast_object_list(found, src=0, device=self.place.device)
        if not found[0]:
            return self._begin()
        folder = self.spec.checkpoints
        manifest = checkpoint.read_manifest(folder, found[0], model=self.spec.model)
        progress = Progress(**manifest["progress"])
        states = checkpoint.read_states(folder, found[0], manifest)
        self.engine.restore(states, progress.applied)
        return progress

    def _begin(self) -> Progress:
        """At step 0; a universal checkpoint brings moments along."""
        applied, source = 0, self.spec.init
        if is_universal(source):
            applied = updates_applied(source, self.spec.model)
            self.engine.restore(read_universal(source, self.spec.model), applied)
        elif source and self.engine.rounds_start:
            given = trained_parameters(read_start(self.spec, "cpu"))
            self.engine.restore(((name, state_of(value)) for name, value in given.items()), 0)
        return Progress(order=batches.ORDER_START, applied=applied)


def build_model(spec: LmSpec, place: Place) -> Any:
    """The model where it starts: on this rank's device, or on the CPU for ZeRO-3 to cut up."""
    device = "cpu" if spec.engine.name == "zero3" else str(place.device)
    if spec.init and not is_universal(spec.init):
        model = read_start(spec, device)
    else:
        model = spec.model.build(device=device, seed=spec.seed)
    model.recompute_blocks, model.kernel = spec.recompute, spec.attention_kernel
    if spec.compile and place.device.type == "cuda" and spec.engine.name != "zero3":
        compile_blocks(model)
    return model


def compile_blocks(model: Any, **options: Any) -> None:
    """torch.compile each block, which makes one graph for all.

    Compiled whole, a backward is one piece that gives all gradients at once, and ZeRO 2 holds them.
    """
    for block in model.blocks:
        block.compile(**options)


def read_start(spec: LmSpec, device: str) -> Any:
    """The model to start from, in float32."""
    from gristmill.models.lm import checkpoint as model_folder
    from gristmill.models.lm import hugging_face

    load = hugging_face.read if hugging_face.is_one(spec.init) else model_folder.load
    model = load(spec.init, device=device, expect=spec.model).float()
    model.tie()
    return model


def state_of(param: torch.Tensor) -> ParamState:
    """Of a parameter that has had no update."""
    none = torch.zeros_like(param)
    return ParamState(param=param.detach(), exp_avg=none, exp_avg_sq=none)


def shapes_of(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of every parameter, without making it."""
    made = model.build(device="meta")
    return {name: tuple(value.shape) for name, value in made.named_parameters()}


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
