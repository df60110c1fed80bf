"""A mixture: the share of each domain's tokens in what is trained on, by name.

Weights are kept in millionths that sum to exactly one million. No search tells finer weights
apart (RegMix rounds to 2e-4, arXiv:2407.01492, section 3.1), and whole numbers make the stream's
order exact and periodic; see `apportionment.py`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.corpora.domains import check_domain, require_known

MILLION = 1_000_000
SUM_TOLERANCE = 1e-6
NOISE = 1e-3
"""Millionths below which a weight is float noise, and 0."""
NATURAL, UNIFORM = "natural", "uniform"
REMEDY = "divide each by their sum, if that was meant (from Python: Mixture.normalized(weights))"


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Weights on the simplex. Equal weights are equal mixtures, in whatever order they came."""

    weights: Mapping[str, float]
    """Domain -> share of the tokens; they sum to 1 and are kept in millionths, sorted by name."""

    def __post_init__(self) -> None:
        weights = {check_domain(str(name)): _number(name, w) for name, w in self.weights.items()}
        if not weights:
            raise BadInputError("a mixture needs at least one domain")
        total = math.fsum(weights.values())
        if abs(total - 1) > SUM_TOLERANCE:
            raise BadInputError(f"mixture weights sum to {total:.6g}, not 1; {REMEDY}")
        parts = _millionths({name: w / total for name, w in sorted(weights.items())})
        object.__setattr__(self, "weights", {name: n / MILLION for name, n in parts.items()})

    @property
    def parts(self) -> dict[str, int]:
        """Domain -> weight in millionths, of domains with a weight above 0; sums to a million."""
        found = {name: round(w * MILLION) for name, w in self.weights.items()}
        return {name: n for name, n in found.items() if n}

    @classmethod
    def normalized(cls, weights: Mapping[str, float]) -> "Mixture":
        """The mixture in proportion to weights of any sum, such as token counts."""
        checked = {str(name): _number(name, w) for name, w in weights.items()}
        total = math.fsum(checked.values())
        if not total > 0 or not math.isfinite(total):
            raise BadInputError(f"weights that sum to {total:.6g} cannot be normalised")
        return cls(weights={name: w / total for name, w in checked.items()})

    @classmethod
    def uniform(cls, domains: Iterable[str]) -> "Mixture":
        """The same weight for each domain."""
        return cls.normalized(dict.fromkeys(domains, 1.0))

    @property
    def text(self) -> str:
        """As `name=weight,name=weight`: whole, short, and the same for equal mixtures."""
        return ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())

    def require_domains(self, known: Iterable[str], what: str) -> None:
        """Refuse a mixture that names a domain which `what` does not have.

        Raises:
            BadInputError: One is unknown, whatever its weight.
        """
        require_known(self.weights, known, what)

    # -- disk ----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What `save` writes."""
        return {"format": 1, "weights": dict(self.weights)}

    def save(self, uri: str) -> None:
        """Write the mixture as JSON."""
        io.write_json(uri, self.to_json())

    @classmethod
    def load(cls, uri: str) -> "Mixture":
        """A mixture from JSON: what `save` wrote, or a plain object of names and weights.

        Raises:
            BadInputError: Not such a file, or weights that cannot be right; names the file.
        """
        data = io.read_json(uri)
        if isinstance(data, dict) and isinstance(data.get("weights"), dict):
            data = data["weights"]
        if not isinstance(data, dict):
            raise BadInputError(
                f"{io.redact(uri)} is no mixture: write an object of domain names and weights"
            )
        try:
            return cls(weights=data)
        except BadInputError as error:
            raise BadInputError(f"{io.redact(uri)}: {error}") from error


def settled(text: str) -> str:
    """`natural` and `uniform` as they are; a file's or a list's weights, checked, as a list.

    So a job that keeps the result is another job when the file's content is another.

    Raises:
        BadInputError: Not a mixture.
    """
    if text in (NATURAL, UNIFORM):
        return text
    return (
        _listed(text) if "=" in text and not text.endswith(".json") else Mixture.load(text)
    ).text


def read_mixture(text: str, natural: Mapping[str, float]) -> Mixture:
    """The mixture that words on the command line mean.

    Args:
        text: `natural`, `uniform`, `name=weight,name=weight`, or the URI of a JSON file.
        natural: Tokens (or bytes) that each domain has.

    Raises:
        BadInputError: Not a mixture, or one that names an unknown domain.
    """
    if text == NATURAL:
        return Mixture.normalized(natural)
    if text == UNIFORM:
        return Mixture.uniform(natural)
    mixture = _listed(settled(text))
    mixture.require_domains(natural, "the corpus")
    return mixture


def _listed(text: str) -> Mixture:
    pairs = [word.partition("=") for word in text.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise BadInputError(f"the mixture names the domain {name!r} twice")
    weights = {n: _parsed(n, w) for n, (_, _, w) in zip(names, pairs, strict=True)}
    total = math.fsum(weights.values())
    if total > 0 and abs(total - 1) > SUM_TOLERANCE:
        raise BadInputError(
            f"mixture weights sum to {total:.6g}, not 1; if their proportions were meant, give "
            f"{Mixture.normalized(weights).text}"
        )
    return Mixture(weights=weights)


def _parsed(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInputError(f"the weight of domain {name!r} is not a number: {text!r}") from None


def _number(name: Any, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise BadInputError(f"the weight of domain {name!r} is not a number: {weight!r}")
    if not math.isfinite(weight) or weight < -NOISE / MILLION:
        raise BadInputError(f"the weight of domain {name!r} is {weight}; give 0 or more")
    return max(float(weight), 0.0)


def _millionths(weights: Mapping[str, float]) -> dict[str, int]:
    """Whole millionths that sum to a million, by largest remainder; ties go by name.

    A domain that has a weight keeps one: it never drops out without a word.
    """
    exact = {name: w * MILLION for name, w in weights.items()}
    # A weight that is whole millionths but for float noise must not be rounded down.
    parts = {name: max(math.floor(x + 1e-6), 1 if x > NOISE else 0) for name, x in exact.items()}
    missing = MILLION - sum(parts.values())
    for name in sorted(exact, key=lambda name: (parts[name] - exact[name], name))[
        : max(missing, 0)
    ]:
        parts[name] += 1
    if missing < 0:  # many domains were raised to one; the largest can spare it
        parts[max(parts, key=lambda name: (parts[name], name))] += missing
    assert sum(parts.values()) == MILLION, "largest remainder lost a part"
    return parts
