"""Filter recipes under DataComp's names, and any filter by its own name."""

import ast
import dataclasses
from pathlib import Path
from typing import Any

from tyro import MISSING

import gristmill.filters
from gristmill.core import plugins
from gristmill.core.errors import BadInputError
from gristmill.filters.base import Filter
from gristmill.filters.basic import Basic
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.image_based import ImageBased
from gristmill.filters.image_based_intersect_clip_score import ImageBasedIntersectClipScore
from gristmill.filters.laion2b import Laion2b
from gristmill.filters.no_filter import NoFilter
from gristmill.filters.text_based import TextBased
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


def laion2b() -> FilterJob:
    """English by gcld3 (extra: cld3) and B/32 score of 0.28; --detector fasttext is a variant."""
    return _job(Laion2b())


def text_based() -> FilterJob:
    """English, and a word of the caption names an ImageNet-21k class."""
    return _job(TextBased())


def image_based() -> FilterJob:
    """English, and the picture falls in a cluster that a --targets picture falls in."""
    return _job(_blank(ImageBased, centroids=MISSING, targets=MISSING))


def image_based_intersect_clip_score() -> FilterJob:
    """Score cut (--fraction or --threshold), then image_based: DataComp's best baseline."""
    return _job(_blank(ImageBasedIntersectClipScore, centroids=MISSING, targets=MISSING))


def fineweb() -> FilterJob:
    """For text pools: language, Gopher, C4 and FineWeb rules, MinHash, in FineWeb's order."""
    names = ("language", "gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality")
    return _expression(" & ".join((*names, "caption_duplicates")))


def _blank(kind: type[Filter], **given: Any) -> Filter:
    """A filter whose fields the caller gives; it checks itself once the flags are in."""
    blank = object.__new__(kind)
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING
        value = given.get(field.name, MISSING if required else field.default)
        object.__setattr__(blank, field.name, value)
    return blank


def _more() -> dict[str, str]:
    """Every other filter of the package with the first line of its file; nothing is imported."""
    folder = Path(next(iter(gristmill.filters.__path__)))
    found = {}
    for name in plugins.names("gristmill.filters"):
        if name not in globals():
            text = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())) or ""
            found[name] = text.splitlines()[0]
    return found


def _expression(text: str) -> FilterJob:
    """A job from an expression such as `basic & clip_score(arch=l14, fraction=0.3)`.

    Names are filters of this package, or `python:module:Class` for one of your own. One name alone
    takes its fields as flags.

    Raises:
        BadInputError: Not such an expression, an unknown filter, or a wrong field.
    """
    if text.strip() in plugins.names("gristmill.filters"):
        return _job(_blank(plugins.find("gristmill.filters", text.strip(), Filter)))
    parts = [_part(word.strip()) for word in _split(text, "&")]
    chosen = parts[0]
    for part in parts[1:]:
        chosen = chosen & part
    return _job(chosen)


def _part(word: str) -> Filter:
    name, bracket, rest = word.partition("(")
    if bracket and not rest.endswith(")"):
        raise BadInputError(f"{word!r} lacks its closing bracket")
    fields: dict[str, Any] = {}
    for pair in filter(None, (p.strip() for p in _split(rest.removesuffix(")"), ","))):
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


def _split(text: str, mark: str) -> list[str]:
    """The text between marks that stand outside brackets and quotes."""
    words, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        if letter == mark and not depth and not quote:
            words.append("")
        else:
            words[-1] += letter
    return words


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
