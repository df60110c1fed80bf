"""How many tokens each domain has, which makes the natural mixture and the caps on repetition."""

import csv
import io as texts
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.corpora.corpus import Corpus, kind_at
from gristmill.corpora.domains import require_known
from gristmill.regressors.base import Array

HEADER = ("domain", "tokens")


def read_sizes(uri: str) -> dict[str, float]:
    """Tokens of each domain, sorted by name.

    Args:
        uri: A corpus (`gristmill corpus tokenize`; of documents, bytes stand for tokens), or a CSV
            of the columns `domain` and `tokens`. Shares that sum to 1 do as well where only the
            natural mixture is wanted.

    Raises:
        BadInputError: Neither, a domain named twice, or one that is empty; names it.
    """
    where = io.redact(uri)
    if uri.endswith(".csv"):
        sizes = _csv(uri, where)
    else:
        sizes = {n: float(t) for n, t in Corpus(uri, _kind(uri)).sizes().items()}
    for name, tokens in sizes.items():
        if not (math.isfinite(tokens) and tokens > 0):
            raise BadInputError(
                f"{where}: domain {name!r} is empty ({tokens:g} tokens); add text, or leave it out"
            )
    if not sizes:
        raise BadInputError(f"{where} names no domain")
    return dict(sorted(sizes.items()))


def identity_of(uri: str) -> dict[str, object]:
    """What pins the sizes in a run."""
    if uri.endswith(".csv"):
        return {"sha256": io.sha256(uri)}
    return dict(Corpus(uri, _kind(uri)).identity())


def natural(sizes: Mapping[str, float], domains: Sequence[str], where: str) -> Array:
    """Token shares in the order of `domains`.

    Raises:
        BadInputError: A domain has no size, or a size no domain.
    """
    require_known(sizes, domains, "the fit")
    require_known(domains, sizes, where)
    tokens = np.array([sizes[name] for name in domains])
    return np.asarray(tokens / tokens.sum())


def _kind(uri: str) -> Literal["documents", "tokens"]:
    return "tokens" if kind_at(uri) == "tokens" else "documents"


def _csv(uri: str, where: str) -> dict[str, float]:
    try:
        lines = list(csv.DictReader(texts.StringIO(io.read_bytes(uri).decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{where} is not a CSV table in UTF-8: {error}") from error
    if not lines or not set(HEADER) <= set(lines[0]):
        raise BadInputError(f"{where} must have the columns {' and '.join(HEADER)} and rows")
    found: dict[str, float] = {}
    for line in lines:
        name = (line["domain"] or "").strip()
        if name in found:
            raise BadInputError(f"{where} names the domain {name!r} twice")
        try:
            found[name] = float(line["tokens"] or "")
        except ValueError:
            raise BadInputError(
                f"{where}: the tokens of domain {name!r} are {line['tokens']!r}, not a number"
            ) from None
    return found
