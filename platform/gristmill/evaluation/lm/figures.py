"""From losses by sequence to the figures of a table, with their 95 % intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.evaluation.intervals import Z
from gristmill.evaluation.lm.held_out import Floats, spread


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean loss and its standard error over sequences (None for fewer than two)."""

    nats: float
    error: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, normal. Sequences of one document are alike, so it is rather too narrow."""
        if self.error is None:
            return None
        return self.nats - Z * self.error, self.nats + Z * self.error

    def plain(self) -> dict[str, Any]:
        """As JSON: also as a perplexity, exp of the mean and of the interval's ends."""
        span = self.interval
        return {
            "nats_per_token": self.nats,
            "standard_error": self.error,
            "interval_95": list(span) if span else None,
            "perplexity": _exp(self.nats),
            "perplexity_interval_95": [_exp(x) for x in span] if span else None,
        }


def estimate(losses: Floats) -> Estimate:
    """Of the losses of one domain's sequences, or of differences of two models' on the same."""
    mean, error = spread(losses)
    return Estimate(nats=mean, error=None if math.isnan(error) else error)


def unweighted(parts: Mapping[str, Estimate]) -> Estimate:
    """The mean over domains, whatever their sizes."""
    return _weighted(parts, dict.fromkeys(parts, 1.0))


def by_tokens(parts: Mapping[str, Estimate], sequences: Mapping[str, int]) -> Estimate:
    """The mean over all tokens."""
    return _weighted(parts, {name: float(sequences[name]) for name in parts})


def _weighted(parts: Mapping[str, Estimate], weights: Mapping[str, float]) -> Estimate:
    total = sum(weights.values())
    nats = sum(weights[name] * part.nats for name, part in parts.items()) / total
    if any(part.error is None for part in parts.values()):
        return Estimate(nats=nats, error=None)
    squares = sum((weights[name] * (part.error or 0.0)) ** 2 for name, part in parts.items())
    return Estimate(nats=nats, error=math.sqrt(squares) / total)


def bits_per_byte(nats: float, tokens: int, text_bytes: int | None) -> float | None:
    """Nats a token as bits a byte of text; None without text."""
    return nats / math.log(2) * tokens / text_bytes if text_bytes else None


def _exp(nats: float) -> float | None:
    """JSON has no infinity."""
    return math.exp(nats) if nats < 700 else None


def domain_figures(
    losses: Floats, *, seq_len: int, text_bytes: int | None, baseline: Floats | None
) -> dict[str, Any]:
    """A domain's entry in results.json."""
    tokens, own = len(losses) * seq_len, estimate(losses)
    found: dict[str, Any] = {
        "sequences": len(losses),
        "tokens": tokens,
        "bytes": text_bytes,
        **own.plain(),
        "bits_per_byte": bits_per_byte(own.nats, tokens, text_bytes),
    }
    if baseline is not None:
        other = estimate(baseline)
        found["trigram"] = {
            **other.plain(),
            "bits_per_byte": bits_per_byte(other.nats, tokens, text_bytes),
        }
        # By sequence, so that what makes a sequence hard for both cancels.
        found["model_less_trigram"] = _gap(estimate(losses - baseline))
    return found


def averages(
    domains: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Estimate],
    other: Mapping[str, Estimate],
    less: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Entries mean_of_domains and all_tokens.

    Args:
        domains: Entries of the domains.
        own: The model's losses.
        other: The baseline's, or nothing.
        less: The paired differences, or nothing.
    """
    sequences = {name: int(found["sequences"]) for name, found in domains.items()}
    tokens = sum(int(found["tokens"]) for found in domains.values())
    sizes = [found["bytes"] for found in domains.values()]
    whole = sum(sizes) if all(sizes) else None

    def entry(parts: Mapping[str, Estimate], kind: str, key: str) -> dict[str, Any]:
        if kind == "all_tokens":
            found = by_tokens(parts, sequences)
            bits = bits_per_byte(found.nats, tokens, whole)
        else:
            found = unweighted(parts)
            each = [_entry(domains[name], key)["bits_per_byte"] for name in parts]
            bits = sum(each) / len(each) if whole else None
        return {**found.plain(), "bits_per_byte": bits}

    result: dict[str, Any] = {}
    for kind in ("mean_of_domains", "all_tokens"):
        result[kind] = {"tokens": tokens, "bytes": whole, **entry(own, kind, "")}
        if other:
            result[kind]["trigram"] = entry(other, kind, "trigram")
            gap = by_tokens(less, sequences) if kind == "all_tokens" else unweighted(less)
            result[kind]["model_less_trigram"] = _gap(gap)
    return result


def _entry(domain: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return dict(domain[key]) if key else domain


def _gap(found: Estimate) -> dict[str, Any]:
    """A paired difference: below 0 where the model is better."""
    plain = found.plain()
    return {name: plain[name] for name in ("nats_per_token", "standard_error", "interval_95")}
