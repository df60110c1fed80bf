"""Plans: figures against sums by hand, and nothing invented."""

import re
from pathlib import Path

import pytest
import yaml

from gristmill.clusters.clip_workload import training_rate
from gristmill.clusters.fleet_file import load
from gristmill.clusters.plan import JOBS, PlanCapacity, estimate
from gristmill.clusters.rates import all_rates, rate
from gristmill.models.lm.presets import preset
from gristmill.recipes.commands import main

FLEET = Path(__file__).parents[2] / "cluster" / "fleet.yaml"


def site(job, **fields):
    action = PlanCapacity(job=job, fleet=str(FLEET), **fields)
    return action.site(load(str(FLEET)))


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure", "kubernetes"])
@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_plan_on_every_cloud(job, cloud):
    where = site(job, cloud=cloud)
    plan = estimate(job, where)
    least, most = plan.seconds
    assert 0 < least <= most
    assert plan.rates and plan.lines(where)
    assert plan.cost(where) is None, "the example fleet names no price, so no cost may appear"


def test_clip_small_costs_what_datacomp_says_on_the_hardware_it_says():
    """4 A100-hours (Gadre et al. 2023), here on 80 GB machines priced as the 40 GB ones."""
    assert training_rate("ViT-B-32", "A100-40GB").high == 889
    hours = 12_800_000 / 889 / 3600
    assert hours == pytest.approx(4.0, rel=0.01)
    plan = estimate("clip-small", site("clip-small", group="train-a100-spot", nodes=1))
    assert plan.seconds[0] * 8 / 3600 == pytest.approx(hours, rel=1e-6)


def test_another_gpu_gives_a_range_from_the_same_speed_to_the_ratio_of_peaks():
    found = training_rate("ViT-L-14", "H100-80GB")
    assert found.kind == "modelled"
    assert (found.low, found.high) == (43, pytest.approx(71 * 989 / 312))


def test_a_language_model_takes_its_flops_over_peak_and_share():
    where = site("lm-1b", group="train-h100", nodes=2)
    plan = estimate("lm-1b", where, tokens=10_000_000_000)
    flops = preset("regmix-1b").flops_per_token(2048, attention="causal") * 10_000_000_000
    assert plan.seconds[1] == pytest.approx(flops / (16 * 989e12 * 0.33))
    assert "as asked" in plan.title


def test_7b_does_not_fit_one_machine_without_sharing_and_says_with_what_it_does():
    alone = estimate("lm-7b", site("lm-7b", group="train-h100", nodes=1))
    assert "ZeRO" in alone.memory[0][0] and "ZeRO 0" not in alone.memory[0][0]
    total = sum(size for _, size in alone.memory)
    assert total < 0.9 * 80 * 2**30


def test_a_batch_that_does_not_divide_is_told():
    plan = estimate("clip-large", site("clip-large", group="train-h100", nodes=3))
    assert any("does not divide over 24 GPUs" in w for w in plan.warnings)


def test_a_search_goes_in_rounds():
    for nodes, rounds in ((16, 4), (1, 64)):
        plan = estimate("mix-512", site("mix-512", group="train-h100", nodes=nodes))
        assert dict(plan.work)["rounds"].startswith(f"{rounds} of")
    assert any("guess" in w for w in plan.warnings)


def test_a_small_filter_is_bound_by_its_slices_and_a_large_one_by_the_network():
    small = estimate("filter-small", site("filter-small", group="data"))
    assert "at most 51 CPUs" in dict(small.work)["rows"]
    where = site("filter-xlarge", group="data")
    large = estimate("filter-xlarge", where)
    read = 12_800_000_000 * 234
    assert large.seconds[0] == pytest.approx(2 + read / (8 * 25e9 / 8), rel=1e-6)


def test_a_price_of_yours_gives_a_cost_with_its_day(tmp_path, capsys):
    data = yaml.safe_load(FLEET.read_text())
    data["aws"]["groups"]["train-h100"]["price"] = {"per_hour": 10, "as_of": "2026-11-01"}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(data))
    words = [
        "cluster",
        "plan",
        "lm-1b",
        "--fleet",
        str(path),
        "--group",
        "train-h100",
        "--nodes",
        "4",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    plan = estimate("lm-1b", site("lm-1b", group="train-h100", nodes=4))
    assert f"{plan.seconds[0] * 40 / 3600:,.2f} to" in said
    assert "at 10.00 a machine-hour as of 2026-11-01" in said and "not counted" in said


def test_the_command_says_that_a_price_is_missing_and_where_it_goes(capsys):
    assert main(["cluster", "plan", "clip-medium", "--fleet", str(FLEET)]) == 0
    said = capsys.readouterr().out
    assert "cost      not known: give aws.groups.train-h100.price in the fleet file" in said
    assert "modelled: from no slower than A100-40GB" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clip-smal"], "perhaps clip-small"),
        (["lm-1b", "--cloud", "gpc"], "it has: aws, gcp, azure, kubernetes, slurm"),
        (["lm-1b", "--group", "data"], "needs GPUs, and data has none"),
        (["lm-1b", "--group", "train-h100", "--nodes", "99"], "max of 16"),
        (["filter-small", "--cloud", "slurm"], "no group without GPUs"),
    ],
)
def test_what_cannot_be_planned_is_told(words, said, capsys):
    assert main(["cluster", "plan", *words, "--fleet", str(FLEET)]) == 2
    assert said in capsys.readouterr().err


def test_every_rate_says_how_it_is_known(capsys):
    assert main(["cluster", "plan", "rates"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(all_rates())
    for one in all_rates():
        assert one.kind in ("measured", "published", "assumed") and one.origin
        assert 0 < one.low <= one.high
        if one.kind == "measured":
            page = one.origin.partition(":")[0].partition(" ")[0]
            assert (FLEET.parents[1] / page).exists(), page
    assert rate("mfu.proxy").kind == "assumed"


def test_the_guides_table_is_what_plans_say():
    guide = (FLEET.parents[1] / "docs" / "guides" / "capacity.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| ([\d,.]+) \| ([\d,.]+) \|$", guide, re.M)
    assert len(rows) == 7
    for job, least, most in rows:
        where = site(job, group="train-h100", nodes=16)
        hours = [s * where.gpus / 3600 for s in estimate(job, where).seconds]
        assert [f"{h:,.1f}" for h in hours] == [least, most], job


def test_the_guides_price_is_invented_and_gives_the_cost_shown(tmp_path, capsys):
    guide = (FLEET.parents[1] / "docs" / "guides" / "capacity.md").read_text()
    assert "**invented**" in guide
    (group,) = re.findall(r"^train-h100: (\{.*\})$", guide, re.M)
    data = yaml.safe_load(FLEET.read_text())
    data["aws"]["groups"]["train-h100"] = yaml.safe_load(group)
    (tmp_path / "my-fleet.yaml").write_text(yaml.safe_dump(data))
    words = re.search(r"\$ gristmill (cluster plan .*)", guide)[1].split()
    words[words.index("my-fleet.yaml")] = str(tmp_path / "my-fleet.yaml")
    assert main(words) == 0
    shown = re.search(r"^  cost .*$", guide, re.M)[0]
    assert shown in capsys.readouterr().out.splitlines()


def test_every_rate_is_counted_somewhere():
    package = FLEET.parents[1] / "platform" / "gristmill" / "clusters"
    code = "".join(p.read_text() for p in package.glob("*.py"))
    for one in all_rates():
        group, _, _ = one.name.partition(".")
        assert f'"{one.name}"' in code or f'f"{group}.' in code, (
            f"{one.name} is printed and not counted"
        )
