"""The model, optimizer and schedule that DataComp fixes: open_clip's, in its order."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip_train.params import get_default_params
from open_clip_train.scheduler import cosine_lr

from gristmill.models.clip import check_arch, tokenizer_of
from gristmill.training.place import Place
from gristmill.training.scales import Scale
from gristmill.training.steps import Steps


@dataclass(kw_only=True)
class Trainee:
    """A model in training with all that moves along with it."""

    model: torch.nn.Module
    """What is called; wrapped for data parallelism when there are several ranks."""
    bare: Any
    """The open_clip model inside, whose weights are kept."""
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler | None
    """Loss scaling of fp16 mixed precision, else None."""
    loss: Any
    set_learning_rate: Callable[[int], float]
    """Sets the rate of a step (0-based)."""
    transform: Any
    tokenizer: Any


def random_seed(seed: int, rank: int) -> None:
    """Seed torch, numpy and random as open_clip_train.main does."""
    torch.manual_seed(seed + rank)
    np.random.seed(seed + rank)
    random.seed(seed + rank)


def build(scale: Scale, place: Place, steps: Steps, *, seed: int, precision: str) -> Trainee:
    """Everything but the data, ready for the first step; leaves the generators seeded by rank.

    Raises:
        BadInputError: open_clip does not know the architecture.
    """
    check_arch(scale.model)
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    random_seed(seed, 0)  # every rank starts from the same weights
    bare, transform, _ = open_clip.create_model_and_transforms(
        scale.model, None, precision=precision, device=place.device, output_dict=True
    )
    random_seed(seed, place.rank)
    if scale.grad_checkpointing:
        bare.set_grad_checkpointing()
    model = bare
    if place.world_size > 1:
        devices = [place.device] if place.device.type == "cuda" else None
        model = torch.nn.parallel.DistributedDataParallel(
            bare, device_ids=devices, static_graph=True
        )
    optimizer = make_optimizer(model, scale)
    return Trainee(
        model=model,
        bare=bare,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(place.device.type) if precision == "amp" else None,
        loss=open_clip.ClipLoss(
            local_loss=True,
            gather_with_grad=True,
            cache_labels=True,
            rank=place.rank,
            world_size=place.world_size,
        ),
        set_learning_rate=cosine_lr(optimizer, scale.learning_rate, scale.warmup, steps.total),
        transform=transform,
        tokenizer=tokenizer_of(scale.model),
    )


def make_optimizer(model: torch.nn.Module, scale: Scale) -> torch.optim.AdamW:
    """AdamW with open_clip's two groups: no weight decay on gains, biases and the temperature."""
    plain: list[torch.nn.Parameter] = []
    decayed: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if _is_gain_or_bias(name, parameter) else decayed).append(parameter)
    defaults = get_default_params(scale.model)
    return torch.optim.AdamW(
        [
            {"params": plain, "weight_decay": 0.0},
            {"params": decayed, "weight_decay": scale.weight_decay},
        ],
        lr=scale.learning_rate,
        betas=(defaults["beta1"], scale.beta2 or defaults["beta2"]),
        eps=defaults["eps"],
    )


def _is_gain_or_bias(name: str, parameter: torch.nn.Parameter) -> bool:
    """open_clip_train.main's `exclude`."""
    return parameter.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
