"""What a training of a language model costs, said before it starts; refuses what would fail."""

import shutil
from typing import TYPE_CHECKING

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.plan import Plan, human_bytes

if TYPE_CHECKING:
    from gristmill.models.lm.memory import Memory
    from gristmill.training.lm.job import TrainLmJob
    from gristmill.training.lm.preflight import Checked

STATE_BYTES = 12
"""A parameter in a checkpoint: float32 weight and AdamW's two moments."""
MODEL_BYTES = 4
CARD, CARD_FLOPS, ASSUMED_MFU = "H100", 989.4e12, 0.4
CARD_BYTES = 80 * 10**9
MOST_BATCH_TOKENS = 4_000_000
"""A larger batch gains little more (arXiv:2402.02791, section 3.3)."""


def checkpoint_bytes(job: "TrainLmJob") -> int:
    """Size of one checkpoint."""
    return STATE_BYTES * job.config.num_params


def disk_bytes(job: "TrainLmJob") -> int:
    """Most that the run's folder holds: kept checkpoints, one being written, the model."""
    total = -(-job.num_steps // job.checkpoint_every)
    kept = job.execution.keep_checkpoints
    count = min(total, kept + 1) if kept else total
    if job.execution.minutes_between_checkpoints:
        count = kept + 1  # by the clock there may be more than by the steps
    return count * checkpoint_bytes(job) + MODEL_BYTES * job.config.num_params


def require_room(job: "TrainLmJob", uri: str) -> None:
    """Refuse a local disk that cannot hold the checkpoints.

    Raises:
        BadInputError: It cannot.
    """
    if not io.is_local(uri):
        return
    path = io.local_path(uri)
    while not io.exists(path) and path != "/":
        path = path.rpartition("/")[0] or "/"
    there = sum(io.size_bytes(found) for found in io.list_files(uri, recursive=True))
    free = shutil.disk_usage(path).free + there
    if disk_bytes(job) > free:
        raise BadInputError(
            f"checkpoints and model need {human_bytes(disk_bytes(job))}, {io.redact(uri)} has room "
            f"for {human_bytes(free)}; lower --keep-checkpoints, or choose another --out"
        )


def make_plan(job: "TrainLmJob") -> Plan:
    """The answer to `--plan`."""
    from gristmill.training.lm.preflight import check

    checked = check(job)
    require_room(job, job.out)
    workers = job.execution.least_workers or 1  # on fewer, each holds more
    tokens = job.num_steps * job.batch_size * checked.seq_len
    flops = job.config.flops_per_token(checked.seq_len) * tokens
    memory = _memory(job, checked, workers)
    warnings = _warnings(job, checked, workers, _on_card(job, memory))
    return Plan(
        title=f"train {job.preset} on {tokens:,} tokens",
        reads=[(io.redact(uri), 0) for uri in job.corpora],
        writes=[
            ("a checkpoint", checkpoint_bytes(job)),
            ("checkpoints and model, at most", disk_bytes(job)),
        ],
        work=[*_amounts(job, checked, workers, flops, memory), *_epochs(checked)],
        gpu_hours=flops / (CARD_FLOPS * ASSUMED_MFU) / 3600,
        basis=f"{CARD} at {ASSUMED_MFU:.0%} of its bf16 peak, an assumption",
        warnings=warnings,
    )


def _amounts(
    job: "TrainLmJob", checked: "Checked", workers: int, flops: float, memory: "Memory"
) -> list[tuple[str, str]]:
    where = job.execution
    rows, micro = _rows(job, workers)
    batch = job.batch_size * checked.seq_len
    peak = job.optimization.peak(job.batch_size)
    return [
        ("params", f"{job.config.num_params:,}"),
        ("steps", f"{job.num_steps:,} of {job.batch_size:,} sequences ({batch:,} tokens)"),
        ("ranks", f"{_ranks(job, workers)} by {where.engine}, {-(-rows // micro)} micro-batches of "
                  f"{micro}{' on the fewest' if where.elastic else ''}"),
        ("rate", f"{peak:.3g} at its peak, {job.optimization.schedule}"),
        ("compute", f"{flops:.2e} FLOPs, forward and backward"),
        ("memory", f"{human_bytes(_on_card(job, memory))} a GPU: weights "
                   f"{human_bytes(memory.weights)}, gradients {human_bytes(memory.gradients)}, "
                   f"optimizer {human_bytes(memory.optimizer)}"
                   f"{' (in the host)' if where.offload else ''}, activations "
                   f"{human_bytes(memory.activations + memory.loss)} (estimated)"
                   f"{_passing(memory)}"),
        ("saves", f"every {job.checkpoint_every:,} steps{_by_clock(job)}"),
        ("validates", f"every {job.steps_between_validations(checked):,} steps, on "
                      f"{checked.validation_sequences(job.validation_sequences):,} sequences"),
    ]  # fmt: skip


def _ranks(job: "TrainLmJob", workers: int) -> str:
    return f"{workers} to {job.execution.max_workers}" if job.execution.elastic else f"{workers}"


def _by_clock(job: "TrainLmJob") -> str:
    minutes = job.execution.minutes_between_checkpoints
    return f", and when the last is {minutes:g} min old" if minutes else ""


def _rows(job: "TrainLmJob", workers: int) -> tuple[int, int]:
    """A rank's rows of a step, and how many of them at once."""
    rows = -(-job.batch_size // workers)
    return rows, min(job.execution.most_at_once(job.batch_size) or rows, rows)


def _memory(job: "TrainLmJob", checked: "Checked", workers: int) -> "Memory":
    from gristmill.models.lm.memory import estimate

    rows, micro = _rows(job, workers)
    return estimate(
        job.config,
        micro_batch_size=micro,
        seq_len=checked.seq_len,
        workers=workers,
        zero_stage=job.execution.zero_stage,
        precision="fp32" if job.precision == "fp32" else "bf16",
        recompute=job.execution.recompute,
        accumulate=rows > micro,
    )


def _on_card(job: "TrainLmJob", memory: "Memory") -> int:
    return memory.total - (memory.optimizer if job.execution.offload else 0)


def _passing(memory: "Memory") -> str:
    if not memory.buffers + memory.gathered:
        return ""
    whole = f", whole weights {human_bytes(memory.gathered)}" if memory.gathered else ""
    return f", gradients on their way {human_bytes(memory.buffers)}{whole}"


def _card() -> tuple[str, int]:
    """This machine's GPU, else the one assumed, and its memory."""
    import torch

    if not torch.cuda.is_available():
        return f"an {CARD}", CARD_BYTES
    found = torch.cuda.get_device_properties(0)
    return found.name, int(found.total_memory)


def _epochs(checked: "Checked") -> list[tuple[str, str]]:
    return [
        (entry.domain, f"{entry.tokens:,} tokens, {entry.epochs:.2f} epochs")
        for entry in checked.ledger.entries
    ]


def _warnings(job: "TrainLmJob", checked: "Checked", workers: int, needed: int) -> list[str]:
    said = []
    tokens = job.batch_size * checked.seq_len
    if tokens > MOST_BATCH_TOKENS:
        said.append(
            f"{tokens:,} tokens a batch: over {MOST_BATCH_TOKENS:,} a larger batch gains little; "
            "lower --batch-size"
        )
    name, room = _card()
    if needed > room:
        said.append(
            f"{human_bytes(needed)} a GPU are more than the {human_bytes(room)} of {name}; more "
            "--workers, a higher ZeRO stage, --recompute or a smaller --micro-batch-size need less"
        )
    if checked.unvalidated:
        said.append(f"no validation loss for {', '.join(checked.unvalidated)}: too little text")
    if not job.execution.most_workers:
        said.append("counted for 1 worker; a run takes one worker a GPU unless told --workers")
    if job.execution.elastic:
        most = job.execution.max_workers
        odd = [n for n in range(workers, most + 1) if job.batch_size % n]
        if odd:
            said.append(
                f"the batch does not divide by {', '.join(map(str, odd))} workers: some of their "
                "rows stay empty"
            )
    if job.execution.engine != "torch" and (job.execution.most_workers or 1) == 1:
        said.append(f"{job.execution.engine} on one worker cuts nothing up")
    return said
