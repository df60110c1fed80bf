"""The scales of DataComp (Gadre et al. 2023, arXiv:2304.14108, table 1 and appendix L) and a demo.

A scale fixes everything but the data, so that two runs differ only in what they were fed. The
figures are those of `scale_configs.py` and `train.py` in the authors' release of April 2025.
"""

import dataclasses
import difflib
from dataclasses import dataclass

from gristmill.core.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a participant may not change. Changing a field needs --allow-override."""

    name: str
    """Which scale this is."""
    model: str
    """open_clip architecture."""
    train_num_samples: int
    """Samples seen in the whole training; a sample drawn twice counts twice."""
    batch_size: int
    """Pairs a step over all workers and accumulation: each is contrasted with all others."""
    learning_rate: float
    """Peak of the schedule: linear warm-up, then half a cosine down to 0."""
    warmup: int
    """Steps of linear warm-up."""
    beta2: float | None = None
    """AdamW's second decay; None takes open_clip's default (0.98 for a ViT, else 0.999)."""
    weight_decay: float = 0.2
    """Of matrices; gains, biases and the temperature have none."""
    grad_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, the same gradients."""

    def __post_init__(self) -> None:
        for field in ("train_num_samples", "batch_size", "warmup"):
            if getattr(self, field) < 1:
                raise BadInputError(f"{field} must be 1 or more, not {getattr(self, field)}")
        if not self.learning_rate > 0:
            raise BadInputError(f"learning_rate must be above 0, not {self.learning_rate}")
        if self.beta2 is not None and not 0 <= self.beta2 < 1:
            raise BadInputError(f"beta2 must be in [0, 1), not {self.beta2}")


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="demo",
            model="gristmill-demo",
            train_num_samples=16_384,
            batch_size=64,
            learning_rate=1.5e-3,
            warmup=20,
            beta2=0.98,
            grad_checkpointing=False,
        ),
        Scale(
            name="debug",
            model="ViT-B-32",
            train_num_samples=128_000,
            batch_size=1024,
            learning_rate=1e-4,
            warmup=500,
        ),
        Scale(
            name="small",
            model="ViT-B-32",
            train_num_samples=12_800_000,
            batch_size=4096,
            learning_rate=5e-4,
            warmup=500,
        ),
        Scale(
            name="medium",
            model="ViT-B-32",
            train_num_samples=128_000_000,
            batch_size=4096,
            learning_rate=5e-4,
            warmup=500,
        ),
        Scale(
            name="large",
            model="ViT-B-16",
            train_num_samples=1_280_000_000,
            batch_size=8192,
            learning_rate=5e-4,
            warmup=500,
        ),
        Scale(
            name="xlarge",
            model="ViT-L-14",
            train_num_samples=12_800_000_000,
            batch_size=90112,
            learning_rate=1e-3,
            warmup=10000,
            beta2=0.95,
        ),
    )
}


def overrides(scale: Scale) -> dict[str, tuple[object, object]]:
    """Fields that differ from the published scale of that name: field -> (published, this one).

    Raises:
        BadInputError: There is no scale of that name.
    """
    if scale.name not in SCALES:
        near = difflib.get_close_matches(scale.name, SCALES, n=1)
        hint = f"; perhaps {near[0]}" if near else ""
        raise BadInputError(f"no scale {scale.name!r}{hint}; known: {', '.join(SCALES)}")
    published = SCALES[scale.name]
    return {
        field.name: (getattr(published, field.name), getattr(scale, field.name))
        for field in dataclasses.fields(Scale)
        if getattr(published, field.name) != getattr(scale, field.name)
    }
