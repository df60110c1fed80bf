"""Tasks of lm-evaluation-harness on a model of ours. Needs: pip install 'gristmill[eval]'."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.evaluation.lm.subject import Precision, Subject, load_on_device

KEPT = ("results", "groups", "versions", "n-shot", "higher_is_better")


def task_files(folder: str) -> dict[str, str]:
    """SHA-256 of every file of a folder of tasks, by path.

    Raises:
        BadInputError: It is not a folder of this machine with files in it.
    """
    if not io.is_local(folder) or not (files := io.list_files(folder, recursive=True)):
        raise BadInputError(
            f"{io.redact(folder)} is no local folder with files; the harness reads tasks from one"
        )
    return {uri.removeprefix(folder).lstrip("/"): io.sha256(uri) for uri in files}


def run_tasks(
    subject: Subject,
    tasks: Sequence[str],
    *,
    include_path: str,
    fewshot: int,
    limit: int,
    batch_size: int,
    precision: Precision,
) -> dict[str, Any]:
    """The harness's own results: its metric names, standard errors and task versions.

    Raises:
        BadInputError: No such task, or the model has no tokenizer.
        MissingExtraError: The harness is not installed.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError("lm-eval", "eval") from error
    import torch

    from gristmill.evaluation.lm.harness_model import HarnessModel

    if not subject.tokenizer:
        raise BadInputError(
            f"tasks are text, and {io.redact(subject.uri)} has no tokenizer.json; give --tokenizer"
        )
    manager = TaskManager(include_path=include_path or None)
    _require_known(tasks, manager.all_tasks)
    model = load_on_device(subject.uri, gpu=torch.cuda.is_available())
    with _quiet():
        found = lm_eval.simple_evaluate(
            model=HarnessModel(
                model, subject.tokenizer, batch_size=batch_size, precision=precision
            ),
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=fewshot if fewshot >= 0 else None,
            limit=limit or None,
            log_samples=False,
        )
    plain = {name: _plain(found[name]) for name in KEPT if name in found}
    counts = {name: n["effective"] for name, n in found["n-samples"].items()}
    return {
        "lm_eval": lm_eval.__version__,
        "limit": limit,
        "fewshot": fewshot if fewshot >= 0 else None,
        **plain,
        "n-samples": counts,
    }


def _require_known(tasks: Sequence[str], known: Sequence[str]) -> None:
    import difflib

    for name in tasks:
        if name not in known and "*" not in name:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; near: {', '.join(near)}" if near else ""
            raise BadInputError(
                f"lm-evaluation-harness has no task {name!r}{hint}; "
                "give --include-path for tasks of your own"
            )


def _plain(value: Any) -> Any:
    """As JSON: the harness mixes numpy numbers and the word N/A in."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's log of its own progress."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
