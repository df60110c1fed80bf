"""When a training may stand beside others of its scale. The one rule; everything else asks it.

Comparable is a run that

- leaves every field of its `Scale` as published;
- sees the scale's number of samples, to 1 % or to what DataComp's own flags (5 checkpoints, 4
  loader processes, no accumulation) round it up to, whichever is more: 12 % at `debug`, 1.6 % at
  `demo`, at most 0.5 % elsewhere. Checkpoints, accumulation and loader processes may vary freely
  within that: they decide only where batches are rounded;
- trains in mixed precision (`auto` on GPUs, `amp`, `amp_bf16`) or in fp32, which is more precise
  and what `auto` means on CPUs; weights in pure fp16 or bf16 learn otherwise;
- does not clip gradients, as DataComp does not.

The seed may vary freely, for studies of its noise; so may data, weights of data, and workers.
Anything else needs --allow-override and is named wherever the run shows.
"""

from dataclasses import dataclass

from gristmill.training.scales import SCALES, Scale, overrides
from gristmill.training.steps import count_steps

SAMPLES_TOLERANCE = 0.01
PRECISIONS = ("auto", "amp", "amp_bf16", "fp32")
"""Those that leave a run comparable."""
PUBLISHED_PRECISION = "amp"


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """The settings that decide how the samples seen are rounded to whole batches."""

    accum_freq: int
    num_checkpoints: int
    loader_workers: int

    def samples(self, scale: Scale) -> int:
        """Samples seen at a scale; the same on any number of ranks."""
        return count_steps(
            scale,
            num_workers=1,
            accum_freq=self.accum_freq,
            num_checkpoints=self.num_checkpoints,
            loader_workers=self.loader_workers,
        ).samples


DATACOMPS = Rounding(accum_freq=1, num_checkpoints=5, loader_workers=4)
"""Defaults of DataComp's train.py."""


@dataclass(frozen=True, kw_only=True)
class Departure:
    """One thing that sets a run apart, in words."""

    name: str
    given: str
    published: str

    def __str__(self) -> str:
        return f"{self.name} {self.given} instead of {self.published}"


def departures(
    scale: Scale, *, rounding: Rounding, precision: str, grad_clip_norm: float | None
) -> list[Departure]:
    """What makes a run non-comparable, by the rule at the top of this file; empty if nothing.

    Raises:
        BadInputError: There is no such scale, or the settings leave no whole step.
    """
    found = [
        Departure(name=name, given=repr(given), published=repr(published))
        for name, (published, given) in overrides(scale).items()
    ]
    if not found:
        found += _other_samples(scale, rounding)
    if precision not in PRECISIONS:
        found.append(
            Departure(name="precision", given=repr(precision), published=repr(PUBLISHED_PRECISION))
        )
    if grad_clip_norm is not None:
        found.append(
            Departure(name="grad_clip_norm", given=repr(grad_clip_norm), published=repr(None))
        )
    return found


def _other_samples(scale: Scale, rounding: Rounding) -> list[Departure]:
    wanted, seen = scale.train_num_samples, rounding.samples(scale)
    most = max(wanted * (1 + SAMPLES_TOLERANCE), DATACOMPS.samples(SCALES[scale.name]))
    if wanted * (1 - SAMPLES_TOLERANCE) <= seen <= most:
        return []
    why = (
        f"rounded for --num-checkpoints {rounding.num_checkpoints}, --accum-freq "
        f"{rounding.accum_freq}, --loader-workers {rounding.loader_workers}"
    )
    return [Departure(name="samples seen", given=f"{seen:,} ({why})", published=f"{wanted:,}")]
