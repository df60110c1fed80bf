"""Where and how a training runs: nothing here is meant to change its result."""

from dataclasses import dataclass

from gristmill.core.errors import BadInputError
from gristmill.execution.session import Execution
from gristmill.models.lm.config import AttentionKernel
from gristmill.training.lm.names import EngineName


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Workers, memory, checkpoints. May change between a kill and the resume."""

    address: str = ""
    """Ray cluster to join; empty: the one in RAY_ADDRESS, else a private one on this machine."""
    workers: int = 0
    """Ranks; 0: one a GPU, or one on a CPU. The batch must divide by it."""
    min_workers: int = 0
    """With --max-workers: an elastic run, on as many as the cluster has room for at the moment."""
    max_workers: int = 0
    """Most ranks of an elastic run. Where the batch does not divide, some rows stay empty."""
    resize_seconds: float = 60.0
    """How often an elastic run looks whether it can have more workers; it takes them by starting
    anew from its newest checkpoint."""
    engine: EngineName = "torch"
    """torch: each rank holds everything. zero0 to zero3: DeepSpeed, which cuts up the optimizer
    (1), gradients too (2), weights too (3)."""
    offload: bool = False
    """Optimizer states in the host's memory; zero1 to zero3."""
    micro_batch_size: int = 0
    """Sequences a rank computes at once, its gradients summed; 0: all of its share, and of an
    elastic run its share on the most workers, so that fewer need no more memory for activations."""
    recompute: bool = False
    """Keep only each block's input and compute the block again in backward."""
    compile: bool = True
    """torch.compile the model; on GPUs only, and not under zero3, whose hooks gather weights."""
    attention_kernel: AttentionKernel = "auto"
    """What computes softmax attention with a window, prefix, learned column or ALiBi; auto: flex on
    GPUs where it fits, else sdpa. Plain causal attention is always fused."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: a tenth of the training. Also how much a dead node costs."""
    checkpoint_minutes: float = 30.0
    """Write one as well when the last is so old; 0, or where all are kept: never. So much a dead
    node costs at most."""
    keep_checkpoints: int = 2
    """How many of the newest to keep; 0 keeps all."""
    max_failures: int = 3
    """How often in a row the workers may die without a new checkpoint in between. Preempted nodes
    do not count."""
    tensorboard: bool = False
    """Write the curves for TensorBoard too."""

    def __post_init__(self) -> None:
        for name in (
            "workers", "min_workers", "max_workers", "micro_batch_size", "checkpoint_every",
            "keep_checkpoints", "max_failures", "resize_seconds", "checkpoint_minutes",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise BadInputError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.elastic and self.workers:
            raise BadInputError("give either --workers, or --min-workers and --max-workers")
        if self.elastic and not 1 <= self.min_workers <= self.max_workers:
            raise BadInputError(
                f"an elastic run needs 1 <= min_workers <= max_workers, not {self.min_workers} "
                f"and {self.max_workers}"
            )
        if self.offload and self.engine in ("torch", "zero0"):
            raise BadInputError(
                f"--offload needs --engine zero1, zero2 or zero3, not {self.engine}"
            )

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change while it runs."""
        return bool(self.min_workers or self.max_workers)

    @property
    def zero_stage(self) -> int:
        """0 where nothing is cut up."""
        return 0 if self.engine == "torch" else int(self.engine[-1])

    @property
    def most_workers(self) -> int:
        """Ranks at most, as far as the command says: 0 when it does not."""
        return self.max_workers or self.workers

    @property
    def least_workers(self) -> int:
        """Ranks at least, on which a rank holds most; 0 when the command does not say."""
        return self.min_workers or self.workers

    def most_at_once(self, batch_size: int) -> int:
        """Sequences a rank computes at once, at most; 0: all of its share."""
        if self.elastic and not self.micro_batch_size:
            return -(-batch_size // self.max_workers)
        return self.micro_batch_size

    @property
    def minutes_between_checkpoints(self) -> float:
        """0: only the steps count."""
        return self.checkpoint_minutes if self.keep_checkpoints else 0.0

    def session(self) -> Execution:
        """As `execution.session` takes it."""
        return Execution(address=self.address, workers=self.most_workers)

    def require_division(self, batch_size: int, workers: int) -> None:
        """Refuse a fixed number of workers that the batch does not divide by.

        Raises:
            BadInputError: It does not; names the nearest that fits.
        """
        if self.elastic or batch_size % workers == 0:
            return
        fitting = [n for n in range(1, 2 * workers + 1) if batch_size % n == 0]
        near = min(fitting, key=lambda n: (abs(n - workers), n))
        raise BadInputError(
            f"the batch of {batch_size} sequences does not divide by {workers} workers; "
            f"take a divisor such as --workers {near}, or another --batch-size"
        )
