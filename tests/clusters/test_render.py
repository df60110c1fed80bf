"""Rendered cluster files: the committed ones are what `render` writes, and a fleet says what is wrong."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from gristmill.clusters.fleet_file import load
from gristmill.clusters.render import RenderFleet, render
from gristmill.clusters.validate import findings_of
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
        ("--workers 16\n  group: train-h100\n  ranks: 16", "--workers 12\n  group: train-h100\n  ranks: 12", "job.ranks: 12 ranks do not fill nodes of 8 GPUs"),
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


@pytest.mark.parametrize(
    ("old", "new", "file", "shown"),
    [
        ("market: reserved, reservation: gristmill-h200", "market: flex-start, hours: 24", "gcp.yaml", "provisioningModel: FLEX_START, instanceTerminationAction: DELETE, maxRunDuration: {seconds: 86400}"),
        ("{machine: a3-megagpu-8g, max: 16, disk_gb: 1000}", "{machine: a3-megagpu-8g, max: 16, market: reserved, reservation: r1}", "gcp.yaml", "values: [r1]"),
        ("{machine: a3-megagpu-8g, max: 16, disk_gb: 1000}", "{machine: a3-megagpu-8g, max: 16, fast_network: false}", "gcp.yaml", "networkInterfaces: [{subnetwork"),
        ("market: capacity-block, reservation: cr-0123456789abcdef0", "market: reserved, reservation: cr-1", "aws.yaml", "{CapacityReservationId: cr-1}"),
        ("  repository: gristmill\n", '  scratch: ""\n', "roles/aws-head.json", '"Sid": "SessionManager"'),
        ("devices: {vpc.amazonaws.com/efa: 32}, ", "", "kueue.yaml", "nvidia.com/gpu"),
    ],
)  # fmt: skip
def test_other_fleets_render_to_files_that_pass(tmp_path, old, new, file, shown):
    text = FLEET.read_text()
    (tmp_path / "fleet.yaml").write_text(text.replace(old, new, 1))
    assert old in text
    made = dict(render(load(str(tmp_path / "fleet.yaml"))))
    assert shown in made[file]
    assert not findings_of((str(tmp_path / "fleet.yaml"),))


def test_images_hold_what_is_driven_on_them_by_versions_alone():
    cluster = ROOT / "cluster"
    head, gpu = ((cluster / name).read_text() for name in ("Dockerfile", "Dockerfile.gpu"))
    extras = {
        name: set(re.search(r'"\.\[([\w,]+)\]"', text)[1].split(","))
        for name, text in (("head", head), ("gpu", gpu))
    }
    assert extras["head"] >= {"clip", "lm", "mix", "fetch", "s3", "gcs", "azure"}
    assert extras["gpu"] >= {"clip", "lm", "mix", "deepspeed", "eval", "s3", "gcs", "azure"}
    assert all("--constraint constraints.txt" in text for text in (head, gpu))
    assert (
        "NVIDIA_VISIBLE_DEVICES=all" in gpu and "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in gpu
    )

    lines = (cluster / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.+]+", f"{n}=={v}") for n, v in pins.items())
    assert "ray" not in pins, "fleet.yaml says Ray's version"
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras["head"] | extras["gpu"]:
        wanted += project["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        if requirement.name != "ray" and (not requirement.marker or requirement.marker.evaluate()):
            name = requirement.name.lower().replace("_", "-")
            assert requirement.specifier.contains(pins[name]), requirement


def test_gpu_machines_use_their_network_and_their_disks():
    data = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
    options = " ".join(data["available_node_types"]["train-h100"]["docker"]["worker_run_options"])
    assert "FI_PROVIDER=efa" in options and "/opt/dlami/nvme:/local" in options
    start = data["worker_start_ray_commands"][1]
    assert "--temp-dir=/local/ray" in start and "--object-spilling-directory=/local/spill" in start
    google = yaml.safe_load((ROOT / "cluster" / "gcp.yaml").read_text())["available_node_types"]
    ultra, mega = (google[name]["node_config"] for name in ("train-h200", "train-h100"))
    kinds = [card["nicType"] for card in ultra["networkInterfaces"]]
    assert kinds == ["GVNIC"] * 2 + ["MRDMA"] * 8
    assert [card["nicType"] for card in mega["networkInterfaces"]] == ["GVNIC"] * 9
    assert "hyperdisk" in ultra["disks"][0]["initializeParams"]["diskType"]
