"""report.html of a sweep: losses by target, what failed, the ledger of repeats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.core.plan import human_seconds
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.ledger import Ledger
from gristmill.mixing.proxy_settings import ProxySettings
from gristmill.mixing.results import Result
from gristmill.mixing.sweep import Outcome
from gristmill.mixing.tables import Table

SHOWN = 40


def write(
    run: Run,
    settings: ProxySettings,
    design: Table,
    outcome: Outcome,
    lacking: Mapping[str, str],
    ledgers: Sequence[Ledger],
) -> None:
    """Write the page."""
    done = {i: r for i, r in outcome.results.items() if r.status == "done"}
    seconds = sum(r.seconds for r in outcome.results.values())
    page = Report(
        title="Proxies",
        subtitle=(
            f"{len(done)} of {len(design.index)} mixtures of {len(design.columns)} domains, "
            f"{settings.tokens:,} tokens each, {human_seconds(seconds)} of training in all"
        ),
    )
    if lacking:
        page.warnings.append(f"{len(lacking)} proxies have no losses; see below.")
    _losses(page, done)
    _settings(page, settings)
    _repeats(page, ledgers)
    if lacking:
        rows = [[index, why] for index, why in list(lacking.items())[:SHOWN]]
        page.table("Without losses", ["index", "why"], rows)
    if outcome.retried:
        again = [[index, str(count)] for index, count in list(outcome.retried.items())[:SHOWN]]
        page.table("Begun again", ["index", "times"], again)
    page.save(run.path(REPORT))


def _losses(page: Report, done: Mapping[str, Result]) -> None:
    targets = list(next(iter(done.values())).losses)
    losses = np.array([[r.losses[name] for name in targets] for r in done.values()])
    names = list(done)
    page.table(
        "Losses by target",
        ["target", "lowest", "at", "mean", "highest", "at"],
        [
            [
                name,
                float(column.min()),
                names[int(column.argmin())],
                float(column.mean()),
                float(column.max()),
                names[int(column.argmax())],
            ]
            for name, column in zip(targets, losses.T, strict=True)
        ],
        note="Mean cross entropy a token, in nats, on the domain's validation split.",
    )
    page.plot("Spread of losses", lambda axes: _spread(axes, targets, losses))


def _spread(axes: Any, targets: list[str], losses: Any) -> None:
    axes.boxplot(losses, tick_labels=targets, orientation="horizontal")
    axes.set_xlabel("loss over the mixtures")


def _settings(page: Report, settings: ProxySettings) -> None:
    model = settings.model
    rows: list[list[Any]] = [
        ["model", f"{model.num_layers} layers of width {model.width}"],
        ["parameters", model.num_params],
        ["steps", settings.steps],
        ["sequences a step", settings.batch_size],
        ["tokens of a sequence", settings.seq_len],
        ["learning rate", settings.lr],
        ["warm-up steps", settings.warmup_steps],
        ["weight decay", settings.weight_decay],
        ["validation sequences a domain, at most", settings.validation_sequences],
    ]
    page.table("How a proxy is trained", ["what", "value"], rows)


def _repeats(page: Report, ledgers: Sequence[Ledger]) -> None:
    epochs: dict[str, list[float]] = {}
    for ledger in ledgers:
        for entry in ledger.entries:
            epochs.setdefault(entry.domain, []).append(entry.epochs)
    page.table(
        "Ledger: planned epochs of a domain over the mixtures",
        ["domain", "mean", "most"],
        [[name, float(np.mean(e)), max(e)] for name, e in sorted(epochs.items())],
        note=(
            "How often a proxy goes through the domain's text, by its weight: the stream draws at "
            "most a sequence more or less. Mixtures without it are left out."
        ),
    )
