"""The job of `lm evaluate`: held-out loss by domain, a trigram beside it, the harness's tasks."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from gristmill.core import io
from gristmill.core.config import config_hash
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import REPORT, Run
from gristmill.corpora.tokens import TokenCorpus
from gristmill.evaluation.lm import figures
from gristmill.evaluation.lm.baseline import Baseline, score_baseline
from gristmill.evaluation.lm.held_out import (
    LOSSES,
    LossWorker,
    Scoring,
    Text,
    read_losses,
)
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
from gristmill.execution.slices import Slice, map_slices

RESULTS = "results.json"
UNKNOWN_TOKENIZER = (
    "the model has no tokenizer.json, so only the sizes of the vocabularies were compared"
)


@dataclass(frozen=True, kw_only=True)
class LmEvaluateJob(Job):
    """Measure a language model on held-out text and on tasks."""

    uri_fields: ClassVar[tuple[str, ...]] = ("model", "tokenizer", "include_path")
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder of a model (model.json and model.safetensors, or config.json of a Llama), or of a
    training run."""
    corpora: tuple[str, ...] = ()
    """Token corpora, whose validation splits are scored."""
    domains: tuple[str, ...] = ()
    """Only these domains; empty: all."""
    seq_len: int = 0
    """Tokens of a sequence; 0: the model's context length."""
    max_sequences: int = 0
    """Sequences of a domain, at most; 0: all."""
    batch_size: int = 8
    """Sequences at once; changes no figure beyond rounding."""
    precision: Precision = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU."""
    baseline: Literal["none", "trigram"] = "none"
    """trigram: also score one that is counted in the training splits of the same domains."""
    baseline_tokens: int = 20_000_000
    """Tokens that the trigram is counted in, at most; about 50 bytes of memory each."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, separated by blanks or commas (extra: eval)."""
    include_path: str = ""
    """A folder with task files (YAML) of your own."""
    fewshot: int = -1
    """Examples in context; -1: as each task says."""
    limit: int = 0
    """Samples of a task, at most, for a trial; 0: all."""
    tokenizer: str = ""
    """A tokenizer.json; empty: the one in the model's folder."""
    out: str = ""
    """Folder for results.json; empty: one of its own under runs/."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        if not self.out:
            plain = dataclasses.replace(self, out="runs/lm-evaluate")
            object.__setattr__(self, "out", f"{plain.out}-{config_hash(plain)[:8]}")
        super().__post_init__()
        object.__setattr__(self, "corpora", check_uris(self.corpora))
        names = [name for words in self.tasks for name in words.split(",") if name]
        object.__setattr__(self, "tasks", tuple(names))
        if not self.corpora and not self.tasks:
            raise BadInputError("nothing to evaluate on; give --corpora FOLDER ... or --tasks NAME")
        for name in ("batch_size", "baseline_tokens"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("seq_len", "max_sequences", "limit"):
            if getattr(self, name) < 0:
                raise BadInputError(f"{name} must be 0 or more, not {getattr(self, name)}")

    def plan(self) -> Plan:
        """Tokens to be scored and the FLOPs of that; refuses what `execute` would refuse."""
        subject = subject_of(self.model, self.tokenizer)
        work = [("tasks", ", ".join(self.tasks))] if self.tasks else []
        if self.corpora:
            corpus, text, domains = self._text(subject)
            tokens = sum(text.count(corpus, d) for d in domains) * text.seq_len
            flops = tokens * subject.config.flops_per_token(text.seq_len) / 3  # forward only
            work += [("domains", str(len(domains))), ("tokens", f"{tokens:,}")]
            work += [("FLOPs", f"{flops:.2e}")]
        return Plan(
            title=f"evaluate the model in {io.redact(self.model)}",
            writes=[(f"{RESULTS}, {LOSSES}/, {REPORT}", 0)],
            work=work,
            warnings=() if subject.tokenizer_sha256 else (UNKNOWN_TOKENIZER,),
        )

    def execute(self, run: Run) -> None:
        """Score what no earlier start has scored, then write results."""
        from gristmill.evaluation.lm.page import evaluation_page

        subject = subject_of(self.model, self.tokenizer)
        pin_input(run, "model", subject.identity)
        results: dict[str, Any] = {"model": {**subject.identity, "sha256": subject.sha256}}
        if self.corpora:
            results |= self._held_out(run, subject)
        if self.tasks:
            results["tasks"] = self._tasks(run, subject)
        io.write_json(run.path(RESULTS), results)
        run.add_output(RESULTS)
        warnings = [] if subject.tokenizer_sha256 or not self.corpora else [UNKNOWN_TOKENIZER]
        evaluation_page(results, warnings).save(run.path(REPORT))
        run.set_summary(**_summary(results))

    # -- held-out text -------------------------------------------------------------------------

    def _text(self, subject: Subject) -> tuple[TokenCorpus, Text, list[str]]:
        """The text, after every check that needs no weights."""
        corpus, domains = open_corpus(self.corpora, self.domains)
        subject.require_fits(corpus)
        text = Text(
            corpora=self.corpora,
            seq_len=length_of(subject.config, self.seq_len),
            max_sequences=self.max_sequences,
        )
        for domain in domains:
            text.count(corpus, domain)
        return corpus, text, domains

    def _held_out(self, run: Run, subject: Subject) -> dict[str, Any]:
        corpus, text, domains = self._text(subject)
        pin_input(run, "corpora", corpus.identity())
        pieces = [
            Slice(name=d, payload={"domain": d}, weight=text.count(corpus, d) * text.seq_len)
            for d in domains
        ]
        scoring = Scoring(
            model=subject.uri,
            files=subject.files,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        with session(self.execution):
            on_gpu = most_gpus() > 0
            worker = LossWorker(scoring, text, run.path(LOSSES), on_gpu=on_gpu)
            markers = map_slices(
                "evaluate",
                pieces,
                worker,
                ledger=run.scratch("scored"),
                execution=self.execution,
                unit="tokens",
            )
        baseline = None
        if self.baseline == "trigram":
            baseline = score_baseline(
                run,
                corpus,
                text,
                domains,
                most_tokens=self.baseline_tokens,
                first_place=subject.config.hidden_targets,
            )
        bf16 = self.precision == "bf16" or (self.precision == "auto" and on_gpu)
        sizes = dict(zip(domains, (marker["bytes"] for marker in markers), strict=True))
        return {
            "precision": "bf16" if bf16 else "fp32",
            **_collected(run, text.seq_len, sizes, baseline),
        }

    def _tasks(self, run: Run, subject: Subject) -> dict[str, Any]:
        from gristmill.evaluation.lm.harness import run_tasks, task_files

        if self.include_path:
            pin_input(run, "task-files", task_files(self.include_path))
        marker = run.scratch("tasks.json")
        if not io.exists(marker):
            found = run_tasks(
                subject,
                self.tasks,
                include_path=self.include_path,
                fewshot=self.fewshot,
                limit=self.limit,
                batch_size=self.batch_size,
                precision=self.precision,
            )
            io.write_json(marker, found)
        return dict(io.read_json(marker))


def _collected(
    run: Run, seq_len: int, sizes: Mapping[str, int | None], baseline: Baseline | None
) -> dict[str, Any]:
    """All figures of held-out text, from the files of losses."""
    domains, own, other, less = {}, {}, {}, {}
    for domain, size in sizes.items():
        name = f"{LOSSES}/{domain}.npy"
        losses = read_losses(run.path(name))
        run.add_output(name)
        beside = None
        if baseline is not None:
            beside = read_losses(run.path(baseline.file_of(domain)))
            run.add_output(baseline.file_of(domain))
            other[domain], less[domain] = (
                figures.estimate(beside),
                figures.estimate(losses - beside),
            )
        own[domain] = figures.estimate(losses)
        domains[domain] = figures.domain_figures(
            losses, seq_len=seq_len, text_bytes=size, baseline=beside
        )
        run.log(domain=domain, nats_per_token=own[domain].nats)
    return {
        "seq_len": seq_len,
        "domains": domains,
        **figures.averages(domains, own, other, less),
        "baseline": None if baseline is None else baseline.facts,
    }


def _summary(results: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"model_sha256": results["model"]["sha256"]}
    for name in ("mean_of_domains", "all_tokens"):
        if name in results:
            found[f"nats_per_token_{name}"] = results[name]["nats_per_token"]
    if "trigram" in results.get("mean_of_domains", {}):
        found["trigram_nats_per_token_mean_of_domains"] = results["mean_of_domains"]["trigram"][
            "nats_per_token"
        ]
    for task, metrics in results.get("tasks", {}).get("results", {}).items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "_stderr" not in metric:
                found[f"{task}/{metric}"] = value
    return found
