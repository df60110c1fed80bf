"""The exceptions people see. Their message says what was wrong, with the value, and what to do.

GristmillError
├── BadInputError (also ValueError)   data or a setting that cannot be right
│   └── CorruptDataError              a file, row group or tar that cannot be read; names the place
├── RunError                          a run folder that is foreign or unfinished, a job that failed
│   └── TryAgainError                 nothing is wrong with the job: machines went, or are taken
└── MissingExtraError                 a package of an extra is not installed; prints the pip line
"""

DISK_FULL = "the disk is full; make room and run the same command again"


class GristmillError(Exception):
    """Base of all errors whose message is meant for the person at the terminal."""


class BadInputError(GristmillError, ValueError):
    """Data or a setting that cannot be right."""


class CorruptDataError(BadInputError):
    """A file, row group or tar member that cannot be read."""


class RunError(GristmillError):
    """A run folder that belongs to another job or is not finished, or a job that failed."""


class TryAgainError(RunError):
    """Nothing is wrong with the job: machines went, or another process is at it for now."""


class MissingExtraError(GristmillError, ImportError):
    """A package that only an extra installs is missing."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; it comes with: pip install 'gristmill[{extra}]'"
        )
