"""`gristmill mix search`: from token corpora to a proposed mixture, measured; every step a run.

Rounds of design, proxies, fit and proposal go on until they no longer change the answer;
then the proposal, the natural mixture and random ones are trained anew with other seeds. Each step
is a job like any other in a folder of its own, so a killed search resumes where it was.
"""

import logging
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_inputs
from gristmill.core.job import Job, run_job
from gristmill.core.plan import Plan
from gristmill.core.run import CONFIG, Run
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.session import Execution, session
from gristmill.mixing import design, proxies, search_report
from gristmill.mixing.check import NATURAL, PROPOSED, Check, read_check, write_check_design
from gristmill.mixing.design import DesignJob
from gristmill.mixing.dirichlet import Rules
from gristmill.mixing.fit import FitJob
from gristmill.mixing.limits import Limits, Repeats, find_limits
from gristmill.mixing.objective import Objective, parse_guard, parse_targets
from gristmill.mixing.propose import FIGURES, ProposeJob
from gristmill.mixing.proxies import CPU_FLOPS, GPU_FLOPS, ProxiesJob
from gristmill.mixing.proxy_settings import Training
from gristmill.mixing.simplex import cap
from gristmill.mixing.sizes import SEQ_LEN
from gristmill.mixing.stopping import LIMIT, Round, judge
from gristmill.mixing.surface import Surface
from gristmill.mixing.sweep import require_room
from gristmill.mixing.tables import INDEX, read_losses, read_mixtures, write_table

SIZES, LIMITS = "sizes.csv", "limits.csv"
ROUNDS, MIXTURE = "rounds.json", "mixture.json"
MIXTURES, LOSSES = "mixtures.csv", "losses.csv"
CHECK = "check"
LEAST = 8
"""Mixtures that a fit needs."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SearchJob(Job):
    """Find the best mixture by proxies (RegMix, arXiv:2407.01492), and check it."""

    corpora: tuple[str, ...]
    """Token corpora, from gristmill corpus tokenize."""
    training: Training = Training()
    """Model and training of a proxy."""
    first: int = 24
    """Mixtures of the first round."""
    batch: int = 8
    """Mixtures of each later round, where the fit is least sure or the optimum may lie."""
    most: int = 64
    """Mixtures in all rounds, at most. The same command with more goes on where a search ended."""
    method: Literal["dirichlet", "space_filling"] = "dirichlet"
    """How the first round is chosen: draws, or those of them farthest apart, which are corners."""
    rules: Rules = Rules(weakest=1.0, strongest=15.0)
    """Bounds and strengths of the draws: stronger than RegMix's 0.1 to 5, for with tens of proxies
    instead of 512 the corners of the simplex cost more than they tell."""
    targets: tuple[str, ...] = ()
    """Domains whose loss is to be low: `NAME` or `NAME=WEIGHT`. Empty: the mean of all."""
    guard: tuple[str, ...] = ()
    """Domains whose loss may not be worse than at the natural mixture, or `all`."""
    guard_confidence: float = 0.8
    """Least chance that a guarded domain is kept, each by itself. 0.5: by the fit's means alone."""
    planned_tokens: float = 0.0
    """Tokens of the training that the mixture is for, which caps domains. 0: no caps."""
    planned_seq_len: int = SEQ_LEN
    """Tokens of a sequence in that training: repeats are counted in whole ones."""
    planned_epochs: float = 4.0
    """Most epochs over a domain in that training."""
    enough: float = 0.9
    """Held-out Spearman of the objective that a search may stop at."""
    tolerance: float = 0.1
    """It may stop when the last round's proxies, and one more or those of the round before, lower
    the expected objective by no more than this share of the gain over the natural mixture."""
    check_random: int = 8
    """Random mixtures in the check run."""
    check_seeds: int = 3
    """Seeds of the check run, none of them the search's own."""
    max_failed: int = 0
    """Proxies of a round that may lack losses in the end, failed or diverged."""
    seed: int = 0
    """Of the designs, of the proxies' start and stream, and of the fits."""
    execution: Execution = Execution()
    """Where it runs, and how many proxies at once."""

    uri_fields: ClassVar[tuple[str, ...]] = ()
    volatile_fields: ClassVar[tuple[str, ...]] = ("most", "max_failed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corpora:
            raise BadInputError("no corpora; give --corpora FOLDER ...")
        object.__setattr__(self, "corpora", tuple(io.absolute(uri) for uri in self.corpora))
        for name, least in (
            ("first", LEAST),
            ("planned_seq_len", 1),
            ("batch", 1),
            ("check_random", 0),
            ("check_seeds", 1),
        ):
            if getattr(self, name) < least:
                raise BadInputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.most < self.first:
            raise BadInputError(f"most ({self.most}) is less than the first round ({self.first})")
        if not (0 <= self.planned_tokens < math.inf and 0 < self.planned_epochs < math.inf):
            raise BadInputError(
                f"planned_tokens ({self.planned_tokens:g}) must be a number of 0 or more, "
                f"planned_epochs ({self.planned_epochs:g}) one above 0"
            )
        if not 0 <= self.tolerance < 1 or not -1 <= self.enough <= 1:
            raise BadInputError(
                f"tolerance ({self.tolerance:g}) lies in [0, 1) and enough ({self.enough:g}) in "
                "[-1, 1]"
            )
        if not 0 <= self.seed < 1 << 30:
            raise BadInputError(f"seed must be a whole number from 0 to 2**30, not {self.seed}")

    def plan(self) -> Plan:
        """Proxies at least and at most, tokens and hours."""
        corpus = self._corpus()
        settings = self.training.settings(corpus.vocabulary.size)
        check = (2 + self.check_random) * self.check_seeds
        gpus = self.training.gpus_per_proxy
        seconds = (self.most + check) * settings.flops / (GPU_FLOPS * gpus or CPU_FLOPS)
        return Plan(
            title=f"search the best mixture of {len(corpus.domains)} domains",
            reads=[(io.redact(uri), 0) for uri in self.corpora],
            work=[
                ("proxies", f"{self.first} to {self.most}, then {check} to check"),
                ("model", f"{settings.model.num_params:,} parameters ({self.training.preset})"),
                ("tokens", f"{settings.tokens:,} a proxy"),
            ],
            cpu_hours=0 if gpus else seconds * self.training.cpus_per_proxy / 3600,
            gpu_hours=seconds * gpus / 3600,
            basis="at most; rough, by FLOPs",
        )

    def _corpus(self) -> TokenCorpus:
        """The corpora, when what is asked for can be had of them: said before any proxy trains."""
        proxies.require_tokens(self.corpora)
        corpus = TokenCorpus(*self.corpora)
        parse_targets(self.targets, corpus.domains)
        parse_guard(self.guard, corpus.domains)
        proxies.require_sequences(corpus, self.training.settings(corpus.vocabulary.size))
        self._limits(corpus)
        return corpus

    def _limits(self, corpus: TokenCorpus) -> Limits:
        settings = self.training.settings(corpus.vocabulary.size)
        return find_limits(
            corpus,
            Repeats(
                tokens=settings.tokens,
                epochs=self.training.max_epochs,
                seq_len=settings.seq_len,
            ),
            Repeats(
                tokens=self.planned_tokens,
                epochs=self.planned_epochs,
                seq_len=self.planned_seq_len,
            ),
        )

    # -- doing it ------------------------------------------------------------------------------

    def inputs(self) -> dict[str, Any]:
        """The text, and every number of a proxy's training."""
        return proxies.training_inputs(self.corpora, self.training)

    def goes_on(self, run: Run) -> bool:
        """Whether the search ended at a limit of proxies that is higher now."""
        found = (run.done() or {}).get("summary", {})
        return bool(found.get("stopped") == LIMIT and found.get("proxies", 0) < self.most)

    def execute(self, run: Run) -> None:
        """Round after round, then the check, in one Ray session."""
        corpus = self._corpus()
        pin_inputs(run, self.inputs())
        rounds: list[Round] = []
        with session(self.execution):
            require_room(self.training.cpus_per_proxy, self.training.gpus_per_proxy)
            self._limits(corpus).write(run.path(SIZES), run.path(LIMITS))
            while not rounds or not rounds[-1].over:
                rounds.append(self._round(run, rounds))
                logger.info("search: %s", rounds[-1].line())
            last = rounds[-1]
            check = self._check(run, last, self._limits(corpus))
        io.write_json(run.path(ROUNDS), [asdict(one) for one in rounds])
        self._publish(run, rounds, check, corpus)

    def _round(self, run: Run, before: list[Round]) -> Round:
        """One round: what is new is trained, everything is fitted."""
        number = len(before) + 1
        name = f"round-{number:02d}"
        there = before[-1].proxies if before else 0
        planned = self._design(run, run.path(name, "design"), number, there)
        run_job(planned)
        tried = io.join(planned.out, design.MIXTURES)
        run_job(self._proxies(run.path(name, "proxies"), tried, self.seed, self.training))
        self._gather(run, number)
        fit = FitJob(
            mixtures=run.path(name, MIXTURES),
            losses=run.path(name, LOSSES),
            seed=self.seed,
            out=run.path(name, "fit"),
            execution=self.execution,
        )
        run_job(fit)
        proposal = self._propose(run, fit.out, run.path(name, "propose"))
        run_job(proposal)
        surface = Surface.load(fit.out)
        return judge(
            Objective(surface=surface, shares=parse_targets(self.targets, surface.targets)),
            io.read_json(io.join(proposal.out, FIGURES)),
            before=self._weights(run, before[-1]) if before else None,
            last=before[-1] if before else None,
            folder=name,
            used=there + planned.count,
            most=self.most,
            enough=self.enough,
            tolerance=self.tolerance,
        )

    @staticmethod
    def _weights(run: Run, one: Round) -> dict[str, float]:
        """A round's proposal."""
        figures = io.read_json(run.path(one.folder, "propose", FIGURES))
        return dict(figures["mixtures"]["proposed"]["weights"])

    def _size(self, out: str, there: int) -> int:
        """Mixtures of a round: of one that began, what it began with, whatever the limit was."""
        if io.exists(io.join(out, CONFIG)):
            return int(Run(out).config()["config"]["count"])
        return min(self.batch if there else self.first, self.most - there)

    def _design(self, run: Run, out: str, number: int, there: int) -> DesignJob:
        fields: dict[str, Any] = {"method": self.method}
        if there:
            last = f"round-{number - 1:02d}"
            fields = {
                "method": "sequential",
                "model": run.path(last, "fit"),
                "targets": self.targets,
                "guard": self.guard,
                "limits": run.path(LIMITS),
                "beside": run.path(last, MIXTURES),
            }
        return DesignJob(
            domains=run.path(SIZES),
            count=self._size(out, there),
            rules=self.rules,
            first_index=there + 1,
            seed=self.seed + number - 1,
            out=out,
            **fields,
        )

    def _proxies(self, out: str, mixtures: str, seed: int, training: Training) -> ProxiesJob:
        return ProxiesJob(
            design=mixtures,
            corpora=self.corpora,
            training=training,
            seed=seed,
            max_failed=self.max_failed,
            out=out,
            execution=self.execution,
        )

    def _propose(self, run: Run, model: str, out: str) -> ProposeJob:
        return ProposeJob(
            model=model,
            domains=run.path(LIMITS),
            targets=self.targets,
            guard=self.guard,
            guard_confidence=self.guard_confidence,
            seed=self.seed,
            out=out,
        )

    def _gather(self, run: Run, number: int) -> None:
        """Tables of all rounds so far, for the fit."""
        for name, read in ((MIXTURES, read_mixtures), (LOSSES, read_losses)):
            source = proxies.MIXTURES if name == MIXTURES else proxies.LOSSES
            parts = [run.path(f"round-{i + 1:02d}", "proxies", source) for i in range(number)]
            tables = [read(part) for part in parts]
            columns = tables[0].columns
            assert all(table.columns == columns for table in tables), "domains changed on the way"
            rows: list[list[str | float]] = [
                [index, *map(float, row)]
                for table in tables
                for index, row in zip(table.index, table.values, strict=True)
            ]
            write_table(run.path(f"round-{number:02d}", name), [INDEX, *columns], rows)

    def _check(self, run: Run, last: Round, limits: Limits) -> Check:
        """Train the proposal, the natural mixture and random ones with seeds of their own.

        The random ones are brought under the planned caps, as the proposal is: else they would be
        rivals that may not be taken.
        """
        figures = io.read_json(run.path(last.folder, "propose", FIGURES))["mixtures"]
        self._drop_check_of_another(run, last)
        random = run.path(CHECK, "random")
        if self.check_random:
            run_job(
                DesignJob(
                    domains=run.path(SIZES),
                    count=self.check_random,
                    rules=self.rules,
                    beside=run.path(last.folder, MIXTURES),
                    seed=self.seed + (1 << 30),
                    out=random,
                )
            )
        mixtures, names = run.path(CHECK, design.MIXTURES), limits.corpus.domains
        natural = np.array([[figures[NATURAL]["weights"][n] for n in names]])
        # Where a proxy nearly uses its text up, whole sequences cap even the natural mixture.
        fits = cap(natural, limits.proxy)[0].tolist()
        write_check_design(
            mixtures,
            {
                PROPOSED: figures[PROPOSED]["weights"],
                NATURAL: dict(zip(names, fits, strict=True)),
            },
            read_mixtures(io.join(random, design.MIXTURES)) if self.check_random else None,
            limits.proposal,
        )
        losses = []
        for number in range(1, self.check_seeds + 1):
            out = run.path(CHECK, f"seed-{number}")
            job = self._proxies(out, mixtures, self.seed + number, self.training)
            run_job(replace(job, max_failed=self.check_random, required=(PROPOSED, NATURAL)))
            losses.append(read_losses(io.join(out, proxies.LOSSES)))
        surface = Surface.load(run.path(last.folder, "fit"))
        objective = Objective(surface=surface, shares=parse_targets(self.targets, surface.targets))
        guarded = parse_guard(self.guard, surface.targets)
        return read_check(objective, read_mixtures(mixtures), losses, guarded)

    @staticmethod
    def _drop_check_of_another(run: Run, last: Round) -> None:
        """A search that goes on checks its new proposal; the check of the old one is over."""
        marker = run.path(CHECK, "round.json")
        if io.exists(marker) and io.read_json(marker) != {"folder": last.folder}:
            io.remove(run.path(CHECK))
        io.write_json(marker, {"folder": last.folder})

    def _publish(self, run: Run, rounds: list[Round], check: Check, corpus: TokenCorpus) -> None:
        last = rounds[-1]
        figures = io.read_json(run.path(last.folder, "propose", FIGURES))
        Mixture.normalized(self._weights(run, last)).save(run.path(MIXTURE))
        for name in (SIZES, LIMITS, ROUNDS, MIXTURE):
            run.add_output(name)
        for name in (MIXTURES, LOSSES):
            run.add_output(io.join(last.folder, name))
        warnings = search_report.warnings(self, last, figures, check)
        search_report.write(run, self, rounds, figures, check, corpus, warnings)
        wins, gains = check.wins, check.gains
        run.set_summary(
            proxies=last.proxies,
            rounds=len(rounds),
            stopped=last.why,
            held_out_spearman=round(last.spearman, 4),
            held_out_spearman_of_targets=round(last.target_spearman, 4),
            expected_gain=round(figures["gain"]["mean"], 5),
            expected_gain_90=f"{last.gain_lo:.5f} to {last.gain_hi:.5f}",
            measured_gain=round(float(np.mean(gains)), 5),
            measured_gains=[round(gain, 5) for gain in gains],
            beats_natural=f"{wins} of {len(gains)} seeds",
            beats_random=f"{check.wins_over_random} of {check.random}",
            warnings=warnings,
        )
        if rails := figures["rails"]:
            run.set_summary(
                rails_expected_kept=figures["rails_kept"],
                rails_measured_kept=f"{len(rails) - len(check.broken)} of {len(rails)} targets",
                rails_broken=check.broken,
            )
