"""One forward pass that shows a model's insides to probes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gristmill.diagnostics.base import Probe
from gristmill.models.lm.decoder import Decoder


@torch.no_grad()
def observe(model: Decoder, probes: Sequence[Probe], tokens_BT: Tensor) -> Tensor:
    """Show a batch to probes.

    Args:
        model: In eval mode.
        probes: Each is shown what it asks for.
        tokens_BT: Inputs and, one to the right, labels: T + 1 tokens.

    Returns:
        The loss a token in nats, [B, T].
    """
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]

    def show(layer: int, what: str, shown: Tensor) -> None:
        for probe in probes:
            if what in probe.shows:
                probe.see(layer, what, shown)  # type: ignore[arg-type]

    wanted = frozenset().union(*(probe.shows for probe in probes))
    if wanted <= {"hidden"}:  # by hooks, so that the fused kernels stay
        hooks = _hooks(model, show) if wanted else []
        try:
            losses_BT = model(inputs_BT, targets_BT, reduction="none")
        finally:
            for hook in hooks:
                hook.remove()
    else:
        losses_BT = model(inputs_BT, targets_BT, reduction="none", watch=show)
    for probe in probes:
        probe.end_batch(losses_BT)
    return losses_BT


def _hooks(model: Decoder, show: Callable[[int, str, Tensor], None]) -> list[Any]:
    def before(layer: int) -> Callable[[Any, tuple[Any, ...]], None]:
        return lambda _block, args: show(layer, "hidden", args[0])

    last = len(model.blocks)

    def after(_block: Any, _args: Any, out: Tensor) -> None:
        show(last, "hidden", out)

    hooks = [block.register_forward_pre_hook(before(i)) for i, block in enumerate(model.blocks)]
    return [*hooks, model.blocks[-1].register_forward_hook(after)]
