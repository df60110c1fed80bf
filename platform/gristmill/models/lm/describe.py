"""The describe job: a preset's parameters, FLOPs a token and memory a GPU, on the meta device."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from gristmill.core import io
from gristmill.core.config import config_hash, to_dict
from gristmill.core.job import Job
from gristmill.core.plan import Plan, human_bytes
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.presets import read_model

DESCRIPTION = "description.json"
STAGES = (0, 1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class DescribeJob(Job):
    """What a model holds and what training it costs; nothing of it is made in memory."""

    always_anew: ClassVar[bool] = True
    preset: Annotated[str, tyro.conf.Positional] = "demo"
    """Name of a preset (pangu-pi-1b, regmix-1m, sink-60m, ...), or a model.json."""
    micro_batch_size: int = 8
    """Sequences a GPU computes at once."""
    seq_len: int = 0
    """Tokens a sequence; 0: the preset's context length."""
    workers: int = 8
    """GPUs that share the states under ZeRO 1 to 3."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 with float32 master weights, or float32 throughout."""
    recompute: bool = False
    """Keep only each block's input and compute the block again in backward."""
    accumulate: bool = False
    """Sum the gradients of several micro-batches, in float32."""
    out: str = ""
    """Folder for description.json and report.html; empty: one of its own under runs/."""

    def __post_init__(self) -> None:
        read_model(self.preset)
        if not self.out:
            plain = dataclasses.replace(self, out="runs/lm-describe")
            name = self.preset.rpartition("/")[2].removesuffix(".json")
            object.__setattr__(self, "out", f"{plain.out}-{name}-{config_hash(plain)[:8]}")
        super().__post_init__()

    def plan(self) -> Plan:
        """The description itself."""
        facts = self.describe()
        return Plan(
            title=f"describe {self.preset}",
            writes=[(f"{DESCRIPTION}, {REPORT}", 0)],
            work=[("parameters", f"{facts['parameters']:,}")],
        )

    def describe(self) -> dict[str, Any]:
        """All figures as JSON values."""
        from gristmill.models.lm.memory import estimate

        config = read_model(self.preset)
        seq_len = self.seq_len or config.context_length
        memory = {
            stage: estimate(
                config,
                micro_batch_size=self.micro_batch_size,
                seq_len=seq_len,
                workers=self.workers,
                zero_stage=stage,
                precision=self.precision,
                recompute=self.recompute,
                accumulate=self.accumulate,
            )
            for stage in STAGES
        }
        return {
            "preset": self.preset,
            "config": to_dict(config),
            "parameters": config.num_params,
            "parameters_without_embeddings": config.num_params_without_embeddings,
            "parameters_by_part": config.params_by_part,
            "seq_len": seq_len,
            "flops_per_token": config.flops_per_token(seq_len),
            "flops_per_token_causal": config.flops_per_token(seq_len, attention="causal"),
            "memory_per_gpu_bytes": {
                f"zero_{stage}": {**dataclasses.asdict(found), "total": found.total}
                for stage, found in memory.items()
            },
        }

    def execute(self, run: Run) -> None:
        """Compute, print, report."""
        facts = self.describe()
        io.write_json(run.path(DESCRIPTION), facts)
        run.add_output(DESCRIPTION)
        run.set_summary(parameters=facts["parameters"], flops_per_token=facts["flops_per_token"])
        for line in self.lines(facts):
            print(line)
        self._report(run, facts)

    def lines(self, facts: dict[str, Any]) -> list[str]:
        """The description for a terminal."""
        total = facts["parameters"]
        lines = [f"{self.preset}: {shape(read_model(self.preset))}"]
        lines += [
            f"  {part:<18} {count:>15,}  {100 * count / total:5.1f} %"
            for part, count in facts["parameters_by_part"].items()
        ]
        lines.append(f"  {'parameters':<18} {total:>15,}")
        lines.append(f"  {'without embeddings':<18} {facts['parameters_without_embeddings']:>15,}")
        lines.append(
            f"FLOPs a token, forward and backward, sequence {facts['seq_len']}: "
            f"{facts['flops_per_token']:.3e} ({facts['flops_per_token_causal']:.3e} "
            "with attention only where it sees)"
        )
        lines.append(
            f"memory a GPU, {self.micro_batch_size} sequences, {self.workers} workers, "
            f"{self.precision}; activations estimated:"
        )
        for stage, parts in facts["memory_per_gpu_bytes"].items():
            shown = ", ".join(
                f"{n} {human_bytes(b)}" for n, b in parts.items() if n != "total" and b
            )
            lines.append(f"  ZeRO {stage[-1]}  {human_bytes(parts['total']):>10}  ({shown})")
        return lines

    def _report(self, run: Run, facts: dict[str, Any]) -> None:
        page = Report(title=f"Model {self.preset}", subtitle=shape(read_model(self.preset)))
        total = facts["parameters"]
        parts = facts["parameters_by_part"].items()
        page.table(
            "Parameters",
            ("part", "number", "%"),
            [*((p, n, 100 * n / total) for p, n in parts), ("all", total, 100.0)],
        )
        memory = facts["memory_per_gpu_bytes"]
        names = list(memory["zero_0"])
        page.table(
            "Memory a GPU",
            ("ZeRO", *names),
            [(stage[-1], *(human_bytes(memory[stage][n]) for n in names)) for stage in memory],
            note=f"{self.micro_batch_size} sequences of {facts['seq_len']} tokens, "
            f"{self.workers} workers, {self.precision}; activations are an estimate",
        )
        page.text("FLOPs a token", f"{facts['flops_per_token']:.4e} forward and backward.")
        page.save(run.path(REPORT))


def shape(config: ModelConfig) -> str:
    """A configuration in one line."""
    heads = f"{config.num_heads} heads"
    if config.kv_heads != config.num_heads:
        heads += f" ({config.kv_heads} of keys and values)"
    return (
        f"{config.num_layers} layers, width {config.width}, {heads}, "
        f"feed-forward {config.ffn_hidden}, vocabulary {config.vocab_size:,}, "
        f"{'tied' if config.tied else 'untied'}"
    )
