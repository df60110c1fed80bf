"""DeepSpeed ZeRO 0 to 3 (Rajbhandari et al., arXiv:1910.02054). The only importer of deepspeed.

Only what every stage has in common leaves this file: whole parameters with whole moments, which is
what checkpoints keep (docs/decisions/0009-lm-checkpoints.md).
"""

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gristmill.core.errors import MissingExtraError
from gristmill.models.lm.decoder import Decoder
from gristmill.models.lm.memory import BUCKET_NUMBERS
from gristmill.training.lm.batches import inputs_and_targets
from gristmill.training.lm.engine import (
    MOMENTS,
    Engine,
    EngineSpec,
    ParamState,
    copied,
    fresh_state,
    make_optimizer,
    trained_parameters,
)
from gristmill.training.place import Place

if TYPE_CHECKING:
    from gristmill.models.lm.loss import Reduction


class DeepSpeedEngine(Engine):
    """Optimizer, gradients or weights cut up over the ranks."""

    def __init__(self, model: Decoder, spec: EngineSpec, place: Place) -> None:
        super().__init__(model, spec, place)
        deepspeed = _import(place)
        self._deepspeed = deepspeed
        self.stage = int(spec.name.removeprefix("zero"))
        self._shapes = {name: tuple(p.shape) for name, p in trained_parameters(model).items()}
        # Stage 0 adds no optimizer of its own: weights are float32, under autocast in bf16, and
        # clipping and refusing a gradient are ours.
        self._bare = self.stage == 0
        self.rounds_start = spec.bf16 and not self._bare
        on_gpu = place.device.type == "cuda"
        if self.stage == 3:
            self._cut_up(model)
        # With offload it steps on the host, where torch's fused kernel goes over memory once too.
        optimizer = make_optimizer(model, spec.optimization, fused=on_gpu or spec.offload)
        self._fused = bool(optimizer.defaults["fused"])
        trained = _Autocast(model, place.device.type) if self._bare and spec.bf16 else model
        self._engine: Any = deepspeed.initialize(
            model=trained, optimizer=optimizer, config=self._config(), dist_init_required=False
        )[0]
        self._params = trained_parameters(model)

    def _cut_up(self, model: Decoder) -> None:
        """Leave each rank its part of every parameter, one parameter at a time, so that the model
        is whole on no GPU; it comes on the CPU. `deepspeed.initialize` would move all of it first.
        """
        dtype = torch.bfloat16 if self.spec.bf16 else torch.float32
        model.to(dtype)
        self._deepspeed.zero.Init(module=model, config_dict_or_path=self._config(), dtype=dtype)

    def _config(self) -> dict[str, Any]:
        spec, sharded = self.spec, self.spec.bf16 and not self._bare
        zero: dict[str, Any] = {"stage": self.stage}
        if self.stage:  # a bucket is allocated whole, however small the model
            count = sum(math.prod(shape) for shape in self._shapes.values())
            zero["reduce_bucket_size"] = min(count, BUCKET_NUMBERS)
        if spec.offload and self.stage:
            zero["offload_optimizer"] = {"device": "cpu"}
        bf16: dict[str, Any] = {"enabled": sharded}
        if sharded:  # stage 1 lets go of a gradient as soon as it is summed
            bf16 |= {"check_grad_overflow": True, "immediate_grad_update": True}
        # One micro-batch has nothing to sum up, and needs no float32 for it.
        summed_in = "bf16" if sharded and spec.micro_batches == 1 else "fp32"
        types: dict[str, Any] = {"data_types": {"grad_accum_dtype": summed_in}}
        if sharded and self.stage == 1 and summed_in == "fp32":
            # It hands all that it has summed up over at once; in bf16 that would be a copy of it.
            types["communication_data_type"] = "fp32"
        return {
            "train_micro_batch_size_per_gpu": spec.micro_batch_size,
            "gradient_accumulation_steps": spec.micro_batches,
            "gradient_clipping": 0.0 if self._bare else spec.optimization.clip,
            "bf16": bf16,
            **types,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,  # torch's AdamW: DeepSpeed's own compile first
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 1 << 62,
            "timers": {"throughput": {"enabled": False}},  # it waits for the GPU twice a forward
        }

    def forward(self, rows: Tensor, *, reduction: "Reduction" = "sum") -> Tensor:
        """Cross entropy; in bf16 the weights are bf16, with float32 masters in the optimizer."""
        loss: Tensor = self._engine(*inputs_and_targets(rows), reduction=reduction)
        return loss

    def backward(self, loss: Tensor, *, last: bool, discard: bool = False) -> None:
        """See Engine. DeepSpeed takes means over ranks and micro-batches where we sum."""
        del last  # it counts the micro-batches itself
        scale = self.place.world_size * self.spec.micro_batches
        self._engine.backward(loss * (math.nan if discard else scale))
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # between micro-batches it only counts

    def step(self, lr: float) -> float:
        """See Engine."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        norm = self._clip() if self._bare else math.nan
        self._engine.step()
        if self._bare:
            return norm
        found = self._engine.get_global_grad_norm()
        norm = math.inf if found is None else float(found)
        if not math.isfinite(norm):
            self._forget_gradients()
        return norm

    def _forget_gradients(self) -> None:
        """Stages 1 and 2 with offload: DeepSpeed 0.19 refuses a step but keeps its gradients, to
        which it would add those of the next. Without offload it clears them itself."""
        if self.spec.offload and self.stage in (1, 2):
            kept = self._engine.optimizer.averaged_gradients
            kept.update(dict.fromkeys(kept))

    def _clip(self) -> float:
        limit = self.spec.optimization.clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self._params.values(), limit))
        if not math.isfinite(norm):
            self._engine.zero_grad()  # AdamW passes over parameters without a gradient
        return norm

    def train(self, on: bool) -> None:
        """See Engine."""
        self._engine.train(on)

    # -- states --------------------------------------------------------------------------------

    def capture(self, mine: frozenset[str]) -> Iterator[tuple[str, ParamState]]:
        """See Engine; one parameter at a time is whole on the ranks."""
        if self._has_states():
            self._link()
        for name, parameter in self._params.items():
            parts = {kind: self._whole(parameter, kind) for kind in ("param", *MOMENTS)}
            if name in mine:
                like = torch.empty(self._shapes[name], device="meta")
                yield (
                    name,
                    ParamState(**{k: copied(v, like).view(like.shape) for k, v in parts.items()}),
                )

    def _whole(self, parameter: Tensor, kind: str) -> Tensor | None:
        key = None if kind == "param" else kind
        if self._bare:
            kept = self._engine.optimizer.state.get(parameter, {})
            found: Tensor | None = parameter if key is None else kept.get(key)
            return found
        if key is not None and not self._has_states():
            return None
        if key is None:
            whole: Tensor = self._deepspeed.utils.safe_get_full_fp32_param(parameter)
        else:
            whole = self._deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
        return whole

    def _inner(self) -> torch.optim.AdamW:
        """torch's optimizer inside ZeRO's."""
        optimizer = self._engine.optimizer
        inner: torch.optim.AdamW = optimizer if self._bare else optimizer.optimizer
        return inner

    def _flat(self) -> list[Tensor]:
        return [value for group in self._inner().param_groups for value in group["params"]]

    def _has_states(self) -> bool:
        state = self._inner().state
        return any("exp_avg" in kept for kept in state.values())

    @torch.no_grad()
    def restore(self, states: Iterator[tuple[str, ParamState]], applied: int) -> None:
        """See Engine."""
        self._make_states(applied)
        for name, state in states:
            parameter = self._params[name]
            for kind in ("param", *MOMENTS):
                self._set(parameter, getattr(state, kind), "" if kind == "param" else kind)
            self._set_computed(parameter, state.param)

    def _make_states(self, applied: int) -> None:
        optimizer = self._engine.optimizer
        if self.stage == 3:
            flat = optimizer.fp32_partitioned_groups_flat
        elif self._bare:
            flat = self._flat()
        else:
            flat = getattr(optimizer, "single_partition_of_fp32_groups", None)
            flat = optimizer.fp32_groups_flat_partition if flat is None else flat
        for value in flat:
            self._inner().state[value] = fresh_state(value, applied, fused=self._fused)
        self._link()

    def _link(self) -> None:
        """Tell each parameter where its moments lie. DeepSpeed 0.19 does so once, after the first
        parameter group's first step, when the second group has none yet."""
        if self.stage < 3 and not self._bare:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _set(self, parameter: Tensor, value: Tensor, key: str) -> None:
        value = value.to(self.place.device)
        if self._bare:
            target = self._inner().state[parameter][key] if key else parameter
            target.copy_(value)
        elif self.stage == 3:
            self._set_local(parameter, value.flatten(), key)
        elif key:
            self._deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)
        else:
            self._deepspeed.utils.safe_set_full_fp32_param(parameter, value)

    def _set_local(self, parameter: Any, flat: Tensor, key: str) -> None:
        """This rank's part. DeepSpeed's setter of whole values forgets the last one's padding."""
        size = parameter.ds_tensor.ds_numel
        first = size * self.place.rank
        part = torch.zeros(size, device=flat.device)
        mine = flat[first : first + size]
        part[: len(mine)] = mine
        if key:
            self._deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)
        else:
            self._deepspeed.utils.safe_set_local_fp32_param(parameter, part)

    def _set_computed(self, parameter: Tensor, value: Tensor) -> None:
        """The copy that the model computes with, in its own type."""
        value = value.to(self.place.device)
        if self.stage < 3:
            parameter.copy_(value)
            return
        with self._deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if self.place.rank == 0:
                parameter.copy_(value)


class _Autocast(torch.nn.Module):
    """The model under autocast in bf16. DeepSpeed takes an autocast around its own forward away,
    unless the whole process trains so."""

    def __init__(self, model: Decoder, kind: str) -> None:
        super().__init__()
        self.model, self._kind = model, kind

    def forward(self, *tensors: Tensor, reduction: "Reduction") -> Tensor:
        """The model's."""
        with torch.autocast(self._kind, dtype=torch.bfloat16):
            loss: Tensor = self.model(*tensors, reduction=reduction)
        return loss


def _import(place: Place) -> Any:
    if place.device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # read at the import
    try:
        import deepspeed
    except ImportError as error:
        raise MissingExtraError("deepspeed", "deepspeed") from error
    deepspeed.logger.setLevel("ERROR")
    if place.device.type == "cpu":  # else it compiles C++ for a minute, of use to inference only
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", str(place.rank))  # it insists; Ray Train sets it
    if not torch.distributed.is_initialized():  # a single rank
        backend = "gloo" if place.device.type == "cpu" else "nccl"
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    return deepspeed
