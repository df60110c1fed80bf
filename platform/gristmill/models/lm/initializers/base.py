"""The contract of an initialiser, and the walk over a model that applies it."""

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from gristmill.core import plugins
from gristmill.models.lm.config import PACKAGE, ModelConfig

BIAS_STD = 0.02
"""Of learned keys, values and sink tokens (arXiv:2410.10781) and of anything else that is neither a
matrix nor a norm."""
Role = Literal["embedding", "inner", "attention_out", "ffn_down", "head"]
ROLES: dict[str, Role] = {
    "embedding": "embedding",
    "positions.table": "embedding",
    "attention.out": "attention_out",
    "feed_forward.down": "ffn_down",
    "head": "head",
}


@dataclass(frozen=True)
class Matrix:
    """A matrix to be drawn."""

    role: Role
    """What it is for."""
    layer: int
    """Its block, from 1; 0 outside the blocks."""
    fan_in: int
    """Size of what it multiplies; the width for an embedding."""


class Initializer(ABC):
    """Gives each matrix the standard deviation of its normal start around 0."""

    def __init__(self, config: ModelConfig) -> None:
        self.num_layers = config.num_layers
        self.base_std = config.initializer_std

    @abstractmethod
    def std(self, matrix: Matrix) -> float:
        """The standard deviation."""


@torch.no_grad()
def initialize(model: nn.Module, config: ModelConfig, *, seed: int) -> None:
    """Set every parameter: drawn from (seed, name), so neither device nor order matters."""
    kind = plugins.find(f"{PACKAGE}.initializers", config.initializer, Initializer)
    initializer: Initializer = kind(config)
    seen: set[int] = set()  # a tied matrix starts as the embedding
    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if isinstance(module, nn.RMSNorm):
                parameter.fill_(1)
            elif place.endswith("shortcuts.up"):
                parameter.zero_()
            else:
                std = _std(initializer, place, name, parameter)
                _draw(parameter, std, f"{seed}/{place}.{name}")
        if hasattr(module, "start"):  # modules whose start is not drawn
            module.start()


def _std(initializer: Initializer, place: str, name: str, parameter: torch.Tensor) -> float:
    if name != "weight" or parameter.ndim != 2:
        return BIAS_STD
    inside = re.match(r"blocks\.(\d+)\.(.*)", place)
    layer, local = (int(inside[1]) + 1, inside[2]) if inside else (0, place)
    matrix = Matrix(role=ROLES.get(local, "inner"), layer=layer, fan_in=parameter.shape[1])
    return initializer.std(matrix)


def _draw(parameter: torch.Tensor, std: float, name: str) -> None:
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    drawn = torch.empty(parameter.shape, dtype=torch.float32).normal_(0, std, generator=generator)
    parameter.copy_(drawn)
