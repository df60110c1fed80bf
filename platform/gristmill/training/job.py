"""`gristmill clip train`: DataComp's standardised training as a job. Imports nothing heavy."""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Any, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import REPORT, Run
from gristmill.execution.session import Execution, session
from gristmill.training import checkpoint, cost
from gristmill.training.preflight import check_members
from gristmill.training.rules import Departure, Rounding, departures
from gristmill.training.scales import Scale
from gristmill.training.shards import Source, parse_weights, resolve
from gristmill.training.steps import Steps, count_steps

Precision = Literal["auto", "amp", "amp_bf16", "bf16", "fp16", "fp32"]
FEW_SHARDS = 8
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainClipJob(Job):
    """Train a CLIP model at a DataComp scale: its model, schedule and batch, your data."""

    scale: Scale
    """What is fixed. Its fields are flags too, and changing one needs --allow-override."""
    data: str
    """Folders of WebDataset tars, or tars, joined by `::`. Folders are searched to the bottom."""
    data_weights: str = ""
    """One number a part of --data, joined by `::` (1::2): how often a shard of that part is drawn,
    relative to a shard of another. Empty: all shards alike."""
    seed: int = 0
    """Of weights, shards, shuffle and crops. The same seed and workers give the same losses."""
    precision: Precision = "auto"
    """open_clip's name for it. auto: amp on GPUs, fp32 on CPUs. Pure bf16 and fp16 need
    --allow-override."""
    accum_freq: int = 1
    """Micro-batches to a step: less memory, the same contrastive batch, about half the speed."""
    num_checkpoints: int = 5
    """Checkpoints, evenly spaced; a killed training resumes from the newest. Samples between two
    are rounded up to whole batches; so many that this adds 1 % need --allow-override."""
    keep_checkpoints: int = 0
    """How many of the newest to keep; 0 keeps all."""
    loader_workers: int = 4
    """Loader processes a worker; 0 loads in the worker itself."""
    grad_clip_norm: float | None = None
    """Largest norm of the gradient. DataComp clips none, so this needs --allow-override."""
    max_failures: int = 3
    """How often the workers may be restarted after one of them died."""
    allow_override: bool = False
    """Let what the scale fixes be changed; the run is then marked as non-comparable."""
    execution: Execution = field(default_factory=Execution)
    """Where to run. `workers` is the number of ranks; 0: one a GPU, or one on a CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("accum_freq", 1), ("num_checkpoints", 1), ("keep_checkpoints", 0),
                            ("loader_workers", 0), ("max_failures", 0), ("seed", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise BadInputError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.grad_clip_norm is not None and not self.grad_clip_norm > 0:
            raise BadInputError(f"grad_clip_norm must be above 0, not {self.grad_clip_norm}")
        found = self._departures()
        if found and not self.allow_override:
            raise BadInputError(
                f"{found[0].name} is {found[0].given}, but scale {self.scale.name!r} fixes it at "
                f"{found[0].published}; take it back, or add --allow-override and get a "
                "non-comparable run"
            )
        self.steps(1)  # refuses settings that leave no whole batch or step
        if isinstance(self.data, str):
            if not self.data:
                raise BadInputError("no data; give --data a folder of WebDataset tars")
            parse_weights(self.data_weights, self.data.split("::"))
            if any(map(io.has_credentials, self.data.split("::"))):
                raise BadInputError(
                    "data carries a password or signature, which would be stored with the run; "
                    "give credentials through the environment or the machine's role"
                )
            parts = [io.absolute(part) for part in self.data.split("::")]
            object.__setattr__(self, "data", "::".join(parts))

    @property
    def comparable(self) -> bool:
        """Whether the result may stand beside others of its scale: see `training/rules.py`."""
        return not self._departures()

    def why_not_comparable(self) -> str:
        """What sets this run apart from its scale; empty if nothing does."""
        return ", ".join(str(departure) for departure in self._departures())

    def _departures(self) -> list[Departure]:
        rounding = Rounding(
            accum_freq=self.accum_freq,
            num_checkpoints=self.num_checkpoints,
            loader_workers=self.loader_workers,
        )
        return departures(
            self.scale,
            rounding=rounding,
            precision=self.precision,
            grad_clip_norm=self.grad_clip_norm,
        )

    def steps(self, num_workers: int) -> Steps:
        """Batch sizes and counts on so many ranks."""
        return count_steps(
            self.scale,
            num_workers=num_workers,
            accum_freq=self.accum_freq,
            num_checkpoints=self.num_checkpoints,
            loader_workers=self.loader_workers,
        )

    def plan(self) -> Plan:
        """Steps, FLOPs, GPU-hours and checkpoint sizes; reads only the list of shards."""
        workers = self.execution.workers or 1
        steps = self.steps(workers)
        sources = resolve(self.data, self.data_weights)
        shards = sum(len(source.shards) for source in sources)
        model, flops = self.scale.model, cost.train_flops(self.scale.model, steps.samples)
        kept = min(self.keep_checkpoints or steps.epochs, steps.epochs)
        work = [
            ("model", model),
            ("samples", f"{steps.samples:,} seen, from {shards:,} shards"),
            ("steps", f"{steps.total:,} of {steps.batch_size:,} pairs ({steps.micro_batch_size:,} "
                      f"a worker at once, {workers} workers)"),
        ]  # fmt: skip
        if flops:
            work.append(("compute", f"{flops:.2e} FLOPs (3 x forward)"))
        profile = cost.PROFILES.get(model)
        rate = profile.samples_per_second if profile else 0
        return Plan(
            title=f"train {model} at scale {self.scale.name}",
            reads=[(source.uri, source.num_bytes) for source in sources],
            writes=[(f"{kept} checkpoints", kept * cost.checkpoint_bytes(model))],
            work=work,
            gpu_hours=cost.gpu_hours(model, steps.samples),
            basis=cost.BASIS.format(rate=rate, model=model),
            warnings=self._warnings(steps, shards, workers),
        )

    def _warnings(self, steps: Steps, shards: int, workers: int) -> list[str]:
        said = []
        if not self.comparable:
            said.append(f"non-comparable: {self.why_not_comparable()}")
        if self.scale.warmup >= steps.total:
            peak = steps.total / self.scale.warmup
            said.append(
                f"the {steps.total:,} steps end before the warm-up of {self.scale.warmup:,}: the "
                f"rate only reaches {peak:.0%} of its peak"
            )
        if shards < FEW_SHARDS:
            said.append(f"only {shards} shards: samples of a shard stay near each other")
        if not self.execution.workers:
            said.append("counted for 1 worker; a run takes one worker a GPU unless told --workers")
        if self.accum_freq > 1:
            said.append(f"accumulating over {self.accum_freq} costs a second forward pass")
        if workers > steps.micro_batch_size:
            said.append(f"{workers} workers hold only {steps.micro_batch_size} pairs each")
        return said

    def execute(self, run: Run) -> None:
        """Train, or resume, to the last checkpoint; then report."""
        sources = resolve(self.data, self.data_weights)
        check_members(sources)
        for source in sources:
            run.add_input(source.uri, source.identity())
        if checkpoint.epochs_done(run.path(checkpoint.FOLDER))[-1:] != [self.num_checkpoints]:
            with session(self.execution):
                self._train(run, sources)
        self._conclude(run)

    def _train(self, run: Run, sources: list[Source]) -> None:
        from gristmill.training.launch import launch
        from gristmill.training.progress import Recorder
        from gristmill.training.ranks import place_ranks, tell_of_waiting

        num_workers, use_gpu = place_ranks(self.execution.workers)
        steps = self.steps(num_workers)
        precision = self.precision
        if precision == "auto":
            precision = "amp" if use_gpu else "fp32"
        run.log(
            kind="run",  # again after a kill, perhaps on other machines
            comparable=self.comparable,
            scale=self.scale.name,
            precision=precision,
            num_workers=num_workers,
            device="gpu" if use_gpu else "cpu",
            steps=steps.total,
        )
        tell_of_waiting(run, num_workers, use_gpu=use_gpu)
        launch(
            self._spec(run, sources, steps, precision),
            name=f"clip-train-{self.scale.name}",
            num_workers=num_workers,
            use_gpu=use_gpu,
            max_failures=self.max_failures,
            on_record=Recorder(run, f"train {self.scale.name}", steps),
        )

    def _spec(self, run: Run, sources: list[Source], steps: Steps, precision: str) -> Any:
        from gristmill.training.data import StreamSpec
        from gristmill.training.launch import announced
        from gristmill.training.loop import TrainSpec

        shards = tuple(shard.uri for source in sources for shard in source.shards)
        weights = tuple(s.weight for s in sources for _ in s.shards if s.weight is not None)
        return TrainSpec(
            scale=self.scale,
            seed=self.seed,
            precision=precision,
            accum_freq=self.accum_freq,
            grad_clip_norm=self.grad_clip_norm,
            steps=steps,
            stream=StreamSpec(
                shards=shards,
                weights=weights or None,
                micro_batch_size=steps.micro_batch_size,
                loader_batches=steps.loader_batches,
                loader_workers=self.loader_workers,
                seed=self.seed,
            ),
            data_name=" :: ".join(source.uri for source in sources),
            checkpoints=run.path(checkpoint.FOLDER),
            keep_checkpoints=self.keep_checkpoints,
            comparable=self.comparable,
            notice=announced,
        )

    def _conclude(self, run: Run) -> None:
        from gristmill.training.progress import dropped_of, steps_of
        from gristmill.training.report import training_report

        metrics = run.metrics()
        lines = steps_of(metrics)
        latest = [line for line in metrics if line.get("kind") == "run"][-1]
        last = lines[-1] if lines else {}
        final = checkpoint.name_of(self.num_checkpoints)
        rates = sorted(line["samples_per_second"] for line in lines)
        run.add_output(final)
        summary = {
            "comparable": self.comparable,
            "scale": self.scale.name,
            "arch": self.scale.model,
            "samples_seen": last.get("samples_seen", 0),
            "final_loss": last.get("loss"),
            "samples_per_second": rates[len(rates) // 2] if rates else None,
            "precision": latest["precision"],
            "num_workers": latest["num_workers"],
            "checkpoint": final,
            "dropped": dropped_of(metrics),
        }
        run.set_summary(**summary)
        reason = "" if self.comparable else self.why_not_comparable()
        config = dataclasses.asdict(self.scale) | {
            "data": " :: ".join(io.redact(part) for part in self.data.split("::")),
            "data_weights": self.data_weights or "all shards alike",
            "seed": self.seed,
            "accum_freq": self.accum_freq,
            "loader_workers": self.loader_workers,
        }
        training_report(summary, config, metrics, reason).save(run.path(REPORT))
