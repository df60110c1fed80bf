"""Filter recipes under DataComp's names. The caller fills in pool and out."""

import ast
from typing import Any

from tyro import MISSING

from gristmill.core import plugins
from gristmill.core.errors import BadInputError
from gristmill.filters.base import Filter
from gristmill.filters.basic import Basic
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.no_filter import NoFilter
from gristmill.pools.selection import FilterJob


def _job(chosen: Filter) -> FilterJob:
    return FilterJob(filter=chosen, pool=MISSING, out=MISSING)


def no_filter() -> FilterJob:
    """Every uid of the pool."""
    return _job(NoFilter())


def basic() -> FilterJob:
    """English, more than two words, at least 200 px, aspect ratio at most 3."""
    return _job(Basic())


def clip_score() -> FilterJob:
    """Best pairs by CLIP score: --arch l14|b32 with --fraction F or --threshold T."""
    return _job(_blank(ClipScore))


def clip_l14_top30() -> FilterJob:
    """Best 30 % of the pool by L/14 CLIP score, DataComp's strongest simple baseline."""
    return _job(ClipScore(arch="l14", fraction=0.3))


def _blank(kind: type[ClipScore]) -> ClipScore:
    """A ClipScore whose cut the caller gives; it checks itself once the flags are in."""
    blank = object.__new__(kind)
    for name, value in (("arch", "l14"), ("fraction", None), ("threshold", None)):
        object.__setattr__(blank, name, value)
    return blank


def _expression(text: str) -> FilterJob:
    """A job from an expression such as `basic & clip_score(arch=l14, fraction=0.3)`.

    Names are filters of this package, or `python:module:Class` for one of your own.

    Raises:
        BadInputError: Not such an expression, an unknown filter, or a wrong field.
    """
    parts = [_part(word.strip()) for word in text.split("&")]
    chosen = parts[0]
    for part in parts[1:]:
        chosen = chosen & part
    return _job(chosen)


def _part(word: str) -> Filter:
    name, bracket, rest = word.partition("(")
    if bracket and not rest.endswith(")"):
        raise BadInputError(f"{word!r} lacks its closing bracket")
    fields: dict[str, Any] = {}
    for pair in filter(None, (p.strip() for p in rest.removesuffix(")").split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInputError(f"{pair!r} in {word!r} is not field=value")
        fields[key.strip()] = _literal(value.strip())
    kind = plugins.find("gristmill.filters", name.strip(), Filter)
    try:
        made = kind(**fields)
    except TypeError as error:
        raise BadInputError(f"{word!r}: {error}") from error
    assert isinstance(made, Filter)
    return made


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
