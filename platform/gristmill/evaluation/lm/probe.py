"""The job of `lm probe`: read-only probes of a model, domain by domain."""

import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from gristmill.core import io, plugins
from gristmill.core.config import config_hash
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import REPORT, Run
from gristmill.corpora.tokens import TokenCorpus
from gristmill.diagnostics.base import Probe
from gristmill.evaluation.lm.held_out import Scoring, load_model
from gristmill.evaluation.lm.subject import (
    Precision,
    Subject,
    check_uris,
    length_of,
    open_corpus,
    subject_of,
)
from gristmill.execution.growth import most_gpus
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, map_slices

PROBES = "probes.json"
PACKAGE = "gristmill.diagnostics"


@dataclass(frozen=True, kw_only=True)
class ProbeJob(Job):
    """Look into a language model at work on held-out text."""

    uri_fields: ClassVar[tuple[str, ...]] = ("model", "tokenizer")
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder of a model (model.json and model.safetensors, or config.json of a Llama), or of a
    training run."""
    corpora: tuple[str, ...]
    """Token corpora, whose validation splits are read."""
    probes: tuple[str, ...] = ()
    """loss, attention_sink, massive_activation, effective_dimension, feature_diversity, or
    `python:module:Class`; empty: all of the first kind."""
    domains: tuple[str, ...] = ()
    """Only these domains; empty: all."""
    seq_len: int = 0
    """Tokens of a sequence, for probes whose definition leaves it open; 0: the context length."""
    num_sequences: int = 100
    """Sequences of a domain, likewise; fewer where it has no more."""
    batch_size: int = 8
    """Sequences at once."""
    precision: Precision = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU."""
    tokenizer: str = ""
    """A tokenizer.json; empty: the one in the model's folder."""
    out: str = ""
    """Folder for probes.json; empty: one of its own under runs/."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        if not self.out:
            plain = dataclasses.replace(self, out="runs/lm-probe")
            object.__setattr__(self, "out", f"{plain.out}-{config_hash(plain)[:8]}")
        super().__post_init__()
        object.__setattr__(self, "corpora", check_uris(self.corpora))
        _check_names(self.probes)
        if not self.corpora:
            raise BadInputError("no corpora; give --corpora FOLDER ...")
        for name in ("num_sequences", "batch_size"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The probes, with none resolved to all."""
        return tuple(dict.fromkeys(self.probes)) or tuple(plugins.names(PACKAGE))

    def plan(self) -> Plan:
        """Domains and probes; refuses what `execute` would refuse."""
        _, domains, _ = self._checked(subject_of(self.model, self.tokenizer))
        return Plan(
            title=f"probe the model in {io.redact(self.model)}",
            writes=[(f"{PROBES}, {REPORT}", 0)],
            work=[("domains", str(len(domains))), ("probes", ", ".join(self.names))],
        )

    def execute(self, run: Run) -> None:
        """Probe what no earlier start has probed, then write the numbers."""
        from gristmill.evaluation.lm.probe_page import probe_page

        subject = subject_of(self.model, self.tokenizer)
        corpus, domains, seq_len = self._checked(subject)
        pin_input(run, "model", subject.identity)
        pin_input(run, "corpora", corpus.identity())
        scoring = Scoring(
            model=subject.uri,
            files=subject.files,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        with session(self.execution):
            on_gpu = most_gpus() > 0
            worker = ProbeWorker(
                scoring, self.corpora, self.names, seq_len, self.num_sequences, on_gpu=on_gpu
            )
            found = map_slices(
                "probe",
                [Slice(name=domain, payload={"domain": domain}) for domain in domains],
                worker,
                ledger=run.scratch("probed"),
                execution=self.execution,
                unit="domains",
            )
        by_domain = dict(zip(domains, found, strict=True))
        results = {"model": {**subject.identity, "sha256": subject.sha256}, "domains": by_domain}
        io.write_json(run.path(PROBES), results)
        run.add_output(PROBES)
        probe_page(results).save(run.path(REPORT))
        run.set_summary(model_sha256=subject.sha256, **_summary(by_domain))

    def _checked(self, subject: Subject) -> tuple[TokenCorpus, list[str], int]:
        corpus, domains = open_corpus(self.corpora, self.domains)
        subject.require_fits(corpus)
        seq_len = length_of(subject.config, self.seq_len)
        for domain in domains:
            for name in self.names:
                corpus.num_sequences(domain, _find(name).seq_len or seq_len, "validation")
        return corpus, domains, seq_len


def _find(name: str) -> type[Probe]:
    probe: type[Probe] = plugins.find(PACKAGE, name, Probe)
    return probe


def _check_names(names: Sequence[str]) -> None:
    """Without importing a probe, and so torch: `--help` stays quick."""
    known = plugins.names(PACKAGE)
    for name in names:
        if not name.startswith(plugins.PYTHON_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; perhaps you meant {near[0]}" if near else ""
            raise BadInputError(f"no probe named {name!r}{hint}; known: {', '.join(known)}")


def _summary(by_domain: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The mean over domains of every plain figure."""
    values: dict[str, list[float]] = defaultdict(list)
    for probes in by_domain.values():
        for probe, figures in probes.items():
            for name, value in figures.items():
                if isinstance(value, float) and not name.endswith("standard_error"):
                    values[f"{probe}/{name}"].append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


class ProbeWorker(SliceWorker):
    """Probes domains with one model, loaded once."""

    def __init__(
        self,
        scoring: Scoring,
        corpora: tuple[str, ...],
        names: tuple[str, ...],
        seq_len: int,
        num_sequences: int,
        *,
        on_gpu: bool,
    ) -> None:
        self._scoring, self._corpora, self._names = scoring, corpora, names
        self._seq_len, self._num_sequences = seq_len, num_sequences
        self.num_gpus = 1.0 if on_gpu else 0.0

    def setup(self) -> None:
        """Load the model."""
        self._model = load_model(self._scoring, gpu=bool(self.num_gpus))
        self._corpus = TokenCorpus(*self._corpora)

    def process(self, piece: Slice) -> dict[str, Any]:
        """The numbers of one domain; probes of equal sequences share their passes."""
        groups: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in self._names:
            kind = _find(name)
            groups[kind.seq_len or self._seq_len, kind.num_sequences or self._num_sequences].append(
                name
            )
        found: dict[str, Any] = {}
        for (seq_len, count), names in groups.items():
            found |= self._probed(str(piece.payload["domain"]), seq_len, count, names)
        return {name: found[name] for name in self._names}

    def _probed(self, domain: str, seq_len: int, count: int, names: list[str]) -> dict[str, Any]:
        import torch

        from gristmill.diagnostics._observe import observe
        from gristmill.evaluation.lm.subject import autocast

        probes = {name: _find(name)(self._model.config) for name in names}
        device = self._model.embedding.weight.device
        numbers = spread_out(self._corpus.num_sequences(domain, seq_len, "validation"), count)
        for first in range(0, len(numbers), self._scoring.batch_size):
            some = numbers[first : first + self._scoring.batch_size]
            tokens = self._corpus.sequences(domain, some, seq_len, "validation")
            with autocast(device.type, self._scoring.precision):
                observe(self._model, list(probes.values()), torch.from_numpy(tokens).to(device))
        return {name: probe.result() for name, probe in probes.items()}


def spread_out(there: int, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Numbers of sequences, evenly over a split, so that they come from many documents."""
    count = min(there, count)
    return np.arange(count, dtype=np.int64) * there // count
