"""The token ledger: what each domain should give, gives, and how often that repeats it.

Repeating text up to about four times costs little, more costs more (Muennighoff et al., NeurIPS
2023, arXiv:2305.16264). RegMix bounds a domain by 15 times its prior. So a plan that repeats a
domain beyond the cap is refused before anything starts, by name, with what would fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gristmill.core.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One domain's line."""

    domain: str
    target_share: float
    """The mixture's weight."""
    target_tokens: float
    """Weight times all tokens."""
    sequences: int
    """Sequences drawn."""
    tokens: int
    """Tokens drawn: sequences times seq_len."""
    share: float
    """Of all tokens drawn."""
    available: int
    """Sequences there are, an epoch."""

    @property
    def epochs(self) -> float:
        """How often the domain is gone through."""
        return self.sequences / self.available


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All domains after so many sequences."""

    entries: tuple[Entry, ...]
    seq_len: int
    sequences: int

    def __getitem__(self, domain: str) -> Entry:
        return next(entry for entry in self.entries if entry.domain == domain)

    @property
    def tokens(self) -> int:
        """All tokens drawn."""
        return self.sequences * self.seq_len

    def require_epochs(self, most: float) -> None:
        """Refuse a plan that goes through a domain more often than allowed.

        Raises:
            BadInputError: It does; names each domain with the weight and the tokens that fit.
        """
        beyond = [e for e in self.entries if e.sequences > most * e.available]
        if not beyond:
            return
        lines = [
            f"{e.domain} {e.epochs:.2f} times (weight {e.target_share:.6g}, at most "
            f"{most * e.available / self.sequences:.6g} fits)"
            for e in beyond
        ]
        fits = min(int(most * e.available / e.target_share) for e in beyond) * self.seq_len
        raise BadInputError(
            f"{self.tokens:,} tokens would repeat {'; '.join(lines)}, over the cap of {most:g}; "
            f"lower these weights, train on at most about {fits:,} tokens, or raise the cap"
        )

    def to_json(self) -> dict[str, Any]:
        """As metrics and manifests keep it."""
        lines = {e.domain: {**asdict(e), "epochs": e.epochs} for e in self.entries}
        for line in lines.values():
            line.pop("domain")
        return {"sequences": self.sequences, "tokens": self.tokens, "domains": lines}

    def rows(self) -> list[tuple[Any, ...]]:
        """For a report's table, under `HEADER`."""
        return [
            (e.domain, e.target_share, e.share, round(e.target_tokens), e.tokens, e.epochs)
            for e in self.entries
        ]


HEADER: Sequence[str] = (
    "domain",
    "target share",
    "realised share",
    "target tokens",
    "realised tokens",
    "epochs",
)


def make_ledger(
    weights: Mapping[str, float],
    counts: Mapping[str, int],
    available: Mapping[str, int],
    seq_len: int,
) -> Ledger:
    """The ledger of sequences drawn.

    Args:
        weights: The mixture.
        counts: Sequences drawn of each domain.
        available: Sequences there are of each domain.
        seq_len: Tokens of a sequence.
    """
    total = sum(counts.values())
    entries = [
        Entry(
            domain=name,
            target_share=weight,
            target_tokens=weight * total * seq_len,
            sequences=counts.get(name, 0),
            tokens=counts.get(name, 0) * seq_len,
            share=counts.get(name, 0) / total if total else 0.0,
            available=available[name],
        )
        for name, weight in sorted(weights.items())
        if weight
    ]
    return Ledger(entries=tuple(entries), seq_len=seq_len, sequences=total)
