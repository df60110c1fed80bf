"""Configs are frozen dataclasses; here they become JSON, a hash, and objects again.

A nested config is stored as its fields and `"type": "module:Class"`. Reading back imports only
classes of this package, or of a module that the caller allows by name.
"""

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterable
from typing import Any

from gristmill.core.errors import BadInputError

VOLATILE_FIELDS = frozenset({"out", "execution"})
"""Fields that say where a job runs, not what it makes; they do not count in its hash. A config
class adds its own in a class variable `volatile_fields`: its patience, or how far it goes on."""


def to_dict(config: Any) -> Any:
    """A config as plain JSON values.

    Raises:
        TypeError: A field holds something that is not JSON, a dataclass, a list or a dict.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        kind = type(config)
        fields = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": f"{kind.__module__}:{kind.__qualname__}", **fields}
    if isinstance(config, list | tuple):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return {str(key): to_dict(value) for key, value in config.items()}
    if config is None or isinstance(config, bool | int | float | str):
        return config
    raise TypeError(f"{config!r} cannot stand in a config: {type(config).__name__} is not JSON")


def from_dict(data: Any, *, allow: Iterable[str] = ()) -> Any:
    """The config that `to_dict` wrote; its classes check themselves again.

    Args:
        data: What `to_dict` returned, perhaps through JSON.
        allow: Modules outside this package whose classes may be made.

    Raises:
        BadInputError: The type is unknown, not allowed, or a field is missing or too much.
    """
    if isinstance(data, list):
        return tuple(from_dict(item, allow=allow) for item in data)
    if not isinstance(data, dict):
        return data
    if "type" not in data:
        return {key: from_dict(value, allow=allow) for key, value in data.items()}
    cls = _class_of(str(data["type"]), frozenset(allow))
    fields = {key: from_dict(v, allow=allow) for key, v in data.items() if key != "type"}
    try:
        return cls(**fields)
    except TypeError as error:
        raise BadInputError(
            f"config of {data['type']} does not fit this version: {error}"
        ) from error


def _class_of(name: str, allow: frozenset[str]) -> Any:
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] != "gristmill" and module not in allow:
        raise BadInputError(f"config names the class {name}, which is outside gristmill")
    try:
        cls: Any = importlib.import_module(module)
        for part in qualname.split("."):
            cls = getattr(cls, part)
    except (ImportError, AttributeError) as error:
        raise BadInputError(
            f"config names the class {name}, which is not there: {error}"
        ) from error
    if not dataclasses.is_dataclass(cls):
        raise BadInputError(f"config names {name}, which is not a config class")
    return cls


def identity(data: dict[str, Any]) -> dict[str, Any]:
    """A job's `to_dict` without the fields that do not shape its result."""
    return {key: value for key, value in _lasting(data).items() if key not in VOLATILE_FIELDS}


def _lasting(data: Any) -> Any:
    if isinstance(data, list):
        return [_lasting(item) for item in data]
    if not isinstance(data, dict):
        return data
    skipped = _volatile_of(str(data.get("type", "")))
    return {key: _lasting(value) for key, value in data.items() if key not in skipped}


def _volatile_of(name: str) -> tuple[str, ...]:
    try:
        return tuple(getattr(_class_of(name, frozenset()), "volatile_fields", ()))
    except BadInputError:  # another's class, or no class: all its fields count
        return ()


def config_hash(config: Any) -> str:
    """64 hex digits that change when any field that shapes the result changes."""
    data = to_dict(config)
    if isinstance(data, dict):
        data = identity(data)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What differs between two `to_dict` results, as `field: old -> new` lines."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
