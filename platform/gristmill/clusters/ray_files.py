"""Checks of Ray's cluster YAML: Ray's schema and semantics, the providers' models, our rules."""

import copy
import json
import re
from pathlib import Path
from typing import Any

from gristmill.clusters import providers
from gristmill.clusters.command_rules import check_installs, check_join, check_start_command
from gristmill.clusters.findings import Checked, at, check_schema
from gristmill.clusters.rules import check_gpus, check_image, check_range

CLOUDS = ("aws", "gcp", "azure")
HEAD_MAY_WORK_UP_TO = 8
"""Workers of a cluster so small that its head may run tasks too."""
LONG_IDLE_MINUTES = 60
TOKEN = "~/.ray/auth_token"
CREDENTIALS = re.compile(
    r"\.aws|gcloud|\.azure|\.kube|\.netrc|\.ssh(?:/|$)|id_(?:rsa|ed25519|ecdsa)|\.pem$|\.p12$|credential"
    r"|service.?account|\.docker/config|\.env$|\.huggingface|\.pgpass"
)
OPEN_OPTIONS = {
    r"--privileged": "gives the machine to the container",
    r"docker\.sock": "lets the container start others as root",
    r"--publish|(?:^|\s)-[pP](?=[\s=\d])|--publish-all": "publishes a port",
    r"--cap-add[= ](?:ALL|SYS_ADMIN)": "gives the machine to the container",
    r"--pid[= ]host": "shows the container every process of the machine",
    r"(?:--volume|-v)[= ]/:": "mounts the machine's whole disk",
    r"--security-opt[= ]\S*unconfined": "takes the container's confinement away",
}


def check_ray(checked: Checked, data: dict[str, Any]) -> None:
    """Check one cluster file."""
    import ray.autoscaler

    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    before = len(checked.findings)
    check_schema(checked, json.loads(schema.read_text()), data)
    checked.means.append(f"Ray {ray.__version__}'s schema and semantics")
    if len(checked.findings) > before:
        return  # what follows relies on the shape
    _check_semantics(checked, data)
    _check_groups(checked, data)
    _check_commands(checked, data)
    _check_images(checked, data)
    if at(data, "provider.type") in CLOUDS:
        _check_setup(checked, data)
        _check_network(checked, data)
        providers.check_nodes(checked, data)
    if at(data, "provider.type") == "local":
        _check_own_machines(checked, data)


def _check_semantics(checked: Checked, data: dict[str, Any]) -> None:
    """What Ray itself refuses once its defaults are filled in."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        if at(data, "provider.type") == "fake_multinode":  # its defaults are not in Ray's wheel
            validate_config({"cluster_synced_files": [], **copy.deepcopy(data)})
        else:
            validate_config(prepare_config(copy.deepcopy(data)))
    except Exception as error:  # Ray raises ValueError, RuntimeError, AssertionError, KeyError...
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        checked.wrong("the file", f"Ray refuses it: {problem}")


def _check_groups(checked: Checked, data: dict[str, Any]) -> None:
    head = data.get("head_node_type", "")
    groups = data.get("available_node_types") or {}
    most = data.get("max_workers", 0)
    for name, group in groups.items():
        place = f"available_node_types.{name}"
        resources = group.get("resources", {})
        check_range(
            checked,
            f"{place}.min_workers",
            group.get("min_workers", 0),
            group.get("max_workers", most),
        )
        check_gpus(checked, f"{place}.resources", resources.get("CPU", 0), resources.get("GPU", 0))
        if name != head and group.get("max_workers", 0) > most:
            checked.wrong(
                "max_workers",
                f"{most} is below the {group['max_workers']} of {name}; it would cap it silently",
            )
    if head not in groups:
        return
    resources = groups[head].get("resources", {})
    if resources.get("GPU", 0):
        checked.wrong(
            f"available_node_types.{head}.resources.GPU",
            f"the head holds {resources['GPU']} GPUs, paid for as long as the cluster lives; "
            "give them to a group that can shrink to 0",
        )
    if most > HEAD_MAY_WORK_UP_TO and resources.get("CPU", 1):
        checked.wrong(
            f"available_node_types.{head}.resources.CPU",
            f"tasks may run on the head of {most} workers and starve its scheduler; set CPU to 0",
        )


def _check_commands(checked: Checked, data: dict[str, Any]) -> None:
    cloud = at(data, "provider.type")
    if cloud == "fake_multinode":
        _check_comments(checked)
        return
    heads, workers = (
        list(data.get(f"{who}_start_ray_commands") or []) for who in ("head", "worker")
    )
    for name, commands in (
        ("head_start_ray_commands", heads),
        ("worker_start_ray_commands", workers),
    ):
        if not commands:
            checked.wrong(name, "missing: Ray's own defaults start it open, without a token")
        for index, command in enumerate(commands):
            check_start_command(checked, f"{name}.{index}", command)
        if commands and cloud in CLOUDS and not any("ray stop" in c for c in commands):
            checked.wrong(
                name, "no `ray stop` first: a second `ray up` finds the old Ray and fails"
            )
    if heads and not any("--autoscaling-config" in command for command in heads):
        checked.wrong(
            "head_start_ray_commands",
            "no --autoscaling-config=~/ray_bootstrap_config.yaml: the cluster would never grow",
        )
    check_join(checked, heads, workers)
    if cloud in CLOUDS:
        providers.check_notices(checked, cloud, workers)
    _check_mounts(checked, data.get("file_mounts") or {})
    if data.get("idle_timeout_minutes", 5) > LONG_IDLE_MINUTES:
        checked.wrong(
            "idle_timeout_minutes",
            f"{data['idle_timeout_minutes']} minutes of idle machines are paid for; "
            f"use {LONG_IDLE_MINUTES} or less",
        )


def _check_setup(checked: Checked, data: dict[str, Any]) -> None:
    """Lists that Ray fills with installs of its own where a file leaves them out."""
    for key in ("setup_commands", "head_setup_commands"):
        if key not in data:
            checked.wrong(
                key,
                "missing: Ray's own defaults run inside the containers then, and install what is "
                f"not pinned, or fail; write {key}: [] where the image holds everything",
            )


def _check_comments(checked: Checked) -> None:
    """A file that is started by hand shows a line that starts it closed."""
    for number, line in enumerate(checked.text.splitlines(), start=1):
        if line.startswith("#") and "ray start --" in line:
            check_start_command(checked, f"line {number}", line.lstrip("# "))


def _check_mounts(checked: Checked, mounts: dict[str, str]) -> None:
    if TOKEN not in mounts:
        checked.wrong("file_mounts", f'no token goes to the nodes; add "{TOKEN}": "{TOKEN}"')
    elif "token" not in mounts[TOKEN].rpartition("/")[2]:
        checked.wrong(
            f"file_mounts.{TOKEN}", f"from {mounts[TOKEN]!r}, which is no token's file; use {TOKEN}"
        )
    for there, here in mounts.items():
        if there != TOKEN and (CREDENTIALS.search(here) or CREDENTIALS.search(there)):
            checked.wrong(
                f"file_mounts.{there}",
                f"{here!r} copies credentials of yours to every node; give nodes a role",
            )


def _check_images(checked: Checked, data: dict[str, Any]) -> None:
    import ray

    groups = data.get("available_node_types") or {}
    containers = {"docker": data.get("docker") or {}}
    for name, group in groups.items():
        containers[f"available_node_types.{name}.docker"] = group.get("docker", {})
    for place, docker in containers.items():
        for key, value in docker.items():
            if key in ("image", "head_image", "worker_image"):
                check_image(checked, f"{place}.{key}", value)
            if key.endswith("run_options"):
                _check_run_options(checked, f"{place}.{key}", value)
    lists = {key: data for key in ("setup_commands", "initialization_commands")}
    lists |= {f"{who}_setup_commands": data for who in ("head", "worker")}
    for key, owner in lists.items():
        for index, command in enumerate(owner.get(key) or []):
            check_installs(checked, f"{key}.{index}", command, ray.__version__)
    for name, group in groups.items():
        for index, command in enumerate(group.get("worker_setup_commands") or []):
            place = f"available_node_types.{name}.worker_setup_commands.{index}"
            check_installs(checked, place, command, ray.__version__)


def _check_run_options(checked: Checked, place: str, options: list[str]) -> None:
    for index, option in enumerate(options or []):
        for pattern, harm in OPEN_OPTIONS.items():
            if re.search(pattern, option):
                checked.wrong(f"{place}.{index}", f"{option!r} {harm}; take it out")


def _check_network(checked: Checked, data: dict[str, Any]) -> None:
    if data["provider"].get("use_internal_ips") is not True:
        checked.wrong("provider.use_internal_ips", "machines get public addresses; set it to true")
    if data["provider"].get("use_external_head_ip"):
        checked.wrong(
            "provider.use_external_head_ip", "the head gets a public address; take it out"
        )
    rules = at(data, "provider.security_group.IpPermissions", [])
    for index, rule in enumerate(rules):
        if "0.0.0.0/0" in json.dumps(rule) or "::/0" in json.dumps(rule):
            checked.wrong(
                f"provider.security_group.IpPermissions.{index}",
                f"port {rule.get('FromPort', 'any')} is open to the world; allow the group itself",
            )
    if at(data, "auth.ssh_user") == "root":
        checked.wrong("auth.ssh_user", "'root': log in as a user who may run docker")


def _check_own_machines(checked: Checked, data: dict[str, Any]) -> None:
    """Workers of other machines reach the head by an address that means the head there too."""
    others = [ip for ip in data["provider"].get("worker_ips") or [] if not _loopback(ip)]
    if not others:
        return
    if _loopback(at(data, "provider.head_ip", "")):
        checked.wrong(
            "provider.head_ip",
            f"{data['provider']['head_ip']!r} with worker_ips {others}: each would dial itself; "
            "give the head's address on their network",
        )
    for index, command in enumerate(data.get("head_start_ray_commands") or []):
        said = re.search(r"--node-ip-address[=\s]+(\S+)", command)
        if said and _loopback(said[1]):
            checked.wrong(
                f"head_start_ray_commands.{index}",
                f"--node-ip-address={said[1]} with worker_ips: no other machine reaches "
                "it; take it out",
            )


def _loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("localhost", "::1")
