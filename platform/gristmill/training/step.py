"""One optimizer step of contrastive training, as in open_clip_train's `train_one_epoch`.

Shapes: B micro-batch, T caption tokens, D embedding, H W pixels.
"""

import math
from typing import Any

import torch
from open_clip import get_input_dtype
from open_clip_train.precision import get_autocast

from gristmill.training.clip import Trainee
from gristmill.training.place import Place

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images [B, 3, H, W] and captions [B, T]."""
LARGEST_SCALE = math.log(100)
"""Cap of the learnt temperature, as in the CLIP paper (Radford et al. 2021, section 2.5)."""


class Stepper:
    """Takes optimizer steps on a trainee."""

    def __init__(
        self, trainee: Trainee, place: Place, *, precision: str, grad_clip_norm: float | None
    ) -> None:
        self._trainee, self._device, self._clip = trainee, place.device, grad_clip_norm
        self._autocast = get_autocast(precision, device_type=place.device.type)
        self._dtype = get_input_dtype(precision)

    def to_device(self, batch: Batch) -> Batch:
        """A batch where the model is, images in its input type."""
        images, texts = batch
        return (
            images.to(device=self._device, dtype=self._dtype, non_blocking=True),
            texts.to(device=self._device, non_blocking=True),
        )

    def step(self, batches: list[Batch]) -> torch.Tensor:
        """One step on one micro-batch, or on several taken as one batch; this rank's loss."""
        self._trainee.optimizer.zero_grad()
        loss = self._whole(batches[0]) if len(batches) == 1 else self._accumulated(batches)
        self._update()
        with torch.no_grad():
            self._trainee.bare.logit_scale.clamp_(0, LARGEST_SCALE)
        return loss

    def _whole(self, batch: Batch) -> torch.Tensor:
        with self._autocast():
            out = self._trainee.model(*batch)
            loss = self._total(out)
        self._backward(loss)
        return loss.detach()

    def _accumulated(self, batches: list[Batch]) -> torch.Tensor:
        """All micro-batches contrast with each other: features first without gradients, then each
        micro-batch again with gradients beside the kept features of the others (BASIC, Pham et al.
        2021, arXiv:2111.10050). The loss is that of the last pass, as open_clip logs it.
        """
        kept: dict[str, list[torch.Tensor]] = {}
        with torch.no_grad(), self._autocast():
            for batch in batches:
                for name, value in self._trainee.model(*batch).items():
                    if name not in ("logit_scale", "logit_bias"):
                        kept.setdefault(name, []).append(value)
        self._trainee.optimizer.zero_grad()
        loss = torch.zeros(())
        for i, batch in enumerate(batches):
            with self._autocast():
                out = self._trainee.model(*batch)
                for name, values in kept.items():
                    out[name] = torch.cat([*values[:i], out[name], *values[i + 1 :]])
                loss = self._total(out)
            self._backward(loss)
        return loss.detach()

    def _total(self, out: dict[str, Any]) -> torch.Tensor:
        losses: dict[str, torch.Tensor] = self._trainee.loss(**out, output_dict=True)
        return torch.stack(list(losses.values())).sum()

    def _backward(self, loss: torch.Tensor) -> None:
        scaler = self._trainee.scaler
        (loss if scaler is None else scaler.scale(loss)).backward()

    def _update(self) -> None:
        optimizer, scaler = self._trainee.optimizer, self._trainee.scaler
        if self._clip is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self._trainee.model.parameters(), self._clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
