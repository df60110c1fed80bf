"""`report.html` of an evaluation: scores beside chance, recalls, confusions, sample predictions."""

import base64
from collections.abc import Sequence
from typing import Any

from gristmill.core.report import Report
from gristmill.evaluation.aggregate import Aggregate
from gristmill.evaluation.candidate import Candidate
from gristmill.evaluation.tasks.base import HIGH, LOW, MAIN, Task

MAX_BARS = 40
"""With more classes than this the bars show the best and the worst."""


def evaluation_report(
    candidate: Candidate,
    label: str,
    tasks: Sequence[Task],
    lines: Sequence[dict[str, Any]],
    details: Sequence[dict[str, Any]],
    scores: Aggregate,
) -> Report:
    """The page of one evaluation."""
    page = Report(
        f"Evaluation of {candidate.spec.arch}",
        f"{label}, average {scores.average:.4f}, weights {candidate.weights_sha256[:12]}",
        list(candidate.warnings),
    )
    rows = [_row(*each) for each in zip(tasks, lines, details, strict=True)]
    page.table(
        "Tasks",
        ["task", "group", "main metric", "score", "95 % interval", "chance", "samples"],
        rows,
        "Intervals are over the test samples; another training seed moves a score as well.",
    )
    averages = [["all tasks", scores.average], *scores.groups.items()]
    page.table("Averages", ["over", "unweighted mean"], averages)
    page.plot("Scores and chance", lambda axes: _draw_scores(axes, rows))
    for task, line, detail in zip(tasks, lines, details, strict=True):
        _task_sections(page, task, line["metrics"], detail)
    return page


def _row(task: Task, line: dict[str, Any], detail: dict[str, Any]) -> list[Any]:
    metrics, span = line["metrics"], ""
    if metrics.get(LOW) is not None:
        span = f"{metrics[LOW]:.3f} to {metrics[HIGH]:.3f}"
    score = metrics[MAIN] if metrics[MAIN] is not None else "not scored"
    count = metrics.get("num_samples", "")
    return [task.name, task.group, task.metric, score, span, float(detail["chance"]), count]


def _draw_scores(axes: Any, rows: Sequence[Sequence[Any]]) -> None:
    scored = [row for row in rows if isinstance(row[3], float)]
    places = range(len(scored))
    axes.barh(places, [row[3] for row in scored], color="#3b6ea8")
    axes.plot(
        [row[5] for row in scored], places, "|", color="#c8553d", markersize=16, label="chance"
    )
    axes.set_yticks(list(places), [row[0] for row in scored])
    axes.set_xlim(0, 1)
    axes.set_xlabel("main metric")
    axes.legend(frameon=False)


def _task_sections(
    page: Report, task: Task, metrics: dict[str, Any], detail: dict[str, Any]
) -> None:
    values = [[name, "null" if value is None else value] for name, value in metrics.items()]
    page.table(f"{task.name}: metrics", ["metric", "value"], values)
    if detail.get("kind") == "classification":
        _classification_sections(page, task, detail)
    for right, title in ((True, "right"), (False, "wrong")):
        pictures = [p for p in detail.get("pictures", []) if p["right"] is right]
        shown = [(base64.b64decode(p["image"]), p["text"]) for p in pictures]
        if shown:
            page.thumbnails(f"{task.name}: {title}", shown)


def _classification_sections(page: Report, task: Task, detail: dict[str, Any]) -> None:
    names = detail["classnames"]
    each = zip(names, detail["correct"], detail["support"], strict=True)
    recalls = sorted(((c / n, name, n) for name, c, n in each if n), reverse=True)
    note = "Recall of each class that has samples."
    if len(recalls) > MAX_BARS:
        half = MAX_BARS // 2
        note = f"The {half} best and {half} worst of {len(recalls)} classes."
        recalls = recalls[:half] + recalls[-half:]
    page.plot(f"{task.name}: recall by class", lambda axes: _draw_recalls(axes, recalls), note)
    if "confusion" in detail:
        page.plot(
            f"{task.name}: confusion",
            lambda axes: _draw_confusion(axes, detail["confusion"], names),
            "Rows are the true class, columns the predicted one; shares of the row.",
        )
    pairs = [[names[a], names[b], times] for a, b, times in detail["confused"]]
    if pairs:
        page.table(f"{task.name}: most confused", ["true", "predicted", "times"], pairs)


def _draw_recalls(axes: Any, recalls: Sequence[tuple[float, str, int]]) -> None:
    places = range(len(recalls))
    axes.bar(places, [recall for recall, _, _ in recalls])
    axes.set_xticks(list(places), [name for _, name, _ in recalls], rotation=90, fontsize=7)
    axes.set_ylim(0, 1)


def _draw_confusion(axes: Any, matrix: list[list[int]], names: list[str]) -> None:
    shares = [[n / max(sum(row), 1) for n in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    places = list(range(len(names)))
    axes.set_xticks(places, names, rotation=90, fontsize=6)
    axes.set_yticks(places, names, fontsize=6)
