"""A fleet from its YAML file: each field is checked, an unknown one is refused by its place."""

import dataclasses
import difflib
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gristmill.clusters.fleet import PLAIN, Fleet
from gristmill.clusters.fleet_rules import check_fleet
from gristmill.core import io
from gristmill.core.errors import BadInputError


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
        check_fleet(fleet)
    except BadInputError as error:
        raise BadInputError(f"{io.redact(uri)}: {error}") from error
    return fleet


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
