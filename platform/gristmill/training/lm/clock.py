"""Tokens a second and model FLOPs utilisation, since the last record."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

import torch

from gristmill.training.place import Place

if TYPE_CHECKING:
    from gristmill.training.lm.loop import LmSpec

UNKNOWN = "unknown device"


def bf16_peak(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name, from devices.json; None for one not listed."""
    text = (resources.files("gristmill.training.lm") / "devices.json").read_text("utf-8")
    for entry in json.loads(text)["devices"]:
        if re.fullmatch(entry["name"], name):
            return float(entry["bf16_flops"])
    return None


class Clock:
    """MFU is PaLM's (arXiv:2204.02311, appendix B): tokens/s x FLOPs a token / the devices' peak;
    recomputation does not count. Of a sliding window only the keys seen count, since the kernel
    passes over the others."""

    def __init__(self, spec: "LmSpec", place: Place) -> None:
        self._tokens = spec.batch_size * spec.seq_len
        windowed = 0 < spec.model.window < spec.seq_len
        self._flops = spec.model.flops_per_token(
            spec.seq_len, attention="causal" if windowed else "full"
        )
        self.device = UNKNOWN
        peak = None
        if place.device.type == "cuda":
            self.device = torch.cuda.get_device_name(place.device)
            peak = bf16_peak(self.device)
        self._peak = peak * place.world_size if peak else None
        self.start(0)

    def start(self, step: int) -> None:
        """Begin at a step."""
        self._step, self._last = step, time.monotonic()
        self._data = self._data_from = 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is not training's."""
        before = time.monotonic()
        yield
        self._last += time.monotonic() - before

    def start_data(self) -> None:
        """The wait for a batch begins."""
        self._data_from = time.monotonic()

    def end_data(self) -> None:
        """It ends."""
        self._data += time.monotonic() - self._data_from

    def figures(self, step: int) -> dict[str, Any]:
        """Rates up to a step that has just ended."""
        now = time.monotonic()
        window = max(now - self._last, 1e-9)
        rate = (step - self._step) * self._tokens / window
        share = min(self._data / window, 1.0)
        self._step, self._last, self._data = step, now, 0.0
        mfu = round(rate * self._flops / self._peak, 4) if self._peak else UNKNOWN
        return {
            "tokens_per_second": round(rate, 1),
            "mfu": mfu,
            "data_seconds_share": round(share, 4),
        }
