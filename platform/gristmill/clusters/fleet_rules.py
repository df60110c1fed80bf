"""What a fleet must hold to be rendered: kinds that exist, zones of a region, ranks that fit."""

import re
from typing import Any

from gristmill.clusters.fleet import Fleet
from gristmill.clusters.machines import Machine, machine
from gristmill.clusters.rules import ranks_of
from gristmill.clusters.sites import Aws, Azure, Gcp, Group
from gristmill.core.errors import BadInputError

OLDEST_RAY = (2, 52)
"""The first whose clusters can ask for a token."""
MARKETS = {
    "aws": ("spot", "on-demand", "reserved", "capacity-block"),
    "gcp": ("spot", "on-demand", "reserved", "flex-start"),
    "azure": ("spot", "on-demand"),  # Ray's template of a machine has no field for more
}


def check_fleet(fleet: Fleet) -> None:
    """Refuse a fleet whose files would be wrong.

    Raises:
        BadInputError: Its message begins with the field.
    """
    version = re.fullmatch(r"(\d+)\.(\d+)\.\d+", fleet.ray)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_RAY:
        raise BadInputError(
            f"ray: {fleet.ray!r} must be a whole version, 2.52.0 or newer: "
            "older ones have no token authentication"
        )
    if fleet.idle_minutes < 1:
        raise BadInputError(f"idle_minutes: {fleet.idle_minutes} must be 1 or more")
    for cloud in MARKETS:
        site = getattr(fleet, cloud)
        if site is not None:
            _check_site(cloud, site)
    if fleet.aws and not re.fullmatch(r"\d{12}", fleet.aws.account):
        raise BadInputError(f"aws.account: {fleet.aws.account!r} is not 12 digits")
    _check_job(fleet)


def _check_site(cloud: str, site: Aws | Gcp | Azure) -> None:
    zone = getattr(site, "zone", site.region)
    if not zone.startswith(site.region):
        raise BadInputError(f"{cloud}.zone: {zone!r} is not a zone of region {site.region!r}")
    _kind(cloud, f"{cloud}.head", site.head.machine)
    for name, group in site.groups.items():
        place = f"{cloud}.groups.{name}"
        holds = _kind(cloud, place, group.machine)
        if group.market not in MARKETS[cloud]:
            raise BadInputError(
                f"{place}.market: {group.market!r} is not offered here; "
                f"known: {', '.join(MARKETS[cloud])}"
            )
        if isinstance(site, Gcp) and group.fast_network:
            _check_cards(site, group, holds)


def _kind(cloud: str, place: str, kind: str) -> Machine:
    try:
        return machine(cloud, kind)
    except BadInputError as error:
        raise BadInputError(f"{place}.machine: {error}") from error


def _check_cards(site: Gcp, group: Group, holds: Machine) -> None:
    """A subnet for every further interface of a machine with a fast network."""
    given: Any = site.networks.get(group.machine)
    for name, wanted in (("gvnic", holds.gvnics), ("rdma", holds.rdma)):
        have = len(getattr(given, name)) if given else 0
        if have != wanted:
            raise BadInputError(
                f"gcp.networks.{group.machine}.{name}: {have} subnets, the machine has {wanted} "
                "such interfaces; give one each, or set fast_network: false in the group"
            )


def _check_job(fleet: Fleet) -> None:
    job = fleet.job
    asked = ranks_of(job.command)
    if asked and asked != job.ranks:
        raise BadInputError(f"job.ranks: {job.ranks}, but the command says --workers {asked}")
    if fleet.kubernetes:
        group = fleet.kubernetes.groups[job.group]
        if group.gpus and job.ranks > group.gpus * group.max:
            raise BadInputError(
                f"job.ranks: {job.ranks} ranks, kubernetes.groups.{job.group} holds "
                f"{group.gpus * group.max} GPUs at most"
            )
