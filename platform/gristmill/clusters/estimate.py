"""A plan's figures: time as a range, memory, disk and network, and what each rests on."""

from dataclasses import dataclass, field

from gristmill.clusters.machines import Machine, gpu
from gristmill.clusters.rates import Rate
from gristmill.clusters.sites import Group
from gristmill.core.plan import human_bytes, human_seconds

FITS = 0.9
"""Share of a GPU's memory that may be planned for: the rest is the allocator's and NCCL's."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a job would run: so many machines of one group."""

    name: str
    """Cloud and group, such as aws/train-h100."""
    group: Group
    machine: Machine
    nodes: int

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.machine.gpus

    @property
    def cpus(self) -> int:
        """All CPUs."""
        return self.nodes * self.machine.cpus

    @property
    def bytes_per_second(self) -> float:
        """Network of all machines together; 0 where it is not known."""
        return self.nodes * self.machine.gbit * 1e9 / 8

    @property
    def gpu_memory(self) -> float:
        """Bytes of one GPU."""
        return gpu(self.machine.gpu).memory_gib * 2**30


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job takes on a site."""

    title: str
    work: tuple[tuple[str, str], ...]
    """(quantity, value) lines."""
    seconds: tuple[float, float]
    """Least and most."""
    uses_gpus: bool
    memory: tuple[tuple[str, float], ...] = ()
    """(what, bytes a GPU), an estimate of the peak."""
    disk: tuple[tuple[str, float], ...] = ()
    """(what, bytes)."""
    network: tuple[tuple[str, float], ...] = ()
    """(what, bytes/s over all machines)."""
    rates: tuple[Rate, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def cost(self, site: Site) -> tuple[float, float] | None:
        """Least and most cost of the machines; None where no price is given."""
        if site.group.price is None:
            return None
        a_second = site.nodes * site.group.price.per_hour / 3600
        return self.seconds[0] * a_second, self.seconds[1] * a_second

    def lines(self, site: Site) -> list[str]:
        """The plan for a terminal."""
        where = f"{site.nodes} x {site.group.machine or site.name.rpartition('/')[2]}"
        has = f"{site.gpus} {site.machine.gpu}" if site.gpus else f"{site.cpus:,} CPUs"
        lines = [f"{self.title}, on {site.name}: {where}, {has}, {site.group.market}"]
        lines += [f"  {name:<10}{value}" for name, value in self.work]
        least, most = self.seconds
        lines.append(f"  time      {_span(human_seconds(least), human_seconds(most))}")
        count = site.gpus if self.uses_gpus else site.cpus
        unit = "GPU-hours" if self.uses_gpus else "CPU-hours"
        spent = [f"{s * count / 3600:,.1f}" for s in self.seconds]
        lines.append(f"  {unit:<10}{_span(*spent)}")
        lines.append(f"  cost      {self._cost_line(site)}")
        lines += [f"  memory    {what}  {human_bytes(size)} a GPU" for what, size in self.memory]
        lines += [f"  disk      {what}  {human_bytes(size)}" for what, size in self.disk]
        lines += [f"  network   {what}  {human_bytes(speed)}/s" for what, speed in self.network]
        lines += [f"  warning   {text}" for text in self.warnings]
        lines += [f"  by        {rate.line()}" for rate in self.rates]
        return lines

    def _cost_line(self, site: Site) -> str:
        span = self.cost(site)
        price = site.group.price
        if span is None or price is None:
            place = site.name.replace("/", ".groups.")
            return f"not known: give {place}.price in the fleet file"
        shown = _span(f"{span[0]:,.2f}", f"{span[1]:,.2f}")
        return (
            f"{shown} {price.currency} at {price.per_hour:,.2f} a machine-hour "
            f"as of {price.as_of}; head, storage and traffic not counted"
        )


def _span(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
