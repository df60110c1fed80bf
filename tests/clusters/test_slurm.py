"""slurm.sh for real, but for Slurm: `srun` and `scontrol` are stand-ins, Ray and the job are not.

`ray symmetric-run` ends with `ray stop`, which ends every Ray of the machine that it can see; so the
script runs in a PID namespace of its own.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from killing import environment
from made_up import write_metadata

from gristmill.clusters.fleet_file import load
from gristmill.clusters.render import render

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ALONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
STAND_INS = {
    "srun": '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": "#!/bin/bash\nhostname\n",
    "hostname": "#!/bin/bash\n[[ ${1:-} == --ip-address ]] && echo 127.0.0.1 || echo here\n",
}


def free_job_id():
    """A job id whose port nobody has."""
    for job in range(7_000, 7_100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20_000 + job)):
                return job
    pytest.skip("no free port")


def script(folder, command):
    data = yaml.safe_load((ROOT / "cluster" / "fleet.yaml").read_text())
    for name in ("aws", "gcp", "azure", "kubernetes"):
        data.pop(name)
    data["job"].update(command=command, ranks=1)
    data["slurm"].update(
        cpus_per_node=2, gpus_per_node=1, environment=str(folder / "environment.sh")
    )
    (folder / "environment.sh").write_text(f"export PATH={folder}/bin:{BIN}:$PATH\n")
    (folder / "fleet.yaml").write_text(yaml.safe_dump(data))
    path = folder / "slurm.sh"
    path.write_text(dict(render(load(str(folder / "fleet.yaml"))))["slurm.sh"])
    (folder / "bin").mkdir()
    for name, text in STAND_INS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    gristmill = folder / "bin" / "gristmill"
    gristmill.write_text(f'#!/bin/bash\nexec {sys.executable} -m gristmill "$@"\n')
    gristmill.chmod(0o755)
    return path


def run(path):
    env = environment(
        HOME=str(path.parent), SLURM_JOB_ID=str(free_job_id()), SLURM_JOB_NODELIST="here",
        SLURM_JOB_NUM_NODES="1",
    )  # fmt: skip
    return subprocess.run(
        [*ALONE, "bash", str(path)], env=env, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_script_runs_a_filter_on_a_ray_with_a_token_and_hands_on_its_exit_code(tmp_path):
    if subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no PID namespaces")
    write_metadata(tmp_path / "p", 3000)
    for folder, fraction, code in (("a", "0.3", 0), ("b", "7", 2)):
        (tmp_path / folder).mkdir()
        out = tmp_path / folder / "o"
        words = f"gristmill pool filter clip_score --fraction {fraction} --pool {tmp_path}/p --out {out}"
        done = run(script(tmp_path / folder, words))
        said = done.stdout + done.stderr
        assert done.returncode == code, said[-3000:]
        assert (out / "DONE").exists() == (code == 0), said[-3000:]
        assert not os.listdir(tmp_path / folder / ".ray"), "the token is gone with the job"
    assert "Head node started" in said
