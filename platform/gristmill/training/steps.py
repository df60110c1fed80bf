"""How many steps a training has: open_clip's arithmetic, without importing it."""

import math
from dataclasses import dataclass

from gristmill.core.errors import BadInputError
from gristmill.training.scales import Scale

LOGGED_STEPS = 2000
"""Steps are logged so that a run leaves about this many lines."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Batch sizes and counts. An epoch here is the stretch between two checkpoints."""

    micro_batch_size: int
    """Pairs a worker holds at once: global batch / (workers x accumulation)."""
    batches_per_epoch: int
    """Micro-batches a worker reads in an epoch."""
    loader_batches: int
    """Micro-batches that each loader process of a worker makes in an epoch."""
    per_epoch: int
    """Optimizer steps in an epoch."""
    epochs: int
    batch_size: int

    @property
    def total(self) -> int:
        """Optimizer steps of the whole training."""
        return self.per_epoch * self.epochs

    @property
    def samples(self) -> int:
        """Samples seen in the whole training."""
        return self.total * self.batch_size

    @property
    def log_every(self) -> int:
        """Steps between two lines of metrics."""
        return max(1, self.total // LOGGED_STEPS)


def count_steps(
    scale: Scale, *, num_workers: int, accum_freq: int, num_checkpoints: int, loader_workers: int
) -> Steps:
    """Steps as `get_wds_dataset` and `main` of open_clip_train count them.

    Batches are rounded up to a whole number for every loader process, so that the samples seen
    may exceed those asked for by a little, as in DataComp.

    Raises:
        BadInputError: The global batch does not divide by workers x accumulation. DataComp's
            train.py rounds down there, and so trains with another batch size than it says. Or
            there would be no step between two checkpoints.
    """
    parts = num_workers * accum_freq
    _refuse_fractions(scale.batch_size, num_workers, accum_freq)
    samples = scale.train_num_samples // num_checkpoints
    if samples < 1:
        raise BadInputError(
            f"{scale.train_num_samples} samples make no {num_checkpoints} checkpoints; "
            "lower --num-checkpoints"
        )
    micro = scale.batch_size // parts
    batches = math.ceil(samples / (micro * num_workers))
    loaders = max(1, loader_workers)
    loader_batches = math.ceil(batches / loaders)
    batches = loader_batches * loaders
    if batches < accum_freq:
        raise BadInputError(
            f"between two of {num_checkpoints} checkpoints there are {batches} micro-batches, "
            f"fewer than the {accum_freq} of a step: nothing would be trained; lower "
            "--num-checkpoints or --accum-freq"
        )
    return Steps(
        micro_batch_size=micro,
        batches_per_epoch=batches,
        loader_batches=loader_batches,
        per_epoch=batches // accum_freq,
        epochs=num_checkpoints,
        batch_size=scale.batch_size,
    )


def _refuse_fractions(batch_size: int, num_workers: int, accum_freq: int) -> None:
    parts = num_workers * accum_freq
    if batch_size % parts:
        fitting = [n for n in range(1, 2 * parts + 1) if batch_size % n == 0]
        near = min(fitting, key=lambda n: (abs(n - parts), n))
        raise BadInputError(
            f"the batch of {batch_size} does not divide by {num_workers} workers x "
            f"{accum_freq} accumulation steps; let workers x --accum-freq be a divisor "
            f"such as {near}"
        )
