"""Figures of a running job for Prometheus: what the run logs, as gauges of Ray's own exporter.

Every node's agent serves them at its metrics port as `ray_gristmill_...`; cluster/grafana.json
draws them. The run's own metrics.jsonl is the record; these are for looking.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

from gristmill.core import io
from gristmill.core.run import OBSERVER

FIGURES = {
    "samples_per_second": "Samples a second, all ranks",
    "tokens_per_second": "Tokens a second, all ranks",
    "mfu": "Model FLOPs utilisation: share of the GPUs' bf16 peak",
    "data_seconds_share": "Share of a step's time that waited for data",
    "loss": "Training loss",
    "seconds_left": "Estimated seconds to the end",
    "step": "Optimizer steps done",
}
CHECKPOINT = "checkpoint_time_seconds"
SEEN = "last_line_time_seconds"
PREFIX = "gristmill_"
TAGS = ("run", "uri")


class Gauges:
    """Sets a gauge for each known figure of a line of metrics."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __call__(self, uri: str, values: dict[str, Any]) -> None:
        """Take one line of a run's metrics, or one of its events."""
        import ray

        if not ray.is_initialized():
            return
        tags = tags_of(uri)
        for name, about in FIGURES.items():
            value = values.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._set(name, about, float(value), tags)
        self._set(SEEN, "When the run last logged a line", time.time(), tags)
        if values.get("event") == "checkpoint":
            self._set(CHECKPOINT, "When the newest checkpoint was complete", time.time(), tags)

    def _set(self, name: str, about: str, value: float, tags: dict[str, str]) -> None:
        from ray.util.metrics import Gauge

        if name not in self._made:
            self._made[name] = Gauge(PREFIX + name, description=about, tag_keys=TAGS)
        self._made[name].set(value, tags=tags)


def tags_of(uri: str) -> dict[str, str]:
    """What tells a run's series from others': a short name of its own, and where it is."""
    where = io.redact(uri).rstrip("/")
    digest = hashlib.sha256(where.encode()).hexdigest()[:6]
    return {"run": f"{where.rpartition('/')[2]}-{digest}", "uri": where}


@contextlib.contextmanager
def shown_to_prometheus() -> Iterator[None]:
    """Lines that runs log in this context become gauges."""
    token = OBSERVER.set(Gauges())
    try:
        yield
    finally:
        OBSERVER.reset(token)
