"""The checks of `clip verify`, in order. Each returns what it found, or raises with the reason.

Nothing in a bundle is trusted: no pickle is read, names are plain, JSON is bounded. What the checks
cannot show is that the numbers were honestly made; a hash chain only says that they fit together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.evaluation import bundle, lineage
from gristmill.evaluation.aggregate import aggregate
from gristmill.evaluation.evidence import score_record
from gristmill.evaluation.received import Bundle
from gristmill.evaluation.results import RESULTS, main_metrics
from gristmill.evaluation.submission import EMAIL, check_line

FIELDS: dict[str, type] = {
    "schema_version": int,
    "gristmill_version": str,
    "method_name": str,
    "author": str,
    "email": str,
    "track": str,
    "dataset_size": int,
    "writeup": str,
    "scale": str,
    "comparable": bool,
    "benchmark": dict,
    "warnings": list,
    "lineage": dict,
    "files": dict,
}
TRACKS = ("filtering", "byod")


@dataclass(frozen=True)
class Warned:
    """A check that found nothing wrong, because it could not look."""

    reason: str


def check_manifest(found: Bundle) -> str:
    """MANIFEST is there, and every name in it is plain."""
    return f"{len(found.manifest)} files listed"


def check_files(found: Bundle) -> str:
    """The files are those of the manifest, no more and no fewer, and none is a link."""
    here = bundle.files_of(found.uri) - {bundle.MANIFEST}
    missing, extra = sorted(set(found.manifest) - here), sorted(here - set(found.manifest))
    if missing:
        raise BadInputError(f"{len(missing)} listed files are missing, such as {missing[0]}")
    if extra:
        raise BadInputError(f"{len(extra)} files are not listed, such as {extra[0]}")
    if io.is_local(found.uri):
        bundle.refuse_links(io.local_path(found.uri), [*found.manifest, bundle.MANIFEST])
    return "none missing, none extra"


def check_hashes(found: Bundle) -> str:
    """Every file has the SHA-256 of the manifest."""
    for name, digest in found.manifest.items():
        actual = io.sha256(found.path(name))
        if actual != digest:
            raise BadInputError(f"{name} has SHA-256 {actual[:12]}…, not {digest[:12]}…")
    return f"{len(found.manifest)} files match"


def check_schema(found: Bundle) -> str:
    """submission.json has every field, of the right kind and with a possible value."""
    data = found.submission
    for name, kind in FIELDS.items():
        if name not in data:
            raise BadInputError(f"{bundle.SUBMISSION} has no {name}")
        value = data[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadInputError(f"{bundle.SUBMISSION}: {name} is {value!r}, not {kind.__name__}")
    unknown = sorted(set(data) - set(FIELDS))
    if unknown:
        raise BadInputError(f"{bundle.SUBMISSION} has unknown fields: {', '.join(unknown)}")
    for name in ("method_name", "author"):
        check_line(name, data[name])
    if not EMAIL.fullmatch(data["email"]):
        raise BadInputError(f"email {data['email']!r} is not of the form name@host.domain")
    if data["track"] not in TRACKS:
        raise BadInputError(f"track {data['track']!r} is neither filtering nor byod")
    if not data["writeup"].strip():
        raise BadInputError("the writeup is empty")
    bundle.check_name(bundle.scale_folder(data["scale"]))
    return f"schema {data['schema_version']}"


def check_versions(found: Bundle) -> str:
    """This program knows the schema and the benchmark's version."""
    version = found.submission["schema_version"]
    if version != bundle.SCHEMA_VERSION:
        raise BadInputError(
            f"schema_version is {version}, this program reads {bundle.SCHEMA_VERSION}; "
            "verify with the gristmill that made the bundle"
        )
    return f"schema {version}, {found.benchmark.label}"


def check_listing(found: Bundle) -> str:
    """submission.json and MANIFEST give the same hashes, and the required files are listed."""
    stated = {
        name: entry.get("sha256") if isinstance(entry, dict) else None
        for name, entry in found.submission["files"].items()
    }
    listed = {n: digest for n, digest in found.manifest.items() if n != bundle.SUBMISSION}
    if stated != listed:
        differing = sorted(n for n in {*stated, *listed} if stated.get(n) != listed.get(n))
        raise BadInputError(f"{bundle.SUBMISSION} and {bundle.MANIFEST} differ on {differing[0]}")
    required = [found.scaled(RESULTS), found.scaled(bundle.RECORD)]
    if found.submission["track"] == "filtering":
        required.append(found.scaled(bundle.SAMPLES))
    for verb in ("train", "evaluate"):
        required += [f"{bundle.LINEAGE}/{verb}/{name}" for name in bundle.LINEAGE_FILES]
    lacking = [name for name in required if name not in listed]
    if lacking:
        raise BadInputError(f"a {found.submission['track']} submission needs {lacking[0]}")
    allowed = {*required, found.scaled(bundle.SAMPLES), found.scaled(bundle.CHECKPOINT)}
    allowed |= {f"{bundle.LINEAGE}/{v}/{n}" for v in bundle.VERBS for n in bundle.LINEAGE_FILES}
    strange = sorted(set(listed) - allowed)
    if strange:
        raise BadInputError(
            f"{strange[0]} is no file of a submission to {found.submission['scale']}"
        )
    return "agrees with MANIFEST"


def check_subset(found: Bundle) -> str:
    """The subset is a flat, sorted, non-empty array of u8,u8, as long as stated."""
    from gristmill.pools.subset import Subset

    stated = found.submission["dataset_size"]
    if not found.has(bundle.SAMPLES):
        return "none, byod"
    count = len(Subset.load(found.path(found.scaled(bundle.SAMPLES))))
    if not count:
        raise BadInputError("the subset is empty")
    if found.submission["track"] == "filtering" and count != stated:
        raise BadInputError(f"the subset has {count:,} entries, dataset_size says {stated:,}")
    return f"{count:,} sorted uids"


def check_results(found: Bundle) -> str:
    """Every task of the benchmark is there exactly once, with its own main metric."""
    scores = main_metrics(found.lines, found.benchmark.load())
    return f"all {len(scores)} tasks of {found.benchmark.label}"


def check_record(found: Bundle) -> str:
    """The record of main metrics is what the result lines say."""
    record = bundle.load_object(found.path(found.scaled(bundle.RECORD)))
    scores = main_metrics(found.lines, found.benchmark.load())
    stated = record.get("tasks")
    if stated != scores:
        differing = [
            k for k, v in scores.items() if not isinstance(stated, dict) or stated.get(k) != v
        ]
        raise BadInputError(
            f"the record differs from the results on {', '.join(differing) or 'tasks'}"
        )
    for name in ("scale", "comparable"):
        if record.get(name) != found.submission[name]:
            raise BadInputError(
                f"the record says {name} {record.get(name)!r}, "
                f"{bundle.SUBMISSION} says {found.submission[name]!r}"
            )
    return f"{len(scores)} main metrics"


def check_aggregate(found: Bundle) -> str:
    """The averages, computed anew, are those of the record."""
    record = bundle.load_object(found.path(found.scaled(bundle.RECORD)))
    scores = aggregate(found.lines, found.benchmark.load())
    stated = found.submission
    anew = score_record(
        found.benchmark, scores, scale=stated["scale"], comparable=stated["comparable"]
    )
    for name, value in anew.items():
        if record.get(name) != value:
            raise BadInputError(f"the record's {name} is {record.get(name)!r}, computed {value!r}")
    return f"average {scores.average:.4f}"


def check_configs(found: Bundle) -> str:
    """Each run's config has its hash, and submission.json names these very runs."""
    stated = found.submission["lineage"]
    if set(stated) != set(found.records):
        raise BadInputError(
            f"{bundle.SUBMISSION} names the runs {', '.join(sorted(stated))}, "
            f"the bundle has {', '.join(sorted(found.records))}"
        )
    for verb, record in found.records.items():
        lineage.check_config(record)
        if stated[verb] != {"config_hash": record.config_hash, "done_sha256": record.done_sha256}:
            raise BadInputError(f"{bundle.SUBMISSION} names another {verb} run than the one here")
    return ", ".join(found.records)


def check_filter(found: Bundle) -> str | Warned:
    """The filter run made the subset."""
    if "filter" not in found.records or not found.has(bundle.SAMPLES):
        if found.submission["track"] == "byod":
            return "byod, no filter run given"
        return Warned("no filter run given: nothing says how the subset was chosen")
    lineage.check_filter(found.records["filter"], found.manifest[found.scaled(bundle.SAMPLES)])
    return "made this subset"


def check_reshard(found: Bundle) -> str | Warned:
    """The reshard run read the subset, and the training read its shards."""
    if "reshard" not in found.records:
        if found.submission["track"] == "byod":
            return "byod, no reshard run given"
        return Warned("NOT TIED: no reshard run given, nothing ties the training to the subset")
    if found.has(bundle.SAMPLES):
        lineage.check_reshard(
            found.records["reshard"], found.manifest[found.scaled(bundle.SAMPLES)]
        )
    only = found.submission["track"] == "filtering"
    lineage.check_train(found.records["train"], found.records["reshard"], only=only)
    return "read this subset, and the training read its shards"


def check_evaluation(found: Bundle) -> str:
    """The evaluation scored the training's checkpoint and wrote the results."""
    train, evaluate = found.records["train"], found.records["evaluate"]
    digest = found.manifest[found.scaled(RESULTS)]
    lineage.check_eval(evaluate, train, digest, RESULTS)
    if found.has(bundle.CHECKPOINT):
        weights = found.manifest[found.scaled(bundle.CHECKPOINT)]
        if weights != evaluate.summary.get("weights_sha256"):
            raise BadInputError("the checkpoint here is not the one that was evaluated")
    label = (evaluate.summary.get("benchmark"), evaluate.summary.get("benchmark_version"))
    if label != (found.benchmark.name, found.benchmark.version):
        raise BadInputError(
            f"the evaluation ran {label[0]}@{label[1]}, not {found.benchmark.label}"
        )
    return "scored the training's last checkpoint"


def check_eval_data(found: Bundle) -> str:
    """The evaluation read the very sets that the tasks state."""
    return lineage.check_eval_data(found.records["evaluate"], found.benchmark.load())


def check_scale(found: Bundle) -> str:
    """Scale and comparability are the training's, with the scale's hyper-parameters."""
    train, evaluate = found.records["train"], found.records["evaluate"]
    trained = lineage.scale_of(train)
    if trained != found.submission["scale"]:
        raise BadInputError(f"the training ran at scale {trained}, not {found.submission['scale']}")
    comparable = lineage.comparable_of(train, evaluate)
    if comparable != found.submission["comparable"]:
        raise BadInputError(
            f"{bundle.SUBMISSION} says comparable {found.submission['comparable']}, "
            f"the runs say {comparable}"
        )
    return lineage.check_scale(train, comparable)


CHECKS: dict[str, Callable[[Bundle], str | Warned]] = {
    "manifest": check_manifest,
    "files": check_files,
    "sha256": check_hashes,
    "schema": check_schema,
    "versions": check_versions,
    "listing": check_listing,
    "subset": check_subset,
    "results": check_results,
    "record": check_record,
    "average": check_aggregate,
    "configs": check_configs,
    "filter": check_filter,
    "reshard": check_reshard,
    "evaluation": check_evaluation,
    "eval_data": check_eval_data,
    "scale": check_scale,
}
GATES = frozenset({"manifest", "files", "schema", "versions", "listing"})
"""When one of these fails, the checks after it have nothing to stand on and are skipped."""
