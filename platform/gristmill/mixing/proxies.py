"""The proxies job: a design of mixtures in, every proxy's loss on every domain out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.inputs import pin_inputs
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.run import Run
from gristmill.corpora.corpus import kind_at
from gristmill.corpora.domains import require_known
from gristmill.corpora.ledger import Ledger, make_ledger
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.session import Execution, session
from gristmill.mixing import proxies_report
from gristmill.mixing.proxy import ProxyBench, Trial
from gristmill.mixing.proxy_settings import ProxySettings, Training
from gristmill.mixing.results import file_name, load_results
from gristmill.mixing.sweep import MEAN, Outcome, Sweep, run_sweep
from gristmill.mixing.tables import INDEX, Table, read_mixtures, write_mixtures, write_table

LOSSES, MIXTURES, FAILED, RESULTS = "losses.csv", "mixtures.csv", "failed.csv", "results"
CPU_FLOPS, GPU_FLOPS = 3e10, 1e14
"""A second, of one core in float32 and of one GPU in bf16: rough, for `--plan`."""
SHOWN = 5
EARLY = "ended early"


@dataclass(frozen=True, kw_only=True)
class ProxiesJob(Job):
    """Train a proxy model on every mixture of a design (RegMix, arXiv:2407.01492, section 3.2)."""

    uri_fields: ClassVar[tuple[str, ...]] = ("design",)
    volatile_fields: ClassVar[tuple[str, ...]] = ("max_failed",)
    design: str
    """CSV of `index` and a column a domain, as gristmill mix design writes it."""
    corpora: tuple[str, ...]
    """Token corpora, from gristmill corpus tokenize. Each of their domains is a target."""
    training: Training = Training()
    """Model and training of a proxy."""
    seed: int = 0
    """Of the start and of the stream, the same for all proxies."""
    asha: str = ""
    """Target whose loss decides which proxies end early (ASHA, Li et al., MLSys 2020), or `mean`.
    Those have no losses in the end, so the fit sees fewer bad mixtures. Which they are depends on
    how many proxies run at once, as ASHA compares a proxy with those before it; for a table that
    any number of workers makes the same, let none end early. Empty: none do."""
    max_failed: int = 0
    """Proxies that may lack losses in the end, failed or diverged; with more, the job fails."""
    required: tuple[str, ...] = ()
    """Rows of the design that must have losses, however many others may lack them."""
    execution: Execution = Execution()
    """Where it runs, and how many proxies at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corpora:
            raise BadInputError("no corpora; give --corpora FOLDER ...")
        if self.max_failed < 0:
            raise BadInputError(f"max_failed must be 0 or more, not {self.max_failed}")
        object.__setattr__(self, "corpora", tuple(io.absolute(uri) for uri in self.corpora))

    # -- what is to be done --------------------------------------------------------------------

    def plan(self) -> Plan:
        """Steps, tokens and hours; refuses what `execute` would refuse."""
        corpus, design, settings = self._read()
        repeats = max(
            e.epochs for one in self._ledgers(corpus, design, settings) for e in one.entries
        )
        done = load_results(io.join(self.out, RESULTS))
        left = len(design.index) - len(done)
        seconds = settings.flops / (GPU_FLOPS * self.training.gpus_per_proxy or CPU_FLOPS)
        basis = "rough, by FLOPs"
        if done:
            seconds = sum(r.seconds for r in done.values()) / len(done)
            basis = f"as the {len(done)} that are done"
        on_gpu = self.training.on_gpu
        return Plan(
            title=f"train {left} proxies of {self.training.preset} on mixtures of "
            f"{len(design.columns)} domains, for {len(corpus.domains)} targets",
            reads=[(io.redact(self.design), 0), *((io.redact(uri), 0) for uri in self.corpora)],
            writes=[(f"{LOSSES}, {RESULTS}/", 0)],
            work=[
                ("model", f"{settings.model.num_params:,} parameters"),
                (
                    "steps",
                    f"{settings.steps:,} of {settings.batch_size} x {settings.seq_len} tokens",
                ),
                ("tokens", f"{settings.tokens:,} a proxy, {left * settings.tokens:,} in all"),
                ("FLOPs", f"{left * settings.flops:.2g} in all"),
                ("repeats", f"a domain up to {repeats:.2f} times"),
            ],
            cpu_hours=0 if on_gpu else left * seconds * self.training.cpus_per_proxy / 3600,
            gpu_hours=left * seconds * self.training.gpus_per_proxy / 3600,
            basis=basis,
        )

    def _read(self) -> tuple[TokenCorpus, Table, ProxySettings]:
        require_tokens(self.corpora)
        corpus = TokenCorpus(*self.corpora)
        design = read_mixtures(self.design)
        try:
            require_known(design.columns, corpus.domains, "the token corpora")
        except BadInputError as error:
            raise BadInputError(f"{design.source}: {error}") from error
        if self.asha and self.asha != MEAN:
            require_known(
                [self.asha], corpus.domains, "the token corpora, one of which --asha names,"
            )
        settings = self.training.settings(corpus.vocabulary.size)
        require_sequences(corpus, settings)
        return corpus, design, settings

    def _ledgers(self, corpus: TokenCorpus, design: Table, settings: ProxySettings) -> list[Ledger]:
        """What each proxy draws; refuses repeats over the cap, by row."""
        available = {
            domain: corpus.num_sequences(domain, settings.seq_len) for domain in design.columns
        }
        found = []
        for trial in self._trials(design):
            ledger = planned_ledger(Mixture(weights=trial.weights), available, settings)
            try:
                ledger.require_epochs(self.training.max_epochs)
            except BadInputError as error:
                raise BadInputError(f"{design.source}, row {trial.index}: {error}") from error
            found.append(ledger)
        return found

    def _trials(self, design: Table) -> tuple[Trial, ...]:
        return tuple(
            Trial(
                index=index,
                weights=dict(zip(design.columns, map(float, row), strict=True)),
                seed=self.seed,
            )
            for index, row in zip(design.index, design.values, strict=True)
        )

    # -- doing it ------------------------------------------------------------------------------

    def inputs(self) -> dict[str, Any]:
        """The design, the text, and every number of the training."""
        return {
            "design": {"sha256": io.sha256(self.design)},
            **training_inputs(self.corpora, self.training),
        }

    def execute(self, run: Run) -> None:
        """Sweep, gather, report."""
        corpus, design, settings = self._read()
        ledgers = self._ledgers(corpus, design, settings)
        pin_inputs(run, self.inputs())
        corpus.require_whole()
        sweep = Sweep(
            trials=self._trials(design),
            bench=ProxyBench(
                corpora=self.corpora,
                settings=settings,
                threads=self.training.threads,
                on_gpu=self.training.on_gpu,
            ),
            folder=run.path(RESULTS),
            cpus=self.training.cpus_per_proxy,
            gpus=self.training.gpus_per_proxy,
            retries=self.training.retries,
            asha=self.asha,
        )
        with session(self.execution):
            outcome = run_sweep(sweep, self.execution)
        lacking = without_losses(outcome)
        write_table(run.path(FAILED), [INDEX, "why"], sorted(lacking.items()))
        self._require_enough(run, lacking, len(design.index))
        self._publish(run, design, corpus.domains, outcome)
        proxies_report.write(run, settings, design, outcome, lacking, ledgers)

    def _require_enough(self, run: Run, lacking: Mapping[str, str], total: int) -> None:
        named = {i: why for i, why in lacking.items() if not why.startswith(EARLY)}
        must = {index: lacking[index] for index in self.required if index in lacking}
        if len(named) <= self.max_failed and len(lacking) < total and not must:
            return
        named = must | (named or dict(lacking))
        shown = "; ".join(f"{index}: {why}" for index, why in list(named.items())[:SHOWN])
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        raise RunError(
            f"{len(named)} of {total} proxies have no losses: {shown}{more}. What is trained is "
            f"kept in {io.redact(run.path(RESULTS))}, and the same command tries the failed again; "
            "a lower --lr helps those that diverged (with --overwrite), and --max-failed leaves "
            "them out"
        )

    def _publish(self, run: Run, design: Table, targets: tuple[str, ...], outcome: Outcome) -> None:
        kept = [i for i in design.index if i in outcome.results]
        kept = [i for i in kept if outcome.results[i].status == "done"]
        for i in kept:
            if lost := sorted(set(targets) - set(outcome.results[i].losses)):
                raise CorruptDataError(
                    f"{io.redact(run.path(RESULTS, file_name(i)))} has no loss of {lost[0]}; take "
                    "it away, and the same command trains that proxy again"
                )
        write_table(
            run.path(LOSSES),
            [INDEX, *targets],
            ([i, *(outcome.results[i].losses[name] for name in targets)] for i in kept),
        )
        write_mixtures(run.path(MIXTURES), kept, design.columns, design.rows(kept))
        for name in (LOSSES, MIXTURES, FAILED):
            run.add_output(name)
        for index in outcome.results:
            run.add_output(io.join(RESULTS, file_name(index)).lstrip("/"))
        run.set_summary(**summary(outcome, len(kept)))


def training_inputs(corpora: Sequence[str], training: Training) -> dict[str, Any]:
    """What pins the text that proxies read, and every number of their training."""
    require_tokens(corpora)
    corpus = TokenCorpus(*corpora)
    settings = training.settings(corpus.vocabulary.size)
    return {"corpora": corpus.identity(), "proxy": to_dict(settings)}


def require_tokens(corpora: Sequence[str]) -> None:
    """Refuse corpora that are not of tokens.

    Raises:
        BadInputError: One is of documents, or is no corpus.
    """
    for uri in corpora:
        if (kind := kind_at(uri)) != "tokens":
            raise BadInputError(
                f"{io.redact(uri)} is a corpus of {kind}; proxies read tokens: make them with "
                "gristmill corpus tokenize"
            )


def require_sequences(corpus: TokenCorpus, settings: ProxySettings) -> None:
    """Refuse a domain that is empty, or shorter than one sequence, in either split.

    Raises:
        BadInputError: There is one; names it.
    """
    for domain in corpus.domains:
        for split in ("train", "validation"):
            corpus.num_sequences(domain, settings.seq_len, split)


def planned_ledger(
    mixture: Mixture, available: Mapping[str, int], settings: ProxySettings
) -> Ledger:
    """What one proxy is to draw, to the sequence before or after what the stream will draw.

    The stream's order need not be laid down for it, which takes a second for weights of many
    digits, and a design has hundreds.
    """
    total = settings.steps * settings.batch_size
    counts = {name: round(weight * total) for name, weight in mixture.weights.items()}
    return make_ledger(mixture.weights, counts, available, settings.seq_len)


def without_losses(outcome: Outcome) -> dict[str, str]:
    """Index -> why, of every proxy that is not in losses.csv."""
    found = dict(outcome.failed)
    for index, result in outcome.results.items():
        if result.status == "diverged":
            found[index] = result.why
        elif result.status == "stopped":
            found[index] = f"{EARLY} at step {result.step}, by ASHA"
    return found


def summary(outcome: Outcome, kept: int) -> dict[str, Any]:
    """What the manifest says of a sweep."""
    seconds = sum(r.seconds for r in outcome.results.values())
    tokens = sum(r.tokens for r in outcome.results.values())
    return {
        "proxies": kept,
        "failed": len(outcome.failed),
        "diverged": sum(r.status == "diverged" for r in outcome.results.values()),
        "ended_early": sum(r.status == "stopped" for r in outcome.results.values()),
        "retried": len(outcome.retried),
        "tokens": tokens,
        "proxy_seconds": round(seconds, 1),
        "tokens_per_second_per_proxy": round(tokens / max(seconds, 1e-9)),
    }
