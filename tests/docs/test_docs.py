"""The documents say what is true: their links lead somewhere, their commands run."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from killing import environment
from made_up import write_features, write_pool
from real_texts import documents

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = f"{sys.executable} -m gristmill"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_named_exist(page):
    from gristmill.recipes.commands import COMMANDS

    for group, verb in re.findall(
        r"gristmill (pool|clip|cluster|run|corpus|mix|lm) ([a-z-]+)", page.read_text()
    ):
        assert verb in COMMANDS[group], f"{group} {verb}"


def test_the_fault_table_has_every_fault_for_every_job():
    page = (ROOT / "docs" / "results" / "faults.md").read_text()
    cells = re.findall(r"^\| (\w+ \w+), [^|]+ \| ([^|]+) \| ([^|]+) \|", page, re.M)
    jobs = {job for job, _, _ in cells}
    assert jobs >= {"pool filter", "pool score", "corpus tokenize", "clip train", "mix proxies"}
    faults = {fault for _, fault, _ in cells}
    assert len(faults) == 4 and len(cells) == len(jobs) * len(faults)
    assert all(outcome.startswith("same outputs") for _, _, outcome in cells)


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def sh(line, folder):
    done = subprocess.run(
        ["bash", "-ec", re.sub(r"\bgristmill (?=pool|clip|corpus|mix|lm|demo|cluster|run)", f"{COMMAND} ", line)],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
    return done.stdout


@pytest.mark.ray
def test_the_filter_guide_works_as_written(tmp_path):
    guide = ROOT / "docs" / "guides" / "add-a-filter.md"
    (tmp_path / "own_filter.py").write_text(blocks(guide, "python")[0])
    write_pool(tmp_path / "POOL", shards=2)
    for line in blocks(guide, "bash")[0].strip().splitlines():
        sh(line.replace("PYTHONPATH=.", 'PYTHONPATH="$PYTHONPATH:."'), tmp_path)
    assert "caption_long" in (tmp_path / "OUT" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_guide_to_filters_runs_as_written(tmp_path):
    rows = {}
    for name, seed in [("POOL", 0), ("TARGETS", 1), ("EVALUATION", 2)]:
        rows[name] = write_pool(tmp_path / name, shards=3, per_shard=40, seed=seed)
        write_features(tmp_path / name, seed=seed)
    texts = [text for text in documents(60)]
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "TEXTS").mkdir()
    (tmp_path / "TEXTS" / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "QUESTIONS").mkdir()
    (tmp_path / "QUESTIONS" / "q.jsonl").write_text(json.dumps({"text": texts[-1]}))
    guide = ROOT / "docs" / "guides" / "filters.md"
    lines = [line for block in blocks(guide, "bash") for line in block.strip().splitlines()]
    assert len(lines) >= 12
    for line in lines:
        sh(line, tmp_path)
        out = tmp_path / shlex.split(line)[-1]
        assert (out / "DONE").exists() and (out / "report.html").exists(), line


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_guides_to_corpora_and_mixtures_run_as_written(tmp_path):
    for name in ("corpora", "mixtures"):
        for line in blocks(ROOT / "docs" / "guides" / f"{name}.md", "bash")[0].strip().splitlines():
            sh(line, tmp_path)
    assert (tmp_path / "m2.csv").exists() and (tmp_path / "o" / "pareto.csv").exists()
    assert (
        (tmp_path / "p.csv").read_text().startswith("index,characters,characters_lo,characters_hi,")
    )


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_readmes_tour_runs_as_written(tmp_path):
    sh("gristmill demo --out runs/demo", tmp_path)
    lines = [
        line for block in blocks(ROOT / "README.md", "bash") for line in block.strip().splitlines()
    ]
    assert len(lines) > 8
    for line in lines:
        if not line.startswith(". "):
            shlex.split(line)
            sh(line, tmp_path)
    assert (tmp_path / "runs" / "tour" / "bundle" / "MANIFEST").exists()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_guide_to_language_models_runs_as_written(tmp_path):
    guide = ROOT / "docs" / "guides" / "lm-training.md"
    for line in blocks(guide, "bash")[0].strip().splitlines():
        sh(line, tmp_path)
    assert (tmp_path / "m" / "DONE").exists()
    assert (tmp_path / "g" / "texts.jsonl").exists()
