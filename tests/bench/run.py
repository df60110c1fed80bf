"""`make bench`: measured comparisons, written to docs/results/. Takes about two hours.

Usage: python tests/bench/run.py [demo] [filters] ...   (all sections without a word)
"""

import argparse
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTES = "## Notes\n"
UNREAD = "*Written below earlier figures; not yet read beside these.*"
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "tests"), str(Path(__file__).parent)]


def heading(title, command):
    """What every result states: machine, commit, command."""
    cpu = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        ),
        platform.machine(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return f"# {title}\n\nCommand: `{command}`. Machine: 2 cores of {cpu}, no GPU, shared and noisy: read ratios, not times. Commit {commit or 'unknown'}.\n\n"


def notes(target):
    """What a person wrote below the figures of before, with a warning until a person has read it again."""
    _, found, kept = target.read_text().partition(NOTES) if target.exists() else ("", "", "")
    if kept and not kept.lstrip().startswith(UNREAD):
        kept = f"\n{UNREAD}\n{kept}"
    return f"\n{NOTES}{kept}" if found else ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", default=[])
    parser.add_argument("--out", default=str(ROOT / "runs" / "bench"))
    chosen = parser.parse_args()
    import demo_seeds
    import faults
    import gpu_proxies
    import lm_modules
    import mix_accuracy
    import mix_design
    import mix_search
    import pool_scale
    import pool_speed
    import reshard_speed
    import text_speed

    sections = {
        "demo": demo_seeds.run,
        "filters": pool_speed.run,
        "filter-growth": pool_scale.run,
        "reshard": reshard_speed.run,
        "documents": text_speed.run,
        "mix": mix_accuracy.run,
        "mix-design": mix_design.run,
        "mix-search": mix_search.run,
        "gpu-proxies": gpu_proxies.run,
        "lm-modules": lm_modules.run,
        "faults": faults.run,
    }
    for name in chosen.sections or sections:
        text = sections[name](Path(chosen.out) / name, heading)
        if not text:  # it has said why: a machine without what it measures keeps the old table
            continue
        target = ROOT / "docs" / "results" / f"{name}.md"
        target.write_text(text.rstrip() + "\n" + notes(target))
        print(f"\n{text}\nwritten to {target}")


if __name__ == "__main__":
    main()
