"""Rules of the house that a tool does not keep by itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "gristmill"
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))


def test_platform_never_becomes_a_package():
    """It would shadow the standard library's platform module."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    import platform

    assert platform.python_version()


def test_top_level_holds_what_the_house_says():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.split() if not line.startswith(".")}
    allowed = {
        "pyproject.toml",
        "README.md",
        "Makefile",
        "platform",
        "jobs",
        "cluster",
        "tests",
        "docs",
    }
    assert top <= allowed | {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_and_packages_only_reexport(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400, "split it by noun"
    if path.name == "__init__.py":
        assert len(lines) <= 30
    assert path.stem not in {
        "utils",
        "helpers",
        "logging",
        "types",
        "platform",
        "inspect",
        "select",
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_unpickles_from_disk(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        words = {k.arg: k.value for k in node.keywords}
        name = ast.unparse(node.func)
        if name in ("pickle.load", "pickle.loads", "joblib.load", "cloudpickle.loads"):
            pytest.fail(f"line {node.lineno}: {name}")
        if name == "torch.load":
            assert ast.unparse(words["weights_only"]) == "True", f"line {node.lineno}"
        if name == "np.load":
            assert ast.unparse(words["allow_pickle"]) == "False", f"line {node.lineno}"


def test_no_committed_file_is_large_or_names_a_registry():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for name in listed:
        path = ROOT / name
        if not path.is_file():
            continue
        assert path.stat().st_size <= 500_000, f"{name} is over 500 kB"
        if (
            path.suffix in {".py", ".toml", ".md", ".yaml", ".txt", ""}
            and path.name != Path(__file__).name
        ):
            text = path.read_text(errors="ignore")
            assert not re.search(r"pypi\.org|pythonhosted|index-url|registry\.npmjs", text), name


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_jobs_are_thin_shells_that_show_their_submit_line(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 25
    assert "ray job submit" in (ast.get_docstring(ast.parse(text)) or "")
    done = subprocess.run(
        [sys.executable, str(path), "--help"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "platform")},
    )
    assert done.returncode == 0 and "usage" in done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ray_tune_has_one_door(path):
    """Import-linter sees no submodules of packages outside, so this looks itself."""
    if path != PACKAGE / "mixing" / "sweep.py":
        assert not re.search(r"ray\.tune|from ray import .*\btune\b", path.read_text())
