"""The line that a log gets."""

import pytest

from gristmill.core import progress


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.5, "fit: 4/8 targets (50 %), 8 targets/s, "),
        (20.0, "fit: 4/8 targets (50 %), 5.0 s/target, "),
        (100.0, "fit: 4/8 targets (50 %), 25.0 s/target, "),
    ],
)
def test_slow_units_are_told_in_seconds(monkeypatch, seconds, said):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.Progress("fit", 8, "targets")
    now[0] += seconds
    shown.advance(4)
    assert shown.line().startswith(said)


def test_nothing_done_yet(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 5.0)
    assert "0 targets/s, unknown time left" in progress.Progress("fit", 8, "targets").line()
