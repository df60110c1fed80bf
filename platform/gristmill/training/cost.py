"""What a training costs before it starts. The ground of `--plan`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Size and speed of an architecture."""

    gflops: float
    """Of one forward pass over an image and a caption (a multiply and an add are two)."""
    params: float
    samples_per_second: float
    """Trained on one A100, mixed precision, with DataComp's settings."""


PROFILES = {
    "ViT-B-32": Profile(gflops=14.78, params=151.28e6, samples_per_second=890),
    "ViT-B-16": Profile(gflops=41.09, params=149.62e6, samples_per_second=340),
    "ViT-L-14": Profile(gflops=175.33, params=427.62e6, samples_per_second=71),
}
"""GFLOPs and parameters: open_clip, docs/model_profile.csv. Speeds on A100-40G: B/16 and L/14 as
users report them; B/32 from DataComp's cost of `small`, 4 A100-hours for 12.8M samples (from memory
of arXiv:2304.14108, not checked)."""
BACKWARD_AND_FORWARD = 3
"""Training costs three forward passes; recomputing checkpointed activations is not counted."""
BYTES_PER_PARAM = 12
"""In a checkpoint: fp32 weight and AdamW's two moments."""
BASIS = "A100 at {rate:g} samples/s for {model}; other GPUs go by their own rate"


def train_flops(model: str, samples: int) -> float:
    """FLOPs of a training; 0 for an architecture without a profile."""
    profile = PROFILES.get(model)
    return profile.gflops * 1e9 * BACKWARD_AND_FORWARD * samples if profile else 0.0


def gpu_hours(model: str, samples: int) -> float:
    """A100-hours of a training; 0 for an architecture without a profile."""
    profile = PROFILES.get(model)
    return samples / profile.samples_per_second / 3600 if profile else 0.0


def checkpoint_bytes(model: str) -> int:
    """Size of one checkpoint; 0 for an architecture without a profile."""
    profile = PROFILES.get(model)
    return int(profile.params * BYTES_PER_PARAM) if profile else 0
