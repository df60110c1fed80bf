"""`report.html` of a training: curves, what was dropped, and the config."""

from collections.abc import Callable
from typing import Any

from gristmill.core.report import Report
from gristmill.training.progress import steps_of

CURVES = (
    ("loss", "Contrastive loss of rank 0", "loss"),
    ("lr", "Learning rate", "rate"),
    ("samples_per_second", "Samples a second, all workers", "samples/s"),
    ("data_seconds_share", "Share of time spent waiting for data", "share"),
    ("logit_scale", "Temperature (logit scale)", "scale"),
)


def training_report(
    summary: dict[str, Any],
    config: dict[str, Any],
    metrics: list[dict[str, Any]],
    not_comparable: str,
) -> Report:
    """The page.

    Args:
        summary: What goes into the manifest.
        config: Names and values of the settings.
        metrics: The run's metrics lines.
        not_comparable: Why the run may not stand beside others of its scale; empty if it may.
    """
    report = Report(f"CLIP training, scale {summary['scale']}", f"{summary['arch']}")
    if not_comparable:
        report.warnings.append(f"Non-comparable: {not_comparable}.")
    figures = [(name, value) for name, value in summary.items() if name != "dropped"]
    report.table("Result", ("figure", "value"), figures)
    lines = steps_of(metrics)
    for name, title, label in CURVES:
        if lines:
            report.plot(title, _curve(lines, name, label))
    loaded = sum(line["loaded"] for line in metrics if line.get("kind") == "epoch")
    rows = [("loaded", loaded), *summary["dropped"].items()]
    report.table(
        "Samples read",
        ("what", "count"),
        rows,
        "Loader processes read ahead, so more is loaded than trained on; a sample drawn "
        "twice counts twice. bad_shard counts reads of a tar that broke off.",
    )
    report.table("Config", ("setting", "value"), [(k, str(v)) for k, v in config.items()])
    return report


def _curve(lines: list[dict[str, Any]], name: str, label: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        axes.plot([x["samples_seen"] for x in lines], [x[name] for x in lines], linewidth=1)
        axes.set_xlabel("samples seen")
        axes.set_ylabel(label)

    return draw
