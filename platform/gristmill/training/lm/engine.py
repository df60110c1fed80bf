"""What takes the steps: plain torch here, DeepSpeed in deepspeed_engine.py, behind one contract.

The loss of a micro-batch is its share of the global batch's mean, so what the ranks and micro-
batches compute is to be summed, however many they are. A step is discarded by a gradient that is no
number, which the guard brings about on purpose (`backward(..., discard=True)`): every optimizer
must refuse such a gradient anyway, sharded or not.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gristmill.models.lm.decoder import Decoder, Head
from gristmill.models.lm.positions.t5_relative import T5Relative
from gristmill.training.lm.batches import inputs_and_targets
from gristmill.training.lm.names import EngineName
from gristmill.training.lm.schedule import Optimization
from gristmill.training.place import Place

if TYPE_CHECKING:
    from gristmill.models.lm.loss import Reduction


MOMENTS = ("exp_avg", "exp_avg_sq")
DECAYING = (torch.nn.Linear, torch.nn.Embedding, Head)
"""Layers whose weight decays."""
BUCKET_NUMBERS = 1 << 24
"""Gradients summed at once, 64 MiB in float32: enough that a step's many small ones cost little."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """How the steps are computed; nothing here is meant to change a result."""

    name: EngineName
    bf16: bool
    offload: bool
    """Optimizer states in the host's memory (ZeRO 1 to 3)."""
    micro_batch_size: int
    """Sequences at once."""
    micro_batches: int
    """To a step, on each rank."""
    optimization: Optimization


@dataclass(frozen=True, kw_only=True)
class ParamState:
    """One parameter, whole, in float32, with its moments."""

    param: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def named(self, name: str) -> dict[str, Tensor]:
        """As files keep them."""
        return {f"{kind}/{name}": getattr(self, kind) for kind in ("param", *MOMENTS)}


class Engine(ABC):
    """A model and its optimizer."""

    rounds_start = False
    """Whether it keeps the weights that it was given rounded to bf16, as ZeRO does under bf16."""

    def __init__(self, model: Decoder, spec: EngineSpec, place: Place) -> None:
        self.model, self.spec, self.place = model, spec, place

    @abstractmethod
    def forward(self, rows: Tensor, *, reduction: "Reduction" = "sum") -> Tensor:
        """Cross entropy of token ids [n, T + 1]."""

    @abstractmethod
    def backward(self, loss: Tensor, *, last: bool, discard: bool = False) -> None:
        """Add a micro-batch's gradient; the last of a step sums over the ranks.

        Args:
            loss: Its share of the global mean.
            last: Whether it ends the step.
            discard: Whether the step must come to nothing.
        """

    @abstractmethod
    def step(self, lr: float) -> float:
        """Update the weights, unless the gradient is no number; its norm before clipping."""

    @abstractmethod
    def capture(self, mine: frozenset[str]) -> Iterator[tuple[str, ParamState]]:
        """States of the parameters named, as copies on the CPU. All ranks call it together."""

    @abstractmethod
    def restore(self, states: Iterator[tuple[str, ParamState]], applied: int) -> None:
        """Take every parameter's state, all on each rank in the same order.

        Args:
            states: Of every parameter.
            applied: Updates they have had, for AdamW's bias correction.
        """

    def train(self, on: bool) -> None:
        """Switch between training and evaluation."""
        self.model.train(on)


def trained_parameters(model: Decoder) -> dict[str, torch.nn.Parameter]:
    """By name; a tied matrix once."""
    return dict(model.named_parameters())


def parameter_groups(model: Decoder, weight_decay: float) -> list[dict[str, Any]]:
    """What decays and what does not, by role (see Optimization): a shape says too little, since
    the series activation's scales and the learned keys lie in rows too."""
    decaying = {id(module.weight) for module in model.modules() if isinstance(module, DECAYING)}
    if isinstance(model.positions, T5Relative):  # numbers that are added to scores, as a bias is
        decaying.remove(id(model.positions.table.weight))
    values = list(trained_parameters(model).values())
    groups = [
        {"params": [p for p in values if id(p) in decaying], "weight_decay": weight_decay},
        {"params": [p for p in values if id(p) not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: Decoder, how: Optimization, *, fused: bool) -> torch.optim.AdamW:
    """torch's AdamW; the rate is set at each step."""
    return torch.optim.AdamW(
        parameter_groups(model, how.weight_decay),
        lr=how.lr,
        betas=(how.beta1, how.beta2),
        eps=how.eps,
        fused=fused,
    )


def make_engine(model: Decoder, spec: EngineSpec, place: Place) -> Engine:
    """The engine of a name.

    Raises:
        MissingExtraError: DeepSpeed is asked for and not installed.
    """
    if spec.name == "torch":
        return TorchEngine(model, spec, place)
    from gristmill.training.lm.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(model, spec, place)


class TorchEngine(Engine):
    """Every rank holds everything; gradients are summed at the end of a step."""

    def __init__(self, model: Decoder, spec: EngineSpec, place: Place) -> None:
        super().__init__(model, spec, place)
        self._params = trained_parameters(model)
        self._buckets = buckets_of(list(self._params.values()))
        fused = place.device.type == "cuda"
        self._optimizer = make_optimizer(model, spec.optimization, fused=fused)

    def forward(self, rows: Tensor, *, reduction: "Reduction" = "sum") -> Tensor:
        """Cross entropy under autocast in bf16, weights and optimizer in float32."""
        with torch.autocast(self.place.device.type, dtype=torch.bfloat16, enabled=self.spec.bf16):
            loss: Tensor = self.model(*inputs_and_targets(rows), reduction=reduction)
        return loss

    def backward(self, loss: Tensor, *, last: bool, discard: bool = False) -> None:
        """See Engine."""
        (loss * float("nan") if discard else loss).backward()
        if last and self.place.world_size > 1:
            sum_gradients(self._buckets)

    def step(self, lr: float) -> float:
        """See Engine."""
        clip = self.spec.optimization.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._params.values(), clip))
        if norm == norm and norm != float("inf"):
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def capture(self, mine: frozenset[str]) -> Iterator[tuple[str, ParamState]]:
        """See Engine."""
        for name, parameter in self._params.items():
            if name in mine:
                kept = self._optimizer.state.get(parameter, {})
                moments = {k: copied(kept.get(k), parameter) for k in MOMENTS}
                yield name, ParamState(param=copied(parameter, parameter), **moments)

    @torch.no_grad()
    def restore(self, states: Iterator[tuple[str, ParamState]], applied: int) -> None:
        """See Engine."""
        for name, state in states:
            parameter = self._params[name]
            parameter.copy_(state.param)
            self._optimizer.state[parameter] = fresh_state(parameter, applied, fused=self._fused())
            for kind in MOMENTS:
                self._optimizer.state[parameter][kind].copy_(getattr(state, kind))

    def _fused(self) -> bool:
        return bool(self._optimizer.defaults["fused"])


def buckets_of(parameters: list[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Neighbours together, up to BUCKET_NUMBERS in each; the same after every start."""
    found: list[list[torch.nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if parameter.numel() > room:
            found.append([])
            room = BUCKET_NUMBERS
        found[-1].append(parameter)
        room -= parameter.numel()
    return found


def sum_gradients(buckets: list[list[torch.nn.Parameter]]) -> None:
    """Add up gradients over all ranks, a bucket at a time, the next one under way meanwhile.

    torch's DistributedDataParallel lays its buckets out anew after the first step, so that a resume
    would add in another order than the run without a break.
    """
    before: _Sum | None = None
    for bucket in buckets:
        now = _Sum(bucket)
        if before is not None:
            before.finish()
        before = now
    if before is not None:
        before.finish()


class _Sum:
    """The sum over all ranks of a bucket's gradients, from its start on."""

    def __init__(self, bucket: list[torch.nn.Parameter]) -> None:
        self._gradients = [_gradient(parameter) for parameter in bucket]
        [first, *more] = self._gradients
        self._flat = torch.cat([g.flatten() for g in self._gradients]) if more else first
        self._work = torch.distributed.all_reduce(self._flat, async_op=True)

    def finish(self) -> None:
        """Wait, and put the sums where the gradients were."""
        self._work.wait()
        if self._flat is self._gradients[0]:
            return
        parts = self._flat.split([g.numel() for g in self._gradients])
        for gradient, part in zip(self._gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None, "every parameter has part in the loss"
    return gradient


def fresh_state(parameter: Tensor, applied: int, *, fused: bool) -> dict[str, Tensor]:
    """AdamW's state as torch makes it at the first step, after so many of them."""
    device = parameter.device if fused else torch.device("cpu")
    moments = {kind: torch.zeros_like(parameter) for kind in MOMENTS}
    return {"step": torch.tensor(float(applied), dtype=torch.float32, device=device), **moments}


def copied(value: Tensor | None, like: Tensor) -> Tensor:
    """A float32 copy on the CPU; zeros where there is nothing yet."""
    if value is None:
        return torch.zeros(like.shape, dtype=torch.float32)
    return value.detach().to("cpu", torch.float32, copy=True)


def shares(sizes: Mapping[str, int], world_size: int) -> list[frozenset[str]]:
    """Which rank writes which parameter: the largest first, each to who has least."""
    loads, names = [0] * world_size, [set[str]() for _ in range(world_size)]
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        rank = loads.index(min(loads))
        loads[rank] += sizes[name]
        names[rank].add(name)
    return [frozenset(mine) for mine in names]


def with_micro_batches(spec: EngineSpec, rows: int) -> EngineSpec:
    """For ranks of so many rows each."""
    size = min(spec.micro_batch_size, rows) if spec.micro_batch_size else rows
    return dataclasses.replace(spec, micro_batch_size=size, micro_batches=-(-rows // size))
