"""What a job would read, write and cost, said before anything starts (`--plan`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer to `--plan`. Sizes are bytes; 0 means not known, and is not printed."""

    title: str
    """What the job does, in one line."""
    reads: Sequence[tuple[str, int]] = ()
    """(what, bytes) read."""
    writes: Sequence[tuple[str, int]] = ()
    """(what, bytes) written, estimated."""
    work: Sequence[tuple[str, str]] = ()
    """(quantity, value) lines such as steps, rows, FLOPs."""
    cpu_hours: float = 0.0
    """Estimated CPU-hours."""
    gpu_hours: float = 0.0
    """Estimated GPU-hours."""
    basis: str = ""
    """Where the estimate comes from."""
    warnings: Sequence[str] = field(default=())
    """What may surprise, each one sentence."""

    def text(self) -> str:
        """The plan as lines for a terminal."""
        lines = [self.title]
        for label, rows in (("reads", self.reads), ("writes", self.writes)):
            for what, size in rows:
                lines.append(f"  {label:<7} {what}" + (f"  {human_bytes(size)}" if size else ""))
        lines += [f"  {name:<7} {value}" for name, value in self.work]
        if self.cpu_hours or self.gpu_hours:
            cost = [f"{human_seconds(self.cpu_hours * 3600)} of one CPU"] if self.cpu_hours else []
            cost += [f"{human_seconds(self.gpu_hours * 3600)} of one GPU"] if self.gpu_hours else []
            lines.append(
                f"  cost    {', '.join(cost)}" + (f" ({self.basis})" if self.basis else "")
            )
        lines += [f"  warning {text}" for text in self.warnings]
        return "\n".join(lines)


def human_bytes(count: float) -> str:
    """A byte count with a binary unit, such as 1.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


def human_seconds(seconds: float) -> str:
    """A duration such as 42 s, 3 min 10 s, 5 h 2 min, 12.5 days."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86400 * 2:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:.1f} days"
