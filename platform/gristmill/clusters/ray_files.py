"""Checks of Ray's cluster YAML: Ray's schema and semantics, the providers' models, our rules."""

import copy
import json
from pathlib import Path
from typing import Any

from gristmill.clusters import providers
from gristmill.clusters.findings import Checked, at, check_schema
from gristmill.clusters.rules import check_gpus, check_image, check_range, check_start_command

CLOUDS = ("aws", "gcp", "azure")
HEAD_MAY_WORK_UP_TO = 8
"""Workers of a cluster so small that its head may run tasks too."""
LONG_IDLE_MINUTES = 60


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
        _check_network(checked, data)
        providers.check_nodes(checked, data)


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
    if at(data, "provider.type") == "fake_multinode":
        return
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = data.get(name)
        if not commands:
            checked.wrong(
                name, "missing: Ray's own defaults open the dashboard on 0.0.0.0 without a token"
            )
        for index, command in enumerate(commands or []):
            check_start_command(checked, f"{name}.{index}", command)
    if "auth_token" not in json.dumps(data.get("file_mounts", {})):
        checked.wrong(
            "file_mounts",
            'no token goes to the nodes; add "~/.ray/auth_token": "~/.ray/auth_token"',
        )
    if data.get("idle_timeout_minutes", 5) > LONG_IDLE_MINUTES:
        checked.wrong(
            "idle_timeout_minutes",
            f"{data['idle_timeout_minutes']} minutes of idle machines are paid for; "
            f"use {LONG_IDLE_MINUTES} or less",
        )


def _check_images(checked: Checked, data: dict[str, Any]) -> None:
    for key in ("image", "head_image", "worker_image"):
        if key in (data.get("docker") or {}):
            check_image(checked, f"docker.{key}", data["docker"][key])
    for name, group in (data.get("available_node_types") or {}).items():
        if "worker_image" in group.get("docker", {}):
            check_image(
                checked,
                f"available_node_types.{name}.docker.worker_image",
                group["docker"]["worker_image"],
            )
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        for index, command in enumerate(data.get(key) or []):
            if "pip install" in command and "==" not in command and "-r " not in command:
                checked.wrong(
                    f"{key}.{index}", f"{command!r} installs unpinned packages; add ==version"
                )


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
