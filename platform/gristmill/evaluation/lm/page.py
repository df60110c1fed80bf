"""`report.html` of a language model's evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.core import io
from gristmill.core.report import Report

NONE = "not known"


def evaluation_page(results: Mapping[str, Any], warnings: Sequence[str]) -> Report:
    """Losses by domain beside the baseline, then the harness's tasks."""
    model = results["model"]
    page = Report("Language model evaluation", io.redact(model["uri"]), list(warnings))
    if domains := results.get("domains"):
        _domains(page, results, domains)
    if tasks := results.get("tasks"):
        rows = [
            (name, metric, value, _error_of(metrics, metric), tasks["n-samples"].get(name, ""))
            for name, metrics in tasks["results"].items()
            for metric, value in metrics.items()
            if isinstance(value, float) and "_stderr" not in metric
        ]
        page.table(
            "Tasks of lm-evaluation-harness",
            ("task", "metric", "value", "standard error", "samples"),
            rows,
            f"lm-eval {tasks['lm_eval']}, {tasks['fewshot'] or 'each task its own'} examples "
            "in context.",
        )
    page.table("Model", ("file", "SHA-256"), sorted(model["files"].items()))
    return page


def _error_of(metrics: Mapping[str, Any], metric: str) -> Any:
    name, _, rest = metric.partition(",")
    value = metrics.get(f"{name}_stderr,{rest}", "")
    return value if isinstance(value, float) else ""


def _domains(page: Report, results: Mapping[str, Any], domains: Mapping[str, Any]) -> None:
    rows = [_row(name, found) for name, found in domains.items()]
    rows += [
        _row(label, results[key])
        for key, label in (("mean_of_domains", "mean of domains"), ("all_tokens", "all tokens"))
    ]
    header = ["domain", "tokens", "nats a token", "95 % interval", "perplexity", "bits a byte"]
    trigram = results.get("baseline") is not None
    if trigram:
        header += ["trigram, nats", "trigram, bits a byte", "model less trigram, nats"]
    page.table(
        "Held-out loss",
        header,
        rows,
        f"Validation split in sequences of {results['seq_len']} tokens, none overlapping; "
        f"{results['precision']}. Intervals are over sequences; those of one document are alike, "
        "so they are rather too narrow, and they say nothing about the training's seed.",
    )
    page.plot("Nats a token", lambda axes: _draw(axes, domains))
    if trigram:
        baseline = results["baseline"]
        grams = ", ".join(f"{n:,} {kind}" for n, kind in zip(*baseline["sizes"], strict=True))
        page.text(
            "Baseline",
            f"Interpolated modified Kneser-Ney over the same token ids, counted in "
            f"{baseline['tokens']:,} tokens of the training splits: {grams}. Like the model it "
            "sees one sequence at a time.",
        )


def _row(name: str, found: Mapping[str, Any]) -> list[Any]:
    row = [
        name,
        found["tokens"],
        found["nats_per_token"],
        _span(found["interval_95"]),
        _or(found["perplexity"]),
        _or(found["bits_per_byte"]),
    ]
    if "trigram" in found:
        less = found["model_less_trigram"]
        row += [found["trigram"]["nats_per_token"], _or(found["trigram"]["bits_per_byte"])]
        row += [f"{less['nats_per_token']:+.4f} ({_span(less['interval_95'])})"]
    return row


def _or(value: float | None) -> Any:
    return NONE if value is None else value


def _span(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else NONE


def _draw(axes: Any, domains: Mapping[str, Any]) -> None:
    names = sorted(domains, key=lambda name: -domains[name]["nats_per_token"])
    places = range(len(names))
    values = [domains[name]["nats_per_token"] for name in names]
    errors = [1.96 * (domains[name]["standard_error"] or 0.0) for name in names]
    axes.barh(places, values, xerr=errors, color="#3b6ea8")
    if "trigram" in domains[names[0]]:
        axes.plot(
            [domains[name]["trigram"]["nats_per_token"] for name in names],
            places,
            "|",
            color="#c8553d",
            markersize=14,
            label="trigram",
        )
        axes.legend(frameon=False)
    axes.set_yticks(list(places), names)
    axes.set_xlabel("nats a token")
