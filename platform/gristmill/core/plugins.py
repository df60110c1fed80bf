"""Find a plug-in by name: the name is the file's stem, so only that one module is imported."""

import difflib
import importlib
import inspect
import pkgutil
from typing import Any

from gristmill.core.errors import BadInputError

PYTHON_PREFIX = "python:"


def names(package: str) -> list[str]:
    """The plug-ins of a package: its modules, less `base` and private ones."""
    module = importlib.import_module(package)
    found = [m.name for m in pkgutil.iter_modules(module.__path__) if not m.ispkg]
    return sorted(n for n in found if n != "base" and not n.startswith("_"))


def find(package: str, name: str, base: type) -> Any:
    """The class of a plug-in.

    Args:
        package: Where to look, such as `gristmill.filters`.
        name: A file's stem there, or `python:module:Class` for code outside this package.
        base: The class it must derive from.

    Raises:
        BadInputError: No such plug-in (the message lists the known and the nearest), or it is of
            another kind.
    """
    if name.startswith(PYTHON_PREFIX):
        return _outside(name, base)
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise BadInputError(f"no {_kind(base)} named {name!r}{hint}; known: {', '.join(known)}")
    module = importlib.import_module(f"{package}.{name}")
    own = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base) and cls.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise BadInputError(
            f"{module.__name__} must hold exactly one {_kind(base)}, has {len(own)}"
        )
    return own[0]


def module_of(name: str) -> str:
    """The module that a name `python:module:Class` would import; empty for our own plug-ins."""
    if not name.startswith(PYTHON_PREFIX):
        return ""
    return name.removeprefix(PYTHON_PREFIX).partition(":")[0]


def _outside(name: str, base: type) -> Any:
    module_name, _, class_name = name.removeprefix(PYTHON_PREFIX).partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise BadInputError(
            f"cannot load {name}: {error}; write python:module:Class with the module on PYTHONPATH"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise BadInputError(f"{name} is not a {_kind(base)}: derive it from {base.__module__}")
    return cls


def _kind(base: type) -> str:
    return base.__name__.lower()
