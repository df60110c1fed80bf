"""The command as a person meets it."""

import subprocess
import sys

import pytest

from gristmill.core.cli import recipes_of
from gristmill.core.config import from_dict, to_dict
from gristmill.recipes.commands import COMMANDS, main

VERBS = [(g, v) for g, verbs in COMMANDS.items() for v in verbs]
RECIPES = [
    (group, verb, name)
    for group, verb in VERBS
    if COMMANDS[group][verb].recipes
    for name in recipes_of(COMMANDS[group][verb].recipes)
]


def run(*words):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gristmill", *words],
        capture_output=True,
        text=True,
    )


def test_help_lists_every_verb():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"{g} {v}".strip() in done.stdout for g, v in VERBS)
    assert main([]) == 0


@pytest.mark.parametrize(("group", "verb"), VERBS)
def test_help_of_every_verb_imports_nothing_heavy(group, verb):
    done = run(group, *filter(None, [verb]), "--help")
    assert done.returncode == 0, done.stderr[-500:]
    assert "usage" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {
        "torch",
        "ray",
        "open_clip",
        "pyarrow.parquet",
        "matplotlib.pyplot",
        "sklearn",
    }


@pytest.mark.parametrize(("group", "verb", "recipe"), RECIPES)
def test_every_recipe_builds_and_shows_its_flags(group, verb, recipe, capsys):
    with pytest.raises(SystemExit) as stop:
        main([group, verb, recipe, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--out" in shown and "--plan" in shown


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["pol"], 2, "perhaps you meant pool"),
        (["pool", "filtre"], 2, "perhaps you meant filter"),
        (["pool", "filter", "clip_scor"], 2, "perhaps you meant clip_score"),
        (["pool", "filter", "basic & nothing"], 2, "no filter named 'nothing'"),
        (["pool", "filter", "basic & clip_score(arch=b32"], 2, "closing bracket"),
        (["pool", "filter", "basic & clip_score(fraktion=1)"], 2, "fraktion"),
        (["pool", "ingest", "zip"], 2, "no SOURCE 'zip'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(words, status, said, capsys):
    assert main(words) == status
    assert said in capsys.readouterr().err


def test_clip_score_needs_one_cut(capsys):
    with pytest.raises(SystemExit):
        main(["pool", "filter", "clip_score", "--pool", "x", "--out", "y"])
    assert "either --fraction or --threshold" in capsys.readouterr().err.replace("\n", " ").replace(
        "│", ""
    )


def test_expressions_compose_and_survive_json():
    from gristmill.recipes.filter import _expression

    job = _expression("basic & clip_score(arch=b32, threshold=0.25) & no_filter")
    assert [type(p).__name__ for p in job.filter.parts] == ["Basic", "ClipScore", "NoFilter"]
    assert job.filter.parts[1].threshold == 0.25
    assert from_dict(to_dict(job.filter)) == job.filter


def test_a_filter_of_your_own():
    from gristmill.recipes.filter import _expression

    job = _expression("python:own_filter:ShortCaption(longest=20) & no_filter")
    assert job.filter.parts[0].longest == 20


def test_plan_says_the_cost_and_writes_nothing(tmp_path, capsys):
    from made_up import write_metadata, write_pool

    write_metadata(tmp_path / "p", 1000)
    assert (
        main(
            [
                "pool",
                "filter",
                "basic",
                "--pool",
                f"{tmp_path}/p",
                "--out",
                f"{tmp_path}/o",
                "--plan",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "filter 1,000 rows" in shown and "cost" in shown
    write_pool(tmp_path / "q", shards=1, per_shard=3)
    assert (
        main(["pool", "inspect", "--pool", f"{tmp_path}/q", "--out", f"{tmp_path}/o", "--plan"])
        == 0
    )
    assert not (tmp_path / "o").exists()
