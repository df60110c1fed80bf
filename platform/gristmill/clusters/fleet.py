"""The fleet: one short YAML file that says where clusters run, on which machines, how many.

Every field is checked when it is read, and an unknown one is refused by its place in the file.
"""

import dataclasses
import difflib
import re
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

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


def load(uri: str) -> Fleet:
    """Read a fleet file.

    Raises:
        BadInputError: It is not YAML, or a field is unknown, missing or wrong; its place is named.
    """
    import yaml

    try:
        data = yaml.safe_load(io.read_bytes(uri))
    except yaml.YAMLError as error:
        raise BadInputError(f"{io.redact(uri)} is not YAML: {error}") from error
    try:
        fleet: Fleet = _build(Fleet, data, "")
        for cloud in ("aws", "gcp", "azure"):
            site = getattr(fleet, cloud)
            if site is not None:
                _check_site(cloud, site)
    except BadInputError as error:
        raise BadInputError(f"{io.redact(uri)}: {error}") from error
    return fleet


def _check_site(cloud: str, site: Any) -> None:
    """Machine kinds exist, and group names fit every provider's naming."""
    wanted = {
        "head": site.head.machine,
        **{f"groups.{n}": g.machine for n, g in site.groups.items()},
    }
    for place, kind in wanted.items():
        try:
            machine(cloud, kind)
        except BadInputError as error:
            raise BadInputError(f"{cloud}.{place}.machine: {error}") from error


def _build(kind: Any, data: Any, place: str) -> Any:
    """A value of a type from plain YAML, with errors that name the place in the file."""
    if get_origin(kind) in (types.UnionType, Union):
        return _build(next(k for k in get_args(kind) if k is not types.NoneType), data, place)
    if dataclasses.is_dataclass(kind):
        return _build_fields(kind, data, place)
    if get_origin(kind) is dict:
        if not isinstance(data, dict):
            raise BadInputError(f"{place}: {data!r} is not a mapping")
        return {
            _key(k, place): _build(get_args(kind)[1], v, f"{place}.{k}") for k, v in data.items()
        }
    if get_origin(kind) is tuple:
        if not isinstance(data, list):
            raise BadInputError(f"{place}: {data!r} is not a list")
        return tuple(_build(get_args(kind)[0], v, f"{place}.{i}") for i, v in enumerate(data))
    if get_origin(kind) is Literal:
        if data not in get_args(kind):
            raise BadInputError(f"{place}: {data!r} is not one of {', '.join(get_args(kind))}")
        return data
    return _plain(kind, data, place)


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str) or not PLAIN.fullmatch(key):
        raise BadInputError(f"{place}: {key!r} is not a plain name")
    return key


def _plain(kind: Any, data: Any, place: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise BadInputError(f"{place}: {data!r} must be {kind.__name__}; quote it if it is text")
    if kind is str and not place.endswith("command") and data and not PLAIN.fullmatch(data):
        raise BadInputError(
            f"{place}: {data!r} holds a character other than letters and . _ : / @ + -"
        )
    if kind is str and ("\n" in data or '"' in data or "$" in data or "`" in data):
        raise BadInputError(f"{place}: {data!r} holds a quote, $ or a line break")
    return data


def _build_fields(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise BadInputError(f"{place or 'the file'}: {data!r} is not a mapping")
    hints = get_type_hints(kind)
    for key in data:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; perhaps {near[0]}" if near else f"; known: {', '.join(hints)}"
            raise BadInputError(f"{f'{place}.{key}'.lstrip('.')}: no such field{hint}")
    needed = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(needed - set(data)):
        raise BadInputError(f"{f'{place}.{missing[0]}'.lstrip('.')}: missing")
    values = {k: _build(hints[k], v, f"{place}.{k}".lstrip(".")) for k, v in data.items()}
    try:
        return kind(**values)
    except BadInputError as error:
        raise BadInputError(f"{place}: {error}" if place else str(error)) from error
