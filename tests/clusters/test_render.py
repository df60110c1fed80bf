"""Rendered cluster files: the committed ones are what `render` writes, and a fleet says what is wrong."""

from pathlib import Path

import pytest
import yaml

from gristmill.clusters.fleet_file import load
from gristmill.clusters.render import RenderFleet, render
from gristmill.recipes.commands import main

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "cluster" / "fleet.yaml"


def test_the_committed_files_are_what_render_writes(tmp_path):
    assert main(["cluster", "render", "--fleet", str(FLEET), "--out", str(tmp_path)]) == 0
    made = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    assert len(made) >= 15
    for name in made:
        assert (tmp_path / name).read_bytes() == (ROOT / "cluster" / name).read_bytes(), (
            f"{name} is stale: gristmill cluster render"
        )


def test_one_cloud_gives_its_files_alone(tmp_path):
    data = yaml.safe_load(FLEET.read_text())
    for name in ("gcp", "azure", "kubernetes", "slurm"):
        data.pop(name)
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(data))
    names = {name for name, _ in render(load(str(tmp_path / "fleet.yaml")))}
    assert {"aws.yaml", "roles/aws-head.json", "laptop.sh", "Dockerfile.gpu"} <= names
    assert not {n for n in names if "gcp" in n or "azure" in n or "kube" in n or "slurm" in n}


def test_what_a_person_wrote_is_left_alone(tmp_path, capsys):
    (tmp_path / "aws.yaml").write_text("mine: true\n")
    assert main(["cluster", "render", "--fleet", str(FLEET), "--out", str(tmp_path)]) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert (tmp_path / "aws.yaml").read_text() == "mine: true\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "aws.yaml"]
    assert RenderFleet(fleet=str(FLEET), out=str(tmp_path), overwrite=True).act() == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ray: 2.60.0", "rai: 2.60.0", "rai: no such field; perhaps ray"),
        ("ray: 2.60.0\n", "", "ray: missing"),
        ("max: 40, market: spot}\n    data: {machine: m7i", "max: 40, min: 50, market: spot}\n    data: {machine: m7i", "aws.groups.data-spot: min 50 and max 40"),
        ("market: spot}\n    data: {machine: m7i", "market: sport}\n    data: {machine: m7i", "aws.groups.data-spot.market: 'sport' is not one of"),
        ("p5.48xlarge", "p5.48xlrge", "aws.groups.train-h100.machine: no machine kind 'p5.48xlrge' of aws; perhaps p5.48xlarge"),
        ('"123456789012"', "123456789012", "aws.account: 123456789012 must be str; quote it"),
        ("bucket: s3://example-bucket/gristmill", "bucket: /data", "bucket: '/data' must be a URI"),
        ("name: gristmill\n", "name: Grist mill\n", "name: 'Grist mill' holds a character"),
        ("group: train-h100", "group: train-b200", "job.group: kubernetes has no group 'train-b200'"),
        ("ranks: 16", "ranks: 12", "job.ranks: 12 ranks do not fill nodes of 8 GPUs"),
        ("--workers 16", "--workers $(nproc)", "job.command: "),
        ("gpu: H100-80GB, max", "gpu: H100, max", "no GPU 'H100'; perhaps H100-80GB"),
    ],
)  # fmt: skip
def test_a_wrong_fleet_is_told_by_its_place(tmp_path, capsys, old, new, said):
    text = FLEET.read_text()
    assert old in text
    (tmp_path / "fleet.yaml").write_text(text.replace(old, new, 1))
    words = ["cluster", "render", "--fleet", f"{tmp_path}/fleet.yaml", "--out", f"{tmp_path}/o"]
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
