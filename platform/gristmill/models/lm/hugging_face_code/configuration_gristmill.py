"""Configuration of a Gristmill decoder for transformers."""

from typing import Any

from transformers import PretrainedConfig


class GristmillConfig(PretrainedConfig):
    """Holds gristmill's own ModelConfig, as JSON, under `gristmill`."""

    model_type = "gristmill"

    def __init__(self, gristmill: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.gristmill = gristmill or {}
        super().__init__(**kwargs)
