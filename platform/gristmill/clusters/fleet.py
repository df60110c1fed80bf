"""The fleet: where clusters run, on which machines, how many. fleet_file.py reads it from YAML."""

import re
from dataclasses import dataclass, field
from typing import Literal

from gristmill.clusters.machines import Machine, gpu, machine
from gristmill.core import io
from gristmill.core.errors import BadInputError

Market = Literal["spot", "on-demand"]
NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._:/@+-]*")
"""Values that stand in YAML, shell and JSON without quoting."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a machine costs. Yours to give: no price is built in."""

    per_hour: float
    """Of one machine, in the currency below."""
    as_of: str
    """The day the price was looked up, such as 2026-11-01."""
    currency: str = "USD"
    """Of the figure."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Workers of one machine kind."""

    machine: str = ""
    """The provider's name of the machine kind; empty on Kubernetes."""
    max: int
    """Most machines at once."""
    min: int = 0
    """Machines kept even when idle."""
    market: Market = "on-demand"
    """Spot machines are cheaper and may be taken away with two minutes' notice, or less."""
    disk_gb: int = 500
    """Root volume: images, Ray's spilling, checkpoints on their way."""
    fast_network: bool = True
    """Attach the machine's fast network, where its kind has one."""
    placement: str = ""
    """AWS: a cluster placement group that exists already."""
    cpus: int = 0
    """Kubernetes: CPUs a pod."""
    memory_gib: int = 0
    """Kubernetes: memory a pod."""
    gpus: int = 0
    """Kubernetes: GPUs a pod."""
    gpu: str = ""
    """Kubernetes: their kind."""
    selector: dict[str, str] = field(default_factory=dict)
    """Kubernetes: labels of the nodes these pods may run on."""
    devices: dict[str, int] = field(default_factory=dict)
    """Kubernetes: further devices, such as vpc.amazonaws.com/efa: 32."""
    price: Price | None = None
    """What `cluster plan` counts; without it the plan says that the cost is not known."""

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.max:
            raise BadInputError(f"min {self.min} and max {self.max} need 0 <= min <= max")
        if self.gpu:
            gpu(self.gpu)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The node that schedules and holds no workers."""

    machine: str = ""
    """The provider's name of the machine kind."""
    disk_gb: int = 200
    """Root volume."""
    cpus: int = 8
    """Kubernetes: CPUs of the pod."""
    memory_gib: int = 32
    """Kubernetes: memory of the pod."""


@dataclass(frozen=True, kw_only=True)
class Aws:
    """Machines of Amazon EC2."""

    region: str
    zone: str
    """Training machines must share one, for the fast network."""
    account: str
    """Account number, for the ARNs of roles."""
    machine_image: str
    """AMI with Docker, the NVIDIA driver and EFA; an id, so that it is pinned."""
    subnet: str
    """A private subnet with a way out to the bucket."""
    security_group: str
    """Allows traffic among its own members only. Ray's default would open SSH to the world."""
    head: Head
    groups: dict[str, Group]


@dataclass(frozen=True, kw_only=True)
class Gcp:
    """Machines of Google Compute Engine."""

    project: str
    region: str
    zone: str
    machine_image: str
    """An image's full name, not a family, so that it is pinned."""
    subnet: str
    """A private subnet with Cloud NAT or Private Google Access."""
    training_subnets: tuple[str, ...] = ()
    """Subnets of the GPUs' own interfaces, as many as the machine kind has cards."""
    head: Head
    groups: dict[str, Group]


@dataclass(frozen=True, kw_only=True)
class Azure:
    """Machines of Azure."""

    subscription: str
    region: str
    resource_group: str
    machine_image: str
    """publisher:offer:sku:version, the version a number."""
    identity: str
    """Name of a user-assigned managed identity in the resource group, with our role."""
    head: Head
    groups: dict[str, Group]


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Pods under the KubeRay operator, 1.6 or later."""

    namespace: str
    queue: str
    """Kueue's LocalQueue that admits our jobs."""
    operator_namespace: str = "kuberay-system"
    """Where the operator runs; it may reach the dashboard, nobody else outside the cluster."""
    monitoring_namespace: str = "monitoring"
    """Where Prometheus runs; it may reach the metrics."""
    head: Head
    groups: dict[str, Group]


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Nodes of a Slurm cluster."""

    partition: str
    account: str
    cpus_per_node: int
    memory_gib: int
    gpus_per_node: int
    gpu: str
    environment: str
    """A file on storage that all nodes share, to be sourced: it puts gristmill on the path."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Container images, by a version or digest."""

    cpu: str
    gpu: str


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
