"""`clip submit`: check everything behind a score, then pack it into a bundle (see bundle.py)."""

import json
import logging
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from gristmill import __version__
from gristmill.core import io
from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import Run
from gristmill.evaluation import bundle
from gristmill.evaluation.evidence import Evidence, gather
from gristmill.evaluation.results import RESULTS

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
MAX_NAME, MAX_WRITEUP_BYTES = 200, 1 << 20
CREDENTIALS = re.compile(rb"://[^/@\s\"]+:[^/@\s\"]+@")
SIGNATURE = re.compile(
    rb"://[^\s\"]*[?&;]([^\s\"=&]*(?:sig|token|secret|key|credential|passw|x-amz-)[^\s\"=&]*)=",
    re.I,
)
"""A query part such as ?sig=, &X-Amz-Signature= or ?token=: whoever has the URL can read there."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SubmitJob(Job):
    """A submission of one trained model and the data behind it."""

    uri_fields: ClassVar[tuple[str, ...]] = (
        "train_run", "eval_run", "filter_run", "subset", "reshard_run",
    )  # fmt: skip

    method_name: str
    """What the leaderboard calls the method."""
    author: str
    """Who submits."""
    email: str
    """How to reach them."""
    track: Literal["filtering", "byod"]
    """`filtering` uses the pool alone; `byod` (bring your own data) may add to it."""
    writeup: str
    """How the data was made: a text, or the path of a text file."""
    train_run: str
    """Folder of the finished `clip train` run."""
    eval_run: str
    """Folder of the finished `clip evaluate` run of that training."""
    filter_run: str = ""
    """Folder of the finished `pool filter` run, whose subset.npy is submitted."""
    subset: str = ""
    """Instead of --filter-run: the subset file."""
    reshard_run: str = ""
    """Folder of the finished `pool reshard` run, which ties the training to the subset."""
    dataset_size: int = 0
    """Samples in the training set, repeats counted; 0 takes the subset's length."""
    include_checkpoint: bool = False
    """Put the weights into the bundle."""
    upload_to: str = ""
    """Hugging Face repository (OWNER/NAME) to send the bundle to; needs --yes-upload."""
    yes_upload: bool = False
    """Really send it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("method_name", "author"):
            check_line(name, getattr(self, name))
        if not EMAIL.fullmatch(self.email):
            raise BadInputError(f"email {self.email!r} is not of the form name@host.domain")
        if self.dataset_size < 0:
            raise BadInputError(f"dataset_size must be 0 or more, not {self.dataset_size}")
        if self.filter_run and self.subset:
            raise BadInputError("give either --filter-run or --subset, not both")
        if not (self.filter_run or self.subset) and (
            self.track == "filtering" or not self.dataset_size
        ):
            raise BadInputError(
                "give --filter-run or --subset; only byod goes without, with --dataset-size"
            )
        if bool(self.upload_to) != self.yes_upload:
            raise BadInputError("sending a bundle takes both --upload-to and --yes-upload")

    def plan(self) -> Plan:
        """Checks what `execute` checks; writes nothing."""
        evidence = self._evidence()
        files = [(name, io.size_bytes(source)) for name, source in self._copies(evidence).items()]
        return Plan(
            title=f"submit {self.method_name} to {evidence.scale}, {self.track}",
            writes=files,
            work=[
                ("average", f"{evidence.scores.average:.4f}"),
                ("subset", f"{self._size(evidence):,} samples"),
            ],
            warnings=evidence.warnings,
        )

    def execute(self, run: Run) -> None:
        """Write the files, submission.json, and MANIFEST last; send them if asked to."""
        if self.upload_to:
            _hub()
        evidence = self._evidence()
        copies = self._copies(evidence)
        for name, source in copies.items():
            if name.startswith(bundle.LINEAGE):
                _refuse_credentials(name, io.read_bytes(source))
        bundle.clear_stale(run.uri)
        files = {name: bundle.copy_file(source, run.path(name)) for name, source in copies.items()}
        _check_checkpoint(files, evidence)
        record = f"{bundle.scale_folder(evidence.scale)}/{bundle.RECORD}"
        files[record] = bundle.put_bytes(_json(evidence.record()), run.path(record))
        submission = self._submission(evidence) | {"files": files}
        own = bundle.put_bytes(_json(submission), run.path(bundle.SUBMISSION))
        hashes = {
            name: entry["sha256"] for name, entry in {**files, bundle.SUBMISSION: own}.items()
        }
        _report(submission, evidence).save(run.path("report.html"))
        bundle.write_manifest(run.uri, hashes)
        for text in evidence.warnings:
            logger.warning("%s", text)
        run.add_output(bundle.MANIFEST)
        run.add_input("lineage", submission["lineage"])
        run.set_summary(
            average=evidence.scores.average,
            scale=evidence.scale,
            comparable=evidence.comparable,
            dataset_size=submission["dataset_size"],
            files=len(hashes),
        )
        if self.upload_to:
            _upload(run.uri, self.upload_to, [*hashes, bundle.MANIFEST])

    def _evidence(self) -> Evidence:
        return gather(
            track=self.track,
            train_run=io.absolute(self.train_run),
            eval_run=io.absolute(self.eval_run),
            filter_run=io.absolute(self.filter_run) if self.filter_run else "",
            reshard_run=io.absolute(self.reshard_run) if self.reshard_run else "",
            subset=io.absolute(self.subset) if self.subset else "",
        )

    def _size(self, evidence: Evidence) -> int:
        if self.track == "filtering" and self.dataset_size not in (0, evidence.subset_size):
            raise BadInputError(
                f"dataset_size is {self.dataset_size}, the subset has {evidence.subset_size}; "
                "in the filtering track they are the same"
            )
        return self.dataset_size or evidence.subset_size

    def _copies(self, evidence: Evidence) -> dict[str, str]:
        """Source by name in the bundle."""
        scale = bundle.scale_folder(evidence.scale)
        copies = {f"{scale}/{RESULTS}": evidence.results}
        if evidence.subset:
            copies[f"{scale}/{bundle.SAMPLES}"] = evidence.subset
        if self.include_checkpoint:
            copies[f"{scale}/{bundle.CHECKPOINT}"] = evidence.checkpoint
        for verb, folder in evidence.folders.items():
            for name in bundle.LINEAGE_FILES:
                copies[f"{bundle.LINEAGE}/{verb}/{name}"] = io.join(folder, name)
        return copies

    def _submission(self, evidence: Evidence) -> dict[str, object]:
        return {
            "schema_version": bundle.SCHEMA_VERSION,
            "gristmill_version": __version__,
            "method_name": self.method_name,
            "author": self.author,
            "email": self.email,
            "track": self.track,
            "dataset_size": self._size(evidence),
            "writeup": read_writeup(self.writeup),
            "scale": evidence.scale,
            "comparable": evidence.comparable,
            "benchmark": {"name": evidence.benchmark.name, "version": evidence.benchmark.version},
            "warnings": list(evidence.warnings),
            "lineage": {
                verb: {"config_hash": record.config_hash, "done_sha256": record.done_sha256}
                for verb, record in evidence.records.items()
            },
        }


def check_line(name: str, value: object) -> None:
    """Refuse a name that is empty, too long, or not one printable line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadInputError(f"{name} {value!r} is not one line of text")
    if len(value) > MAX_NAME:
        raise BadInputError(f"{name} has {len(value)} characters, over {MAX_NAME}")


def read_writeup(writeup: str) -> str:
    """The text itself, or what is in the file of that name.

    Raises:
        BadInputError: Empty, too long or not UTF-8.
    """
    import os

    text = writeup
    if "\n" not in writeup and len(writeup) < 1024 and os.path.isfile(writeup):
        try:
            text = io.read_bytes(writeup)[: MAX_WRITEUP_BYTES + 1].decode()
        except UnicodeDecodeError as error:
            raise BadInputError(f"the writeup {writeup} is not UTF-8 text: {error}") from error
    if not text.strip() or len(text.encode("utf-8", "replace")) > MAX_WRITEUP_BYTES:
        raise BadInputError(f"the writeup is empty or over {MAX_WRITEUP_BYTES} bytes")
    return text


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _refuse_credentials(name: str, data: bytes) -> None:
    if CREDENTIALS.search(data):
        raise BadInputError(
            f"{name} holds a URI with a password; run that step with credentials from the "
            "environment, so that they do not travel with the bundle"
        )
    signed = SIGNATURE.search(data)
    if signed:
        raise BadInputError(
            f"{name} holds a signed URL (its query has a {signed.group(1).decode()!r} part); run "
            "that step on a URI without it, with credentials from the environment"
        )


def _check_checkpoint(files: dict[str, dict[str, object]], evidence: Evidence) -> None:
    """Refuse a copied checkpoint that is not, byte for byte, the one that was evaluated."""
    scored = evidence.records["evaluate"].summary.get("weights_sha256")
    for name, entry in files.items():
        if name.endswith("/" + bundle.CHECKPOINT) and entry["sha256"] != scored:
            raise BadInputError(
                f"{io.redact(evidence.checkpoint)} changed since it was evaluated: its SHA-256 is "
                f"{str(entry['sha256'])[:12]}…, the evaluation scored {str(scored)[:12]}…"
            )


def _report(submission: dict[str, object], evidence: Evidence) -> Report:
    page = Report(f"Submission: {submission['method_name']}", str(submission["scale"]))
    page.warnings += evidence.warnings
    shown = ("author", "email", "track", "dataset_size", "comparable", "gristmill_version")
    page.table("What", ["field", "value"], [[name, submission[name]] for name in shown])
    page.table("Scores", ["task", "main metric"], list(evidence.scores.tasks.items()))
    page.text("Writeup", *str(submission["writeup"]).split("\n\n"))
    return page


def _hub() -> object:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    return huggingface_hub


def _upload(folder: str, repo: str, names: list[str]) -> None:
    """Send the listed files; needs a local bundle and the user's own Hugging Face login."""
    api = _hub().HfApi()  # type: ignore[attr-defined]
    api.upload_folder(folder_path=io.local_path(folder), repo_id=repo, allow_patterns=names)
