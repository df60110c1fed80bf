"""From words on the command line to a job: tyro over the job's dataclass, recipe by recipe."""

import contextlib
import dataclasses
import importlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from gristmill.core.action import Action
from gristmill.core.errors import (
    DISK_FULL,
    BadInputError,
    GristmillError,
    MissingExtraError,
    TryAgainError,
)
from gristmill.core.job import Job, run_job

J = TypeVar("J", bound=Job)
FAILED, BAD_INPUT, TRY_AGAIN, INTERRUPTED = 1, 2, 75, 130
"""Exit statuses. 75 is EX_TEMPFAIL of sysexits.h: what retries a job should retry on that alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One `GROUP VERB`: what it does, and where its job class or its recipes are."""

    help: str
    """One line."""
    job: str = ""
    """`module:Class` of the job, for a verb without recipes."""
    recipes: str = ""
    """Module whose public functions are the recipes; the first word after the verb picks one."""
    recipe_word: str = "RECIPE"
    """What that word is called in help."""
    action: str = ""
    """`module:Class` of an action, for a verb that keeps no run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation(Generic[J]):
    """What one call of the command asks for."""

    job: J
    """The job."""
    plan: bool = False
    """Say what would be read, written and spent, and stop."""
    overwrite: bool = False
    """Replace what another run left in --out."""


def recipes_of(module_name: str) -> dict[str, Callable[[], Any]]:
    """The recipes of a module: its own public functions, by name."""
    module = importlib.import_module(module_name)
    found = {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and not isinstance(value, type)
        and getattr(value, "__module__", "") == module_name
    }
    return dict(sorted(found.items()))


def parse(kind: type[J], argv: Sequence[str], *, prog: str, about: str, default: J | None) -> Any:
    """An `Invocation` of `kind` from words; exits with help or a usage message as tyro does."""
    import tyro

    # A default of MISSING would make every field required, so none is passed where there is none.
    given: dict[str, Any] = {} if default is None else {"default": Invocation(job=default)}
    return tyro.cli(
        Invocation[kind],  # type: ignore[valid-type]
        args=list(argv),
        prog=prog,
        description=about,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        **given,
    )


def act(kind: type[Action], argv: Sequence[str], *, prog: str, about: str) -> int:
    """Parse an action's fields from words and do it; the process's exit status."""
    import tyro

    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    given: dict[str, Any] = {"prog": prog, "description": about, "config": settings}
    if not kind.takes_more:
        return tyro.cli(kind, args=list(argv), **given).act()
    action, more = tyro.cli(kind, args=list(argv), return_unknown_args=True, **given)
    return dataclasses.replace(action, words=tuple(more)).act()


def invoke(invocation: Invocation[Any]) -> int:
    """Plan or run a parsed invocation; the process's exit status."""
    if invocation.plan:
        print(invocation.job.plan().text())
        return 0
    run = run_job(invocation.job, overwrite=invocation.overwrite)
    done = run.done() or {}
    for name, value in done.get("summary", {}).items():
        if isinstance(value, bool | int | float | str):
            plain = isinstance(value, bool) or not isinstance(value, int)
            print(f"{name}: {value}" if plain else f"{name}: {value:,}")
    print(f"done: {run.uri}", flush=True)
    for warning in done.get("summary", {}).get("warnings", []):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def guarded(action: Callable[[], int]) -> int:
    """Run `action`; our own errors become one line on stderr and a status that says their kind."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        with _told_to_end():
            return action()
    except TryAgainError as error:
        return _say(f"error: {error}", TRY_AGAIN)
    except (BadInputError, MissingExtraError) as error:
        return _say(f"error: {error}", BAD_INPUT)
    except GristmillError as error:
        return _say(f"error: {error}", FAILED)
    except (ConnectionError, TimeoutError) as error:
        return _say(f"error: {error.__class__.__name__}: {error}; try again", TRY_AGAIN)
    except OSError as error:
        import errno

        full = error.errno == errno.ENOSPC
        return _say(f"error: {DISK_FULL if full else error.__class__.__name__}: {error}", FAILED)
    except KeyboardInterrupt:
        return _say("stopped; the same command resumes", INTERRUPTED)
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        return _say("told to end (SIGTERM); the same command resumes", TRY_AGAIN)


def _say(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Within, SIGTERM ends the command as an exit does, so that the run notes it; as in Ray."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def table(commands: Mapping[str, Mapping[str, Command]]) -> str:
    """All groups and verbs with their one line, for `gristmill --help`."""
    lines = []
    for group, verbs in commands.items():
        for verb, command in verbs.items():
            words = f"{group} {verb}".strip()
            lines.append(f"  {words:<18} {command.help}")
    return "\n".join(lines)
