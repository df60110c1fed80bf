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
from gristmill.corpora.mixture import MILLION
from gristmill.mixing.tables import INDEX
from gristmill.regressors.base import Array

HEADER = ("domain", "tokens")
CAP = "cap"
SEQ_LEN = 2048
"""Of `corpus mix` and of RegMix; caps for it hold for shorter ones that it is a multiple of."""


def read_sizes(uri: str) -> dict[str, float]:
    """Tokens of each domain, sorted by name.

    Args:
        uri: A corpus (`gristmill corpus tokenize`; of documents, bytes stand for tokens), or a CSV
            of the columns `domain` and `tokens`, and if wanted `cap`. Shares that sum to 1 do as
            well where only the natural mixture is wanted.

    Raises:
        BadInputError: Neither, a domain named twice, or one that is empty; names it.
    """
    where = io.redact(uri)
    if uri.endswith(".csv"):
        sizes = _csv(uri, where)
    else:
        sizes = {n: float(t) for n, t in Corpus(uri, _kind(uri)).sizes().items()}
    for name, tokens in sizes.items():
        if not math.isfinite(tokens) or tokens < 0:
            raise BadInputError(
                f"{where}: the tokens of domain {name!r} are {tokens:g}; give a number above 0"
            )
        if not tokens:
            raise BadInputError(
                f"{where}: domain {name!r} is empty ({tokens:g} tokens); add text, or leave it out"
            )
    if not sizes:
        raise BadInputError(f"{where} names no domain")
    return dict(sorted(sizes.items()))


def read_caps(uri: str, names: Sequence[str]) -> Array:
    """Largest weight of each domain: a CSV's column `cap`, or 1 where there is none.

    Raises:
        BadInputError: A cap does not lie in [0, 1].
    """
    if not uri.endswith(".csv"):
        return np.ones(len(names))
    where = io.redact(uri)
    found = {}
    for line in _lines(uri, where):
        name, text = (line["domain"] or "").strip(), (line.get(CAP) or "1").strip()
        found[name] = _number(text, f"{where}: the cap of domain {name!r}")
        if not 0 <= found[name] <= 1:
            raise BadInputError(f"{where}: the cap of domain {name!r} is {text}; give 0 to 1")
    return np.array([found[name] for name in names])


def weight_caps(
    sizes: Mapping[str, float], names: Sequence[str], *, tokens: float, epochs: float, seq_len: int
) -> Array:
    """Largest weights that repeat no domain more often than allowed, as the token ledger counts.

    The ledger counts whole sequences (a domain has (tokens - 1) // seq_len), a mixture keeps whole
    millionths, and the stream draws up to the next whole sequence: so sequences are rounded down,
    and the weight again.

    Args:
        sizes: Tokens of each domain.
        names: Domains, in the order wanted.
        tokens: Tokens of the planned training.
        epochs: Most epochs over a domain.
        seq_len: Tokens of a sequence in it; 0 counts tokens by themselves.

    Raises:
        BadInputError: The sizes are shares, or a domain is shorter than one sequence.
    """
    held = np.array([float(sizes[name]) for name in names])
    if held.sum() <= 1 + 1e-6:
        raise BadInputError(
            f"the tokens of all domains sum to {held.sum():g}: these are shares; caps need how "
            "many tokens each domain has"
        )
    if not seq_len:
        return np.asarray(np.minimum(epochs * held / tokens, 1.0))
    there = (held - 1) // seq_len
    if (there < 1).any():
        short = names[int(np.argmax(there < 1))]
        raise BadInputError(
            f"domain {short} has {sizes[short]:,.0f} tokens, less than one sequence of "
            f"{seq_len + 1}; take a shorter seq_len, or more text"
        )
    weights = np.floor(epochs * there) / np.ceil(tokens / seq_len)
    return np.asarray(np.minimum(np.floor(weights * MILLION) / MILLION, 1.0))


def planned_seq_len(uri: str, seq_len: int) -> int:
    """A training's tokens of a sequence: as given, or 2,048 on a token corpus, or unknown (0)."""
    return seq_len or (0 if uri.endswith(".csv") or _kind(uri) == "documents" else SEQ_LEN)


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


def _lines(uri: str, where: str) -> list[dict[str, str]]:
    try:
        lines = list(csv.DictReader(texts.StringIO(io.read_bytes(uri).decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{where} is not a CSV table in UTF-8: {error}") from error
    if not lines or not set(HEADER) <= set(lines[0]):
        raise BadInputError(f"{where} must have the columns {' and '.join(HEADER)} and rows")
    return lines


def _csv(uri: str, where: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, line in enumerate(_lines(uri, where), 2):
        name = (line["domain"] or "").strip()
        if not name or name == INDEX:
            raise BadInputError(
                f"{where}, line {number}: {name!r} cannot name a domain; give it another name"
            )
        if name in found:
            raise BadInputError(f"{where} names the domain {name!r} twice")
        found[name] = _number(line["tokens"] or "", f"{where}: the tokens of domain {name!r}")
    return found


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInputError(f"{what} are {text!r}, not a number") from None
