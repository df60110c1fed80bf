"""The model under evaluation: a finished `clip train` run, or an architecture with weights."""

from dataclasses import dataclass, field
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, RunError
from gristmill.core.run import CONFIG, DONE, Run
from gristmill.models.clip import ClipSpec, checkpoint_uri


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is evaluated, and how it came about."""

    spec: ClipSpec
    """Weights as an absolute URI of one file."""
    weights_sha256: str
    comparable: bool
    """Whether its score may stand beside those of the scale."""
    scale: str = ""
    """Name of the training's scale; empty for bare weights."""
    warnings: tuple[str, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)
    """What pins it, for the run's inputs."""


def candidate_of_weights(arch: str, weights: str) -> Candidate:
    """A model from a weights file; not comparable, since nothing says how it was trained."""
    uri = io.absolute(checkpoint_uri(weights))
    digest = io.sha256(uri)
    return Candidate(
        spec=ClipSpec(arch=arch, weights=uri),
        weights_sha256=digest,
        comparable=False,
        warnings=("Non-comparable: bare weights say nothing about their training.",),
        identity={"arch": arch, "weights_sha256": digest},
    )


def candidate_of_run(uri: str) -> Candidate:
    """The last checkpoint of a finished training run.

    Raises:
        RunError: Not a run, or not finished.
        BadInputError: The run is not a `clip train` run, or its checkpoint changed since.
    """
    run, config, done = finished_run(uri, "train")
    summary, scale = done["summary"], config["config"].get("scale") or {}
    arch = summary.get("arch") or scale.get("model", "")
    if not arch:
        raise BadInputError(
            f"{io.redact(run.uri)} is not a clip train run: it names no architecture"
        )
    weights = checkpoint_of(run, done)
    digest = io.sha256(weights)
    recorded = [e["sha256"] for n, e in done["outputs"].items() if weights.endswith("/" + n)]
    if recorded and digest not in recorded:
        raise BadInputError(
            f"{io.redact(weights)} changed after its training: its SHA-256 is {digest[:12]}…, "
            f"{DONE} says {recorded[0][:12]}…"
        )
    comparable = bool(summary.get("comparable", False))
    name = str(summary.get("scale") or scale.get("name", ""))
    warning = f"Non-comparable: the training departs from the scale {name or '(none)'}."
    return Candidate(
        spec=ClipSpec(arch=arch, weights=weights),
        weights_sha256=digest,
        comparable=comparable,
        scale=name,
        warnings=() if comparable else (warning,),
        identity={
            "arch": arch,
            "weights_sha256": digest,
            "train_config_hash": config["hash"],
            "train_done_sha256": io.sha256(run.path(DONE)),
        },
    )


def finished_run(uri: str, verb: str) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """A run with its stored config and manifest.

    Raises:
        RunError: Not a run folder, or not finished.
        BadInputError: Its config or manifest lacks what every run has.
    """
    run = Run(uri)
    config, done = run.config(), run.done()
    if done is None:
        raise RunError(
            f"the {verb} run {io.redact(run.uri)} is not finished: it has no {DONE}; "
            "run its command again to finish it"
        )
    if not isinstance(config.get("config"), dict) or not isinstance(config.get("hash"), str):
        raise BadInputError(f"{io.redact(run.path(CONFIG))} is not a run's config")
    for name in ("inputs", "outputs", "summary"):
        if not isinstance(done.get(name), dict):
            raise BadInputError(f"{io.redact(run.path(DONE))} has no {name!r}")
    return run, config, done


def checkpoint_of(run: Run, done: dict[str, Any]) -> str:
    """The URI of a training run's final checkpoint; a moved run still finds its own."""
    name = str(done["summary"].get("checkpoint", ""))
    if not name:
        return io.absolute(checkpoint_uri(run.uri))
    if "://" in name or name.startswith("/"):
        name = "checkpoints/" + name.rsplit("/", 1)[-1]
    return io.absolute(checkpoint_uri(run.path(name)))
