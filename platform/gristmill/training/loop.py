"""What every rank runs: the training from its first step, or its newest checkpoint, to its last.

In the order of `main` and `train_one_epoch` of open_clip_train, so that the two can be read side by
side. Knows nothing of Ray: `post` carries records to whoever started it.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from open_clip_train.data import SharedEpoch

from gristmill.core.errors import RunError
from gristmill.execution.hosting import fault_point
from gristmill.training import checkpoint, clip
from gristmill.training.clip import Trainee
from gristmill.training.data import StreamSpec, make_loader
from gristmill.training.drops import REASONS, Drops
from gristmill.training.place import Place, never
from gristmill.training.scales import Scale
from gristmill.training.step import Batch, Stepper
from gristmill.training.steps import Steps

Post = Callable[[dict[str, Any]], None]
"""Takes a record. When it returns from an `epoch` record, all records so far must be safe: the
checkpoint written next is where a resume takes up the metrics too."""
NOTICE_STEPS = 10
"""Every so many steps the ranks ask whether a machine will be taken away: at the same steps, since
the answer must be the same for all."""


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """All that a rank needs to know; the same for every rank."""

    scale: Scale
    seed: int
    precision: str
    """Resolved: never `auto`."""
    accum_freq: int
    grad_clip_norm: float | None
    steps: Steps
    stream: StreamSpec
    data_name: str
    """What to call the data in messages."""
    checkpoints: str
    """Folder URI."""
    keep_checkpoints: int
    comparable: bool
    notice: Callable[[], bool] = never
    """Whether a machine of this training will soon be taken away; all ranks get the same answer."""


def train(spec: TrainSpec, place: Place, post: Post) -> None:
    """Train to the end. Records go to `post` on rank 0: `start`, `step`, `epoch`, `saved` kinds.

    On a notice the training is saved where it stands. Whoever resumes there draws the epoch's
    batches from their start, without training on those that were had, and goes on with the same.

    Raises:
        BadInputError: The data has nothing usable.
        RunError: The loss is no longer a number.
        CorruptDataError: The newest checkpoint cannot be read.
    """
    trainee = clip.build(spec.scale, place, spec.steps, seed=spec.seed, precision=spec.precision)
    begin = _resume(spec, trainee, place)
    first, had = divmod(begin, spec.steps.per_epoch)
    tell: Post = post if place.rank == 0 else lambda _: None
    tell({"kind": "start", "epoch": first, "step": begin})
    epoch_now = SharedEpoch(first)
    drops = Drops(spec.data_name, len(spec.stream.shards))
    loader = make_loader(
        spec.stream,
        transform=trainee.transform,
        tokenizer=trainee.tokenizer,
        epoch=epoch_now,
        drops=drops,
    )
    dropped = torch.zeros(len(REASONS) + 1, dtype=torch.long)
    for epoch in range(first, spec.steps.epochs):
        epoch_now.set_value(epoch)
        batches = iter(loader)  # draws the loader's seed, so before the reseeding
        if epoch:
            clip.random_seed(spec.seed + epoch * place.world_size, place.rank)
        batches = _guarded(batches, drops)
        for _ in range(had * spec.accum_freq):
            next(batches)
        _epoch(spec, epoch, trainee, place, batches, tell, had=had)
        had = 0
        totals = _sum_over_ranks(torch.tensor(drops.totals()), place)
        tell({"kind": "epoch", "epoch": epoch, **_drop_figures(totals - dropped)})
        dropped = totals
        if place.rank == 0:  # the others go on, and wait for it in their next gradient
            checkpoint.save(
                spec.checkpoints, epoch + 1, _content(spec, trainee), keep=spec.keep_checkpoints
            )
            tell({"kind": "saved", "epoch": epoch})
        fault_point(f"epoch:{epoch}:{place.rank}")


def _epoch(
    spec: TrainSpec,
    epoch: int,
    trainee: Trainee,
    place: Place,
    batches: Iterator[Batch],
    tell: Post,
    *,
    had: int,
) -> None:
    stepper = Stepper(trainee, place, precision=spec.precision, grad_clip_norm=spec.grad_clip_norm)
    clock = _Clock(spec.steps, first_step=spec.steps.per_epoch * epoch + had)
    saved = False
    trainee.model.train()
    for i in range(had, spec.steps.per_epoch):
        step = spec.steps.per_epoch * epoch + i
        trainee.set_learning_rate(step)
        clock.start_data()
        group = [stepper.to_device(next(batches)) for _ in range(spec.accum_freq)]
        clock.end_data()
        loss = stepper.step(group)
        if step % spec.steps.log_every == 0 or i + 1 == spec.steps.per_epoch:
            value = loss.item()
            if not math.isfinite(value):
                raise diverged(value, step, spec)
            seen = (step + 1) * spec.steps.batch_size
            tell(
                {"kind": "step", "step": step, "epoch": epoch, "samples_seen": seen, "loss": value}
                | _optimizer_figures(trainee)
                | clock.figures(step)
            )
        fault_point(f"step:{step}:{place.rank}")
        if (i + 1) % NOTICE_STEPS == 0 and not saved and spec.notice():
            saved = True
            _save_step(spec, step + 1, trainee, place, tell)
    for _ in batches:  # what is left when batches do not divide by accum_freq goes unused
        pass


def _save_step(spec: TrainSpec, done: int, trainee: Trainee, place: Place, tell: Post) -> None:
    """Save after so many steps; only as many ranks as now can resume there."""
    if place.rank or done % spec.steps.per_epoch == 0:
        return  # the end of an epoch is saved anyway
    record = {"kind": "saved", "epoch": done // spec.steps.per_epoch - 1, "step": done}
    tell({**record, "written": False})  # what a resume keeps of the metrics must be there
    content = {**_content(spec, trainee), "world_size": place.world_size}
    checkpoint.save_step(spec.checkpoints, done, content)
    tell({**record, "written": True})


def diverged(value: float, step: int, spec: TrainSpec) -> RunError:
    """The error for a loss that is no number."""
    return RunError(
        f"the loss is {value} at step {step} (checked every {spec.steps.log_every}); "
        f"learning rate {spec.scale.learning_rate:g}, precision {spec.precision}: "
        "lower the rate, set --grad-clip-norm, or look for bad data, and start with --overwrite"
    )


class _Clock:
    """Rates since the last record, and the time left at the pace so far."""

    def __init__(self, steps: Steps, *, first_step: int) -> None:
        self._steps = steps
        self._begin = self._last = time.monotonic()
        self._first_step = self._last_step = first_step - 1
        self._data = self._data_from = 0.0

    def start_data(self) -> None:
        self._data_from = time.monotonic()

    def end_data(self) -> None:
        self._data += time.monotonic() - self._data_from

    def figures(self, step: int) -> dict[str, float]:
        """Rates up to a step that has just ended."""
        now = time.monotonic()
        window = max(now - self._last, 1e-9)
        done = step - self._last_step
        pace = (now - self._begin) / (step - self._first_step)
        share = min(self._data / window, 1.0)
        self._last, self._last_step, self._data = now, step, 0.0
        return {
            "samples_per_second": round(done * self._steps.batch_size / window, 2),
            "data_seconds_share": round(share, 4),
            "seconds_left": round(pace * (self._steps.total - step - 1), 1),
        }


def _optimizer_figures(trainee: Trainee) -> dict[str, float]:
    return {
        "lr": trainee.optimizer.param_groups[0]["lr"],
        "logit_scale": math.exp(trainee.bare.logit_scale.item()),
    }


def _guarded(batches: Iterator[Batch], drops: Drops) -> Iterator[Batch]:
    """The same batches; when the loader gave up, its reason in place of its traceback."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception:
            if drops.gave_up():
                raise drops.error() from None
            raise
        yield batch


def _resume(spec: TrainSpec, trainee: Trainee, place: Place) -> int:
    """Load the newest checkpoint, if any; steps done. Rank 0 looks, so that all agree."""
    found = [_newest(spec, place)] if place.rank == 0 else [(0, 0)]
    if place.world_size > 1:
        torch.distributed.broadcast_object_list(found, src=0)
    epoch, step = found[0]
    if not epoch and not step:
        return 0
    load = checkpoint.load_step if step else checkpoint.load
    state = load(spec.checkpoints, step or epoch)
    trainee.bare.load_state_dict(state["state_dict"])
    trainee.optimizer.load_state_dict(state["optimizer"])
    if trainee.scaler is not None and "scaler" in state:
        trainee.scaler.load_state_dict(state["scaler"])
    return step or epoch * spec.steps.per_epoch


def _newest(spec: TrainSpec, place: Place) -> tuple[int, int]:
    """Epochs done, and steps done if a checkpoint within the epoch after them fits."""
    epoch = max(checkpoint.epochs_done(spec.checkpoints), default=0)
    step = checkpoint.step_done(spec.checkpoints)
    if step <= epoch * spec.steps.per_epoch:
        return epoch, 0
    # Another number of ranks would draw other batches.
    same = checkpoint.load_step(spec.checkpoints, step)["world_size"] == place.world_size
    return epoch, step if same else 0


def _content(spec: TrainSpec, trainee: Trainee) -> dict[str, Any]:
    """open_clip's checkpoint (weights without DDP's prefix), and what says how it came about."""
    content = {
        "name": f"{spec.scale.name}_scale",
        "state_dict": trainee.bare.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "comparable": spec.comparable,
        "scale": dataclasses.asdict(spec.scale),
        "precision": spec.precision,
        "seed": spec.seed,
    }
    if trainee.scaler is not None:
        content["scaler"] = trainee.scaler.state_dict()
    return content


def _sum_over_ranks(counts: torch.Tensor, place: Place) -> torch.Tensor:
    if place.world_size == 1:
        return counts
    moved = counts.to(place.device)
    torch.distributed.all_reduce(moved)
    return moved.cpu()


def _drop_figures(counts: torch.Tensor) -> dict[str, Any]:
    *drops, good = counts.tolist()
    return {"loaded": good, "dropped": dict(zip(REASONS, drops, strict=True))}
