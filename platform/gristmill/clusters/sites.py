"""The places of a fleet: clouds, Kubernetes, Slurm, with the groups of machines at each."""

from dataclasses import dataclass, field
from typing import Literal

from gristmill.clusters.machines import gpu
from gristmill.core.errors import BadInputError

Market = Literal["spot", "on-demand", "reserved", "capacity-block", "flex-start"]
RESERVED = ("reserved", "capacity-block")
"""Markets that take machines from a reservation, which must be named."""
FLEX_START_HOURS = 168
"""What Google Cloud grants a flex-start machine at most."""


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
    """spot: cheaper, and may be taken away with two minutes' notice or less. reserved: from a
    capacity reservation of yours. capacity-block (AWS): from a block bought for some days.
    flex-start (Google Cloud): waits for capacity, then runs for some days at most."""
    reservation: str = ""
    """AWS: the reservation's or block's id, cr-...; Google Cloud: its name."""
    hours: int = FLEX_START_HOURS
    """flex-start: the machine is ended after so many hours, 168 at most."""
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
        if self.market in RESERVED and not self.reservation:
            raise BadInputError(
                f"reservation: missing; market {self.market} takes machines from one"
            )
        if self.reservation and self.market not in RESERVED:
            raise BadInputError(
                f"reservation: {self.reservation!r} is not used by market {self.market}; "
                f"set market to one of {', '.join(RESERVED)}, or take it out"
            )
        if not 1 <= self.hours <= FLEX_START_HOURS:
            raise BadInputError(f"hours: {self.hours} must be 1 to {FLEX_START_HOURS}")


@dataclass(frozen=True, kw_only=True)
class Head:
    """The node that schedules and holds no workers."""

    machine: str = ""
    """The provider's name of the machine kind."""
    disk_gb: int = 200
    """Root volume."""
    cpus: int = 8
    """Kubernetes: CPUs of the pod."""
    memory_gib: int = 64
    """Kubernetes: memory of the pod; at its end a training's model is there once in float32."""
    selector: dict[str, str] = field(default_factory=dict)
    """Kubernetes: labels of the nodes it may run on: no GPUs, none that may be taken away."""


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
    """Allows all traffic among its own members, in both directions (EFA asks for both), and nothing
    from elsewhere. Ray's default would open SSH to the world."""
    repository: str = ""
    """Name of the images' repository in the account's own registry; the roles may then pull from
    it. Empty: they lie elsewhere."""
    scratch: str = "/opt/dlami/nvme"
    """Where the machine image mounts the GPU machines' NVMe disks; empty: nowhere."""
    head: Head
    groups: dict[str, Group]


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Subnets of a GPU machine's further network interfaces, one each."""

    gvnic: tuple[str, ...] = ()
    """In networks of their own, each other than the first interface's."""
    rdma: tuple[str, ...] = ()
    """In a network made with the zone's RDMA network profile; gVNIC cannot live there."""


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
    networks: dict[str, Cards] = field(default_factory=dict)
    """By machine kind: the subnets of its fast network."""
    scratch: str = ""
    """Where the machine image mounts the GPU machines' local SSDs; empty: nowhere."""
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
    """Name of a user-assigned managed identity in the resource group, with our role. Every machine
    holds it, and `ray up` makes it Contributor of the group: see docs/guides/security.md."""
    scratch: str = "/mnt"
    """Where the machine image mounts the GPU machines' local disks; empty: nowhere."""
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
