"""The chain from subset to score: each run's manifest must name what the run before it made.

Every function checks one link and raises BadInputError with the reason when it does not hold.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.config import from_dict, identity
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.run import CONFIG, DONE
from gristmill.evaluation.bundle import load_object
from gristmill.evaluation.evalset import CONTENT

if TYPE_CHECKING:
    from gristmill.evaluation.tasks.base import Task
    from gristmill.training.job import TrainClipJob

SUBSET, META = "subset.npy", "meta.json"
TRAIN_JOB = "gristmill.training.job:TrainClipJob"
SAMPLES_LEEWAY = 0.01
"""Share of a scale's samples: a training resumed on other workers rounds its batches otherwise."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RunRecord:
    """A finished run's stored config and manifest."""

    verb: str
    config: dict[str, Any]
    """The job's fields."""
    config_hash: str
    done: dict[str, Any]
    done_sha256: str

    @property
    def outputs(self) -> dict[str, str]:
        """SHA-256 by output name."""
        return {name: str(entry.get("sha256")) for name, entry in self.done["outputs"].items()}

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of the manifest."""
        return dict(self.done["summary"])


def read_record(folder: str, verb: str) -> RunRecord:
    """Read a run's config and manifest.

    Raises:
        BadInputError: It is not a finished run.
        CorruptDataError: A file is not what a run writes.
    """
    for name in (CONFIG, DONE):
        if not io.exists(io.join(folder, name)):
            raise BadInputError(
                f"the {verb} run {io.redact(folder)} is not finished: it has no {name}"
            )
    stored, done = load_object(io.join(folder, CONFIG)), load_object(io.join(folder, DONE))
    if not isinstance(stored.get("config"), dict) or not isinstance(stored.get("hash"), str):
        raise CorruptDataError(f"the {verb} run's {CONFIG} has no config and hash")
    for name in ("inputs", "outputs", "summary"):
        if not isinstance(done.get(name), dict):
            raise CorruptDataError(f"the {verb} run's {DONE} has no {name}")
    if not all(isinstance(entry, dict) for entry in done["outputs"].values()):
        raise CorruptDataError(f"the {verb} run's {DONE} has outputs without hashes")
    digest = io.sha256(io.join(folder, DONE))
    return RunRecord(verb, stored["config"], stored["hash"], done, digest)


def hashes_in(value: Any) -> set[str]:
    """Every SHA-256 anywhere in a JSON value."""
    if isinstance(value, str):
        return {value} if _SHA256.fullmatch(value) else set()
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list):
        parts = value
    return {found for part in parts for found in hashes_in(part)}


def check_config(record: RunRecord) -> None:
    """The stored hash is the config's, and the manifest was written for that config."""
    fields = json.dumps(identity(record.config), sort_keys=True).encode()
    if hashlib.sha256(fields).hexdigest() != record.config_hash:
        raise BadInputError(f"the {record.verb} run's config does not have the hash beside it")
    if record.done.get("config_hash") != record.config_hash:
        raise BadInputError(f"the {record.verb} run's {DONE} was written for another config")


def check_filter(record: RunRecord, subset_sha256: str) -> None:
    """The filter run made this very subset."""
    made = record.outputs.get(SUBSET)
    if made != subset_sha256:
        raise BadInputError(
            f"the filter run made a {SUBSET} with SHA-256 {_short(made)}, "
            f"the subset here has {_short(subset_sha256)}"
        )


def check_reshard(record: RunRecord, subset_sha256: str) -> None:
    """The reshard run read this very subset."""
    if subset_sha256 not in hashes_in(record.done["inputs"]):
        raise BadInputError(
            f"the reshard run did not read the subset here ({_short(subset_sha256)})"
        )


def check_train(train: RunRecord, reshard: RunRecord, *, only: bool) -> None:
    """The training read what the reshard run wrote.

    A training names each folder it read by a digest over its shards' names and sizes and by the
    SHA-256 of its meta.json, which names the subset.

    Args:
        train: The training.
        reshard: The reshard run.
        only: Whether it may have read nothing else, as in the filtering track.
    """
    read = {
        name: source
        for name, source in train.done["inputs"].items()
        if isinstance(source, dict) and "listing_sha256" in source
    }
    if not read:
        raise BadInputError(f"the train run's {DONE} names no shards that it read")
    made = {n: digest for n, digest in reshard.outputs.items() if n.rsplit("/", 1)[-1] == META}
    metas, listings = set(made.values()) or {""}, _listing_digests(reshard)
    foreign = [
        name
        for name, source in read.items()
        if source["listing_sha256"] not in listings or source.get("meta_sha256", "") not in metas
    ]
    if foreign and (only or len(foreign) == len(read)):
        raise BadInputError(
            f"the train run read {foreign[0]}, which the reshard run here did not write"
        )


def _listing_digests(reshard: RunRecord) -> set[str]:
    """The digests by which a training would know the run's shards, from each folder it may name."""
    sizes = {n: e.get("bytes") for n, e in reshard.done["outputs"].items() if n.endswith(".tar")}
    folders = {""} | {name[: name.rfind("/") + 1] for name in sizes}
    digests = set()
    for folder in folders:
        listing = [
            [n.removeprefix(folder), sizes[n]] for n in sorted(sizes) if n.startswith(folder)
        ]
        if listing:
            digests.add(hashlib.sha256(json.dumps(listing).encode()).hexdigest())
    return digests


def check_eval(evaluate: RunRecord, train: RunRecord, results_sha256: str, results: str) -> None:
    """The evaluation scored the training's last checkpoint, and wrote these results."""
    scored = str(evaluate.summary.get("weights_sha256"))
    if scored not in train.outputs.values():
        raise BadInputError(
            f"the evaluated weights ({_short(scored)}) are no checkpoint of the train run"
        )
    last = train.outputs.get(str(train.summary.get("checkpoint", "")))
    if last is not None and last != scored:
        raise BadInputError(
            f"the evaluated weights ({_short(scored)}) are not the train run's last checkpoint "
            f"({_short(last)})"
        )
    if evaluate.outputs.get(results) != results_sha256:
        raise BadInputError(
            f"the evaluation wrote a {results} with SHA-256 "
            f"{_short(evaluate.outputs.get(results))}, the one here has {_short(results_sha256)}"
        )


def check_eval_data(evaluate: RunRecord, tasks: "Iterable[Task]") -> str:
    """Every task that states its set's digest was evaluated on that very set.

    Returns:
        What was compared, in words.
    """
    pinned = {task.key: task.digest for task in tasks if task.digest}
    for key, digest in pinned.items():
        read = evaluate.done["inputs"].get(f"eval_data/{key}")
        found = read.get(CONTENT) if isinstance(read, dict) else None
        if found != digest:
            raise BadInputError(
                f"task {key} was evaluated on another set than its own: content digest "
                f"{_short(found)}, not {_short(digest)}"
            )
    return f"{len(pinned)} sets are those that their tasks state"


def comparable_of(train: RunRecord, evaluate: RunRecord) -> bool:
    """Whether training and evaluation both kept to the scale's rules."""
    return bool(train.summary.get("comparable")) and bool(evaluate.summary.get("comparable"))


def scale_of(train: RunRecord) -> str:
    """The name of the training's scale.

    Raises:
        BadInputError: The run names none, so it is no `clip train` run.
    """
    scale = train.config.get("scale")
    name = scale.get("name") if isinstance(scale, dict) else train.summary.get("scale")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_-]+", name):
        raise BadInputError(f"the train run names no scale (its config has {name!r})")
    return name


def check_scale(train: RunRecord, comparable: bool) -> str:
    """A comparable training kept to every rule of its scale, and saw as many samples.

    What is comparable is the training's own rule, asked of its stored config.

    Returns:
        What was compared, in words.
    """
    name = scale_of(train)
    if not comparable:
        return f"non-comparable as declared, so scale {name} does not bind"
    job = _training(train)
    if not job.comparable:
        raise BadInputError(
            f"hyper-parameters depart from scale {name}: {job.why_not_comparable()}"
        )
    seen, workers = train.summary.get("samples_seen"), train.summary.get("num_workers")
    if not isinstance(seen, int) or not isinstance(workers, int) or workers < 1:
        raise BadInputError(
            f"the train run's samples_seen {seen!r} and num_workers {workers!r} are not counts"
        )
    # Batches are rounded up to whole ones a loader process, which at small scales is above 1 %.
    due = job.steps(workers).samples
    if abs(seen - due) > SAMPLES_LEEWAY * job.scale.train_num_samples:
        raise BadInputError(f"the training saw {seen:,} samples; scale {name} has {due:,}")
    return f"those of scale {name}, {seen:,} samples seen"


def _training(train: RunRecord) -> "TrainClipJob":
    kind = train.config.get("type")
    if kind != TRAIN_JOB:
        raise BadInputError(f"the train run's config is of {kind!r}, not of clip train")
    job: TrainClipJob = from_dict(train.config)
    return job


def _short(digest: object) -> str:
    return f"{str(digest)[:12]}…" if digest else "(none)"
