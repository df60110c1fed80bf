"""The response surface: every target's fit, on disk and in use. `model.json` and `model.npz`.

Nothing is pickled: figures are JSON, arrays are plain (XGBoost's trees are its JSON as bytes).
"""

import difflib
import functools
import io as buffers
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io, plugins
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.corpora.domains import require_known
from gristmill.mixing.selection import PACKAGE, STACK, Interval, Scores, TargetFit
from gristmill.mixing.tables import Table, aligned
from gristmill.regressors.base import (
    Array,
    Fitted,
    Prediction,
    Regressor,
    State,
    Support,
    groups_of,
)
from gristmill.regressors.stack import FittedStack, Member

MODEL, ARRAYS = "model.json", "model.npz"
FORMAT = 2
SAME = 1e-12
"""Relative differences of losses that floating point makes."""
ENOUGH = 0.9
"""Held-out Spearman below which a target's fit is not to be relied on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """Fits of all targets over the same mixtures."""

    domains: tuple[str, ...]
    """Columns of every matrix of weights, sorted."""
    index: tuple[str, ...]
    """The training mixtures' names."""
    weights: Array
    """The training mixtures [n, domains]."""
    losses: Mapping[str, Array]
    """What was measured of them, by target."""
    fits: Mapping[str, TargetFit]
    """By target, sorted."""
    seed: int
    """The fit's."""
    odd: Mapping[str, float] = field(default_factory=dict)
    """Mixtures whose runs went wrong and were left out: index -> held-out error, in those of the
    median run."""
    doubtful: tuple[str, ...] = ()
    """Training mixtures that stay in the fits, but that intervals are not scaled by."""
    empty: tuple[str, ...] = ()
    """Domains that no training mixture holds, so that nothing is known of them; no columns."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted(self.fits))

    @property
    def constant(self) -> tuple[str, ...]:
        """Targets that measured the same everywhere: there is nothing to learn or to rank."""
        return tuple(
            name
            for name in self.targets
            if np.ptp(self.losses[name]) <= SAME * np.abs(self.losses[name]).max()
        )

    @property
    def weak(self) -> dict[str, float]:
        """The other targets whose held-out Spearman is under 0.9, with it."""
        found = {name: fit.scores[fit.chosen].spearman for name, fit in self.fits.items()}
        left = sorted(set(found) - set(self.constant))
        return {name: found[name] for name in left if found[name] < ENOUGH}

    @property
    def usual(self) -> npt.NDArray[np.bool_]:
        """Which training rows scale the intervals, [n]."""
        return ~np.isin(np.array(self.index, str), np.array(self.doubtful, str))

    @functools.cached_property
    def group(self) -> npt.NDArray[np.int64]:
        """The mixture of each training row by number, [n]: rows of the same weights are one."""
        return groups_of(self.weights)

    @functools.cached_property
    def support(self) -> Support:
        """Where the training mixtures lie."""
        return Support(self.weights)

    def predict(self, target: str, weights: Array) -> Interval:
        """Mean and interval of mixtures [n, domains]."""
        return self.fits[target].interval(weights)

    def mean(self, target: str, weights: Array) -> Array:
        """The mean alone."""
        fit = self.fits[target]
        return fit.fits[fit.chosen].mean(weights)

    def target(self, word: str) -> str:
        """The target that a word names: its own name, or the only one that holds the word.

        Raises:
            BadInputError: None or several do.
        """
        return target_named(word, self.targets)

    def require_domains(self, names: Sequence[str], where: str) -> None:
        """Refuse names of domains that are not those of the fit, all of them."""
        require_known(names, self.domains, "the fit")
        require_known(self.domains, names, where)

    def aligned(self, mixtures: Table) -> Array:
        """Weights of a table with columns in the order of the fit's domains.

        Raises:
            BadInputError: A domain is unknown or missing, or a mixture holds one that no training
                mixture held.
        """
        return aligned(mixtures, self.domains, "the fit", empty=self.empty)

    # -- disk ----------------------------------------------------------------------------------

    def save(self, folder: str) -> tuple[str, str]:
        """Write both files; returns their names."""
        arrays: dict[str, Any] = {"weights": self.weights}
        entries = {}
        for i, name in enumerate(self.targets):
            entry, own = pack(self.fits[name])
            entries[name] = entry
            arrays[f"{i}/losses"] = self.losses[name]
            arrays |= {f"{i}/{key}": array for key, array in own.items()}
        io.write_bytes(io.join(folder, ARRAYS), dump(arrays))
        io.write_json(
            io.join(folder, MODEL),
            {
                "format": FORMAT,
                "domains": self.domains,
                "index": self.index,
                "seed": self.seed,
                "odd": dict(self.odd),
                "doubtful": self.doubtful,
                "empty": self.empty,
                "targets": entries,
            },
        )
        return MODEL, ARRAYS

    @classmethod
    def load(cls, folder: str, *, allow: Sequence[str] = ()) -> "Surface":
        """What `save` wrote.

        Args:
            folder: Where.
            allow: Modules outside gristmill whose regressors the file may name: they are imported.

        Raises:
            BadInputError: The folder holds no fit, or one that names a module not allowed.
            CorruptDataError: The files are not what `save` writes.
        """
        where = io.redact(folder)
        if not io.exists(io.join(folder, MODEL)):
            raise BadInputError(f"{where} has no {MODEL}; make it with gristmill mix fit")
        data = io.read_json(io.join(folder, MODEL))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BadInputError(
                f"{where}/{MODEL} is not of format {FORMAT}; make it anew with gristmill mix fit"
            )
        arrays = undump(io.read_bytes(io.join(folder, ARRAYS)), f"{where}/{ARRAYS}")
        try:
            own = [_below(arrays, i) for i in range(len(data["targets"]))]
            names = sorted(data["targets"])
            return cls(
                domains=tuple(data["domains"]),
                index=tuple(data["index"]),
                weights=arrays["weights"],
                losses={name: own[i]["losses"] for i, name in enumerate(names)},
                fits={n: unpack(data["targets"][n], own[i], allow) for i, n in enumerate(names)},
                seed=int(data["seed"]),
                odd={str(name): float(error) for name, error in data["odd"].items()},
                doubtful=tuple(data["doubtful"]),
                empty=tuple(data["empty"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, BadInputError):
                raise
            raise CorruptDataError(f"{where}/{MODEL} is damaged: {error!r}") from error


def target_named(word: str, targets: Sequence[str]) -> str:
    """The target that a word names: its own name, or the only one that holds the word.

    Raises:
        BadInputError: None or several do.
    """
    if word in targets:
        return word
    near = [name for name in sorted(targets) if word and word in name]
    if len(near) > 1:
        raise BadInputError(f"{word!r} may mean any of the targets {', '.join(near)}")
    if not near:
        close = difflib.get_close_matches(word, targets, n=1)
        hint = f"; perhaps you meant {close[0]}" if close else ""
        raise BadInputError(f"no target {word!r}{hint}; there are: {', '.join(sorted(targets))}")
    return near[0]


def identity_of(folder: str) -> dict[str, str]:
    """What pins a fit in a run."""
    files = (MODEL, ARRAYS)
    return {n: io.sha256(io.join(folder, n)) for n in files if io.exists(io.join(folder, n))}


def pack(fit: TargetFit) -> tuple[dict[str, Any], dict[str, Any]]:
    """A target's fit as JSON values and arrays. The stack is its parts, which are there already."""
    arrays = {"seen/mean": fit.seen.mean, "seen/spread": fit.seen.spread}
    values = {}
    for name, fitted in fit.fits.items():
        if name != STACK:
            state = fitted.state()
            values[name] = state.values
            arrays |= {f"{name}/{key}": array for key, array in state.arrays.items()}
    entry = {
        "chosen": fit.chosen,
        "scores": {name: asdict(s) for name, s in fit.scores.items()},
        "shares": dict(fit.shares),
        "factor": fit.factor,
        "error_scale": dict(fit.error_scale),
        "least": fit.least,
        "widest": fit.widest,
        "regressors": values,
    }
    return entry, arrays


def unpack(
    entry: Mapping[str, Any], arrays: Mapping[str, Any], allow: Sequence[str] = ()
) -> TargetFit:
    """The fit again.

    Raises:
        BadInputError: It names a regressor outside gristmill whose module is not in `allow`.
    """
    fits: dict[str, Fitted] = {}
    for name, values in entry["regressors"].items():
        module = plugins.module_of(name)
        if module and module not in allow:
            raise BadInputError(
                f"the fit names the regressor {name}, whose code would be run: give "
                f"--allow {module} if you trust it"
            )
        state = State(values=values, arrays=_below(arrays, name))
        fits[name] = plugins.find(PACKAGE, name, Regressor)().restore(state)
    if entry["shares"]:
        fits[STACK] = FittedStack(
            {
                n: Member(share=share, scale=entry["error_scale"][n], fitted=fits[n])
                for n, share in sorted(entry["shares"].items())
            }
        )
    return TargetFit(
        chosen=entry["chosen"],
        fits=fits,
        scores={name: Scores(**s) for name, s in entry["scores"].items()},
        shares=entry["shares"],
        seen=Prediction(mean=arrays["seen/mean"], spread=arrays["seen/spread"]),
        factor=entry["factor"],
        error_scale=entry["error_scale"],
        least=entry["least"],
        widest=entry["widest"],
    )


def dump(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of a compressed .npz."""
    buffer = buffers.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def undump(data: bytes, where: str) -> dict[str, Any]:
    """The arrays of a .npz; never unpickles.

    Raises:
        CorruptDataError: It is none.
    """
    try:
        with np.load(buffers.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, AttributeError) as error:
        raise CorruptDataError(f"{where} is not a readable .npz: {error}") from error


def _below(arrays: Mapping[str, Any], prefix: str | int) -> dict[str, Any]:
    start = f"{prefix}/"
    return {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}
