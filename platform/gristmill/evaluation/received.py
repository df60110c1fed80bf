"""A bundle that somebody sent: read lazily, trusted in nothing."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gristmill.core import io
from gristmill.evaluation import bundle
from gristmill.evaluation.benchmark import Benchmark
from gristmill.evaluation.evidence import benchmark_of
from gristmill.evaluation.lineage import RunRecord, read_record
from gristmill.evaluation.results import RESULTS, read_results


@dataclass
class Bundle:
    """A bundle as it lies there; every property reads and may raise."""

    uri: str

    @cached_property
    def manifest(self) -> dict[str, str]:
        """SHA-256 by name, as MANIFEST has it."""
        return bundle.read_manifest(self.uri)

    @cached_property
    def submission(self) -> dict[str, Any]:
        """submission.json."""
        return bundle.load_object(self.path(bundle.SUBMISSION))

    @cached_property
    def records(self) -> dict[str, RunRecord]:
        """The runs under lineage/, by verb."""
        found = {n.split("/")[1] for n in self.manifest if n.startswith(f"{bundle.LINEAGE}/")}
        return {v: read_record(self.path(bundle.LINEAGE, v), v) for v in bundle.VERBS if v in found}

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The result lines."""
        return read_results(self.path(self.scaled(RESULTS)))

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark that the submission names."""
        stated = self.submission["benchmark"]
        return benchmark_of(stated.get("name"), stated.get("version"))

    def path(self, *parts: str) -> str:
        """The URI of a file in the bundle."""
        return io.join(self.uri, *parts)

    def scaled(self, name: str) -> str:
        """A file's name under the scale's folder."""
        return f"{bundle.scale_folder(self.submission['scale'])}/{name}"

    def has(self, name: str) -> bool:
        """Whether the manifest lists a file of the scale's folder."""
        return self.scaled(name) in self.manifest
