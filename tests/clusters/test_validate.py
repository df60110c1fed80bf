"""Broken cluster files, each with one fault, and the message that names the file and the field."""

import shutil
from pathlib import Path

import pytest
from broken_cluster_files import BROKEN

from gristmill.clusters.rules import is_secret
from gristmill.clusters.validate import findings_of, validate
from gristmill.recipes.commands import main

ROOT = Path(__file__).parents[2]
BESIDE = {
    "kuberay-base.yaml": ("kuberay-cluster.yaml",),
    "kuberay-cluster.yaml": ("kuberay-base.yaml",),
    "kuberay-job.yaml": ("kuberay-base.yaml",),
    "kueue.yaml": ("kuberay-cluster.yaml", "kuberay-base.yaml"),
}
"""Files that are right only together with others."""


def test_the_committed_files_pass(capsys):
    assert main(["cluster", "validate", str(ROOT / "cluster")]) == 0
    said = capsys.readouterr().out
    assert "nothing wrong" in said and "not checked" not in said
    assert "EC2's model of RunInstances" in said and "Kubernetes 1.34's schema" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "field", "problem"), BROKEN, ids=lambda v: str(v).strip()[:30]
)
def test_a_broken_file_is_told_by_its_field(tmp_path, name, old, new, field, problem):
    source = ROOT / "cluster" / name
    text = source.read_text()
    assert old in text, "the variant no longer breaks what stands there"
    copy = tmp_path / Path(name).name
    copy.write_text(text.replace(old, new, 1))
    for other in BESIDE.get(name, ()):
        shutil.copy(ROOT / "cluster" / other, tmp_path)
    found = findings_of((str(tmp_path),))
    assert any(field in f.field and problem in f.problem for f in found), (
        "\n".join(f.line() for f in found) or "nothing was found"
    )
    # One fault gives few findings: a message among dozens would not be clear.
    assert len({f.problem for f in found}) <= 3


def test_the_command_fails_and_says_where(tmp_path, capsys):
    shutil.copytree(ROOT / "cluster", tmp_path / "c")
    path = tmp_path / "c" / "gcp.yaml"
    path.write_text(path.read_text().replace("--dashboard-host=127.0.0.1", "--dashboard-host=::"))
    assert main(["cluster", "validate", str(tmp_path / "c")]) == 1
    said = capsys.readouterr().out
    assert f"{path}: head_start_ray_commands.1: " in said and "1 wrong" in said
    assert main(["cluster", "validate", str(tmp_path / "none")]) == 2


def test_a_file_of_no_known_kind_is_told(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1\n")
    (found,) = findings_of((str(tmp_path / "x.yaml"),))
    assert "of no kind known" in found.problem


def test_the_policy_of_one_file_guards_the_pods_of_another(tmp_path):
    for name in ("kuberay-base.yaml", "kuberay-job.yaml"):
        shutil.copy(ROOT / "cluster" / name, tmp_path)
    assert not findings_of((str(tmp_path),))
    (alone,) = findings_of((str(tmp_path / "kuberay-job.yaml"),))
    assert "no NetworkPolicy" in alone.problem


def test_images_and_kuberay_agree_on_the_version_of_ray(tmp_path):
    for name in ("kuberay-base.yaml", "kuberay-cluster.yaml"):
        shutil.copy(ROOT / "cluster" / name, tmp_path)
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    (tmp_path / "Dockerfile").write_text(text.replace("==2.60.0", "==2.59.0"))
    (found,) = findings_of((str(tmp_path),))
    assert found.field == "RayCluster.spec.rayVersion" and "holds Ray 2.59.0" in found.problem


def test_what_costs_money_or_speed_is_a_warning_and_no_failure(tmp_path, capsys):
    assert main(["cluster", "validate", str(ROOT / "cluster" / "fleet.yaml")]) == 0
    assert "warning: " in (said := capsys.readouterr().out) and "no NCCL plugin" in said
    text = (ROOT / "cluster" / "aws.yaml").read_text()
    kept = text.replace(
        "min_workers: 0\n    max_workers: 16", "min_workers: 16\n    max_workers: 16"
    )
    (tmp_path / "aws.yaml").write_text(kept)
    assert main(["cluster", "validate", str(tmp_path)]) == 0
    assert "paid for even when idle" in capsys.readouterr().out
    fleet = (ROOT / "cluster" / "fleet.yaml").read_text()
    base = "images:\n  gpu_base: images.example.org/nccl-efa:1.2.3\n"
    (tmp_path / "fleet.yaml").write_text(fleet.replace("images:\n", base))
    assert main(["cluster", "validate", str(tmp_path / "fleet.yaml")]) == 0
    assert "warning" not in capsys.readouterr().out


def test_every_file_says_with_what_it_was_checked():
    assert all(c.means for c in validate((str(ROOT / "cluster"),)))


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtn", True),
        ("WANDB_API_KEY", "abc", True),
        ("HF_TOKEN", "hf_x", True),
        ("ENCRYPTION_KEY", "abc", True),
        ("DB_PASSWORD", "$(cat /run/x)", False),
        ("RAY_AUTH_MODE", "token", False),
        ("RAY_AUTH_TOKEN_PATH", "/run/token", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("MAX_TOKENS", "4096", False),
        ("MONKEY", "yes", False),
    ],
)
def test_a_secret_is_told_from_a_setting_by_its_name(name, value, secret):
    assert is_secret(name, value) == secret
