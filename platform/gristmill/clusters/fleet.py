"""The fleet: where clusters run, on which machines, how many. fleet_file.py reads it from YAML."""

import re
from dataclasses import dataclass

from gristmill.clusters.machines import Machine, machine
from gristmill.clusters.sites import Aws, Azure, Gcp, Group, Kubernetes, Slurm
from gristmill.core import io
from gristmill.core.errors import BadInputError

BASE = "python:3.11.14-slim-bookworm"
"""What images are built on unless told otherwise."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._:/@+-]*")
"""Values that stand in YAML, shell and JSON without quoting."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Container images, by a version or digest."""

    cpu: str
    gpu: str
    gpu_base: str = BASE
    """What the GPU image is built on: Debian or Ubuntu with Python 3.10 to 3.13 and pip. Machines
    exchange gradients over EFA or GPUDirect only if it holds the provider's NCCL plugin; plain
    Python does not."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The job that the batch files (RayJob, Slurm) carry."""

    command: str
    """What runs on the head."""
    group: str
    """The Kubernetes group that it trains on."""
    ranks: int
    """GPUs of the job."""
    hours: int
    """After so many hours the job is ended, whatever it does."""

    def __post_init__(self) -> None:
        for name in ("ranks", "hours"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name}: {getattr(self, name)} must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """All that `gristmill cluster render` needs to know."""

    name: str
    """Of the clusters; it stands in the names of all they make."""
    bucket: str
    """Storage for pools, runs and logs, as a URI."""
    ray: str
    """Ray's version, the same on every node."""
    images: Images
    job: TrainingJob
    idle_minutes: int = 10
    """A worker idle for so long is given back."""
    aws: Aws | None = None
    gcp: Gcp | None = None
    azure: Azure | None = None
    kubernetes: Kubernetes | None = None
    slurm: Slurm | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BadInputError(f"name: {self.name!r} must be small letters, digits and hyphens")
        if io.is_local(self.bucket) or not PLAIN.fullmatch(self.bucket):
            raise BadInputError(f"bucket: {self.bucket!r} must be a URI such as s3://bucket/prefix")
        if self.kubernetes and self.job.group not in self.kubernetes.groups:
            raise BadInputError(f"job.group: kubernetes has no group {self.job.group!r}")

    def machines(self, cloud: str) -> dict[str, tuple[Group, Machine]]:
        """The groups of one cloud with what a machine of each holds.

        Raises:
            BadInputError: The fleet has no such cloud.
        """
        site = getattr(self, cloud, None)
        if isinstance(site, Slurm):
            one = Machine(
                cpus=site.cpus_per_node,
                memory_gib=site.memory_gib,
                gbit=0,
                gpus=site.gpus_per_node,
                gpu=site.gpu,
            )
            nodes = -(-self.job.ranks // site.gpus_per_node)
            return {site.partition: (Group(machine="node", max=nodes), one)}
        if not isinstance(site, Aws | Gcp | Azure | Kubernetes):
            have = [n for n in ("aws", "gcp", "azure", "kubernetes", "slurm") if getattr(self, n)]
            raise BadInputError(f"the fleet has no {cloud!r}; it has: {', '.join(have)}")
        return {name: (group, _holds(cloud, group)) for name, group in site.groups.items()}


def _holds(cloud: str, group: Group) -> Machine:
    if cloud != "kubernetes":
        return machine(cloud, group.machine)
    return Machine(
        cpus=group.cpus, memory_gib=group.memory_gib, gbit=0, gpus=group.gpus, gpu=group.gpu
    )
