"""Domains have names, and everything about them goes by name, never by position."""

import difflib
import re
from collections.abc import Iterable, Sequence

from gristmill.core import io
from gristmill.core.errors import BadInputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RESERVED = frozenset({"index", "type"})
"""`index` is a column of tables of mixtures, `type` a key of stored configs."""
SPLITS = ("train", "validation")


def check_domain(name: str) -> str:
    """The name, when it can be one.

    Raises:
        BadInputError: It cannot: it becomes a folder, a column and a key.
    """
    if not NAME.fullmatch(name) or name in RESERVED:
        raise BadInputError(
            f"{name!r} cannot name a domain: use up to 64 letters, digits, '_', '-' and '.', "
            f"beginning with a letter or digit, and none of {', '.join(sorted(RESERVED))}"
        )
    return name


def parse_sources(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Domain -> URIs from words `name=URI`; a name given again adds to the domain. Sorted.

    Raises:
        BadInputError: A word of another shape, or a URI that carries a password.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, uri = word.partition("=")
        if not equals or not uri:
            raise BadInputError(f"{io.redact(word)!r} is not name=URI, such as books=/data/books")
        if io.has_credentials(uri):
            raise BadInputError(
                f"the URI of domain {name} carries a password or signature, which would be stored; "
                "give credentials through the environment or the machine's role"
            )
        found.setdefault(check_domain(name), []).append(uri)
    return {name: tuple(dict.fromkeys(uris)) for name, uris in sorted(found.items())}


def require_known(asked: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse names that are not there.

    Args:
        asked: Names wanted.
        known: Names there are.
        what: Who has the known ones, for the message.

    Raises:
        BadInputError: One is unknown; the message has the nearest and all known ones.
    """
    there = sorted(known)
    for name in asked:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; perhaps you meant {near[0]}" if near else ""
            raise BadInputError(
                f"no domain {name!r} in {what}{hint}; it has: {', '.join(there) or 'none'}"
            )
