"""Broken cluster files, each with one fault, and the message that names the file and the field."""

import shutil
from pathlib import Path

import pytest

from gristmill.clusters.validate import findings_of, validate
from gristmill.recipes.commands import main

ROOT = Path(__file__).parents[2]
ALONE = {
    "aws.yaml",
    "gcp.yaml",
    "azure.yaml",
    "slurm.sh",
    "Dockerfile",
    "two-node.yaml",
    "laptop.yaml",
}
H100 = '    resources: {"CPU": 192, "GPU": 8}\n    min_workers: 0\n    max_workers: 16\n'

# (file, what stands there, what the broken one says, field, message)
BROKEN = [
    # Ray's schema and semantics
    ("aws.yaml", "max_workers: 88", "max_worker: 88", "the file", "'max_worker' was unexpected"),
    ("aws.yaml", "max_workers: 88", "max_workers: many", "max_workers", "'many' is not of type 'integer'"),
    ("aws.yaml", "head_node_type: head", "head_node_type: hed", "the file", "`head_node_type` must be one of"),
    ("aws.yaml", "cluster_name: gristmill\n", "", "the file", "'cluster_name' is a required property"),
    ("aws.yaml", "    min_workers: 0\n    max_workers: 40", "    min_workers: 60\n    max_workers: 40", "available_node_types.data-spot.min_workers", "min 60 and max 40"),
    ("aws.yaml", "max_workers: 88", "max_workers: 10", "max_workers", "below the 40 of data-spot"),
    ("aws.yaml", "provider:\n", "provider: [\n", "the file", "cannot be parsed"),
    # open doors
    ("aws.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "head_start_ray_commands.1", "opens the dashboard"),
    ("aws.yaml", "export RAY_AUTH_MODE=token; ray start --head", "ray start --head", "head_start_ray_commands.1", "without RAY_AUTH_MODE=token"),
    ("aws.yaml", "export RAY_AUTH_MODE=token; ray start --address", "export RAY_AUTH_MODE=disabled; ray start --address", "worker_start_ray_commands.1", "without RAY_AUTH_MODE=token"),
    ("aws.yaml", "use_internal_ips: true", "use_internal_ips: false", "provider.use_internal_ips", "public addresses"),
    ("aws.yaml", "  cache_stopped_nodes: false", "  security_group: {IpPermissions: [{FromPort: 22, ToPort: 22, IpProtocol: tcp, IpRanges: [{CidrIp: 0.0.0.0/0}]}]}\n  cache_stopped_nodes: false", "provider.security_group.IpPermissions.0", "port 22 is open to the world"),
    ("gcp.yaml", "private, nicType: GVNIC}]", "private, accessConfigs: [{type: ONE_TO_ONE_NAT}]}]", "networkInterfaces.0.accessConfigs", "public address"),
    ("aws.yaml", '  "~/.ray/auth_token": "~/.ray/auth_token"', '  "~/.x": "~/.x"', "file_mounts", "no token goes to the nodes"),
    # secrets and images
    ("aws.yaml", "cluster_name: gristmill", "cluster_name: gristmill\n# AKIAIOSFODNN7EXAMPLE", "line 4", "holds an AWS access key"),
    ("aws.yaml", "--env RAY_AUTH_MODE=token", "--env RAY_AUTH_TOKEN=0123456789abcdef", "line ", "holds a Ray token"),
    ("aws.yaml", "head_image: images.example.org/gristmill:0.1.0-cpu", "head_image: images.example.org/gristmill:latest", "docker.head_image", "moves"),
    ("aws.yaml", "head_image: images.example.org/gristmill:0.1.0-cpu", "head_image: images.example.org/gristmill", "docker.head_image", "no tag"),
    # the providers' models
    ("aws.yaml", H100, H100.replace('"GPU": 8', '"GPU": 16'), "available_node_types.train-h100.resources.GPU", "16 declared, p5.48xlarge holds 8"),
    ("aws.yaml", H100, H100.replace('"CPU": 192', '"CPU": 8'), "available_node_types.train-h100.resources", "8 CPUs for 8 GPUs"),
    ("aws.yaml", 'resources: {"CPU": 0, "GPU": 0}', 'resources: {"CPU": 16, "GPU": 0}', "available_node_types.head.resources.CPU", "starve its scheduler"),
    ("aws.yaml", 'resources: {"CPU": 0, "GPU": 0}', 'resources: {"CPU": 0, "GPU": 8}', "available_node_types.head.resources.GPU", "paid for as long as"),
    ("aws.yaml", "      SecurityGroupIds: [sg-0123456789abcdef0]\n", "", "node_config.SecurityGroupIds", "SSH open to the world"),
    ("aws.yaml", "InstanceMarketOptions: {MarketType: spot}", "InstanceMarketOptions: {MarketTyp: spot}", "available_node_types.data-spot.node_config", "MarketTyp"),
    ("aws.yaml", "HttpTokens: required", "HttpTokens: optional", "MetadataOptions.HttpTokens", "take the role's keys"),
    ("aws.yaml", "instance-profile/gristmill-head\"}", "\"}\n      IamInstanceProfile: {}", "available_node_types.head.node_config.IamInstanceProfile", "full access to EC2 and S3"),
    ("gcp.yaml", "global/images/gristmill-host-20261101", "global/images/family/gristmill-host", "initializeParams.sourceImage", "moves with its family"),
    ("gcp.yaml", "auth/devstorage.read_write", "auth/cloud-platform", "serviceAccounts.0.scopes", "every API"),
    ("azure.yaml", "imageVersion: \"22.04.2025041101\"", "imageVersion: latest", "azure_arm_parameters.imageVersion", "moves"),
    ("azure.yaml", "osDiskSize: 200", "osDiskSizeGb: 200", "azure_arm_parameters.osDiskSizeGb", "no such parameter"),
    ("azure.yaml", "  msi_name: gristmill  #", "  #", "provider.msi_name", "Contributor of the whole group"),
    # Kubernetes
    ("kuberay-cluster.yaml", "authOptions: {mode: token}", "authOptions: {mode: disabled}", "RayCluster.spec.authOptions.mode", "not `token`"),
    ("kuberay-cluster.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "headGroupSpec.serviceType", "opens a port"),
    ("kuberay-cluster.yaml", "minReplicas: 0\n      maxReplicas: 40", "minReplicas: 41\n      maxReplicas: 40", "workerGroupSpecs.0.minReplicas", "min 41 and max 40"),
    ("kuberay-cluster.yaml", "maxReplicas: 40", "maxReplica: 40", "RayCluster.spec.workerGroupSpecs.0", "'maxReplica' was unexpected"),
    ("kuberay-cluster.yaml", "imagePullPolicy: IfNotPresent", "imagePullPolicies: IfNotPresent", "headGroupSpec.template", "imagePullPolicies"),
    ("kuberay-cluster.yaml", 'num-gpus: "8"', 'num-gpus: "16"', "workerGroupSpecs.2.rayStartParams.num-gpus", "16 said, the pod holds 8"),
    ("kuberay-cluster.yaml", "kind: NetworkPolicy\nmetadata: {name: gristmill, namespace: gristmill}", "kind: NetworkPolicy\nmetadata: {name: gristmill, namespace: other}", "headGroupSpec.template.metadata.labels", "no NetworkPolicy"),
    ("kuberay-cluster.yaml", "from: [{podSelector: {matchLabels: {app.kubernetes.io/part-of: gristmill}}}]", "from: [{ipBlock: {cidr: 0.0.0.0/0}}]", "NetworkPolicy.spec.ingress.0", "lets everybody in"),
    ("kuberay-cluster.yaml", "policyTypes:", "policyType:", "NetworkPolicy.spec", "policyType"),
    ("kuberay-job.yaml", "  activeDeadlineSeconds: 172800\n", "", "RayJob.spec.activeDeadlineSeconds", "holds its GPUs"),
    ("kuberay-job.yaml", "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "RayJob.spec.shutdownAfterJobFinishes", "stays when the job has ended"),
    ("kuberay-job.yaml", "  backoffLimit: 3\n", "", "RayJob.spec.backoffLimit", "would not be retried"),
    ("kuberay-job.yaml", "backoffLimit: 3", "deletionStrategy: {deletionRules: [{policy: DeleteCluster, condition: {jobStatus: FAILED}}]}\n  backoffLimit: 3", "RayJob.spec.deletionStrategy.deletionRules", "refuses both"),
    ("kuberay-job.yaml", "enableInTreeAutoscaling: false", "enableInTreeAutoscaling: true", "RayJob.spec.rayClusterSpec.enableInTreeAutoscaling", "Kueue admits"),
    ("kuberay-job.yaml", "--workers 16", "--workers 64", "RayJob.spec.entrypoint", "64 ranks, the nodes hold 16 GPUs"),
    # Slurm
    ("slurm.sh", "#SBATCH --nodes=2", "#SBATCH --node=2", "line ", "sbatch has no option --node"),
    ("slurm.sh", "--time=48:00:00", "--time=soon", "line ", "--time cannot be 'soon'"),
    ("slurm.sh", "#SBATCH --nodes=2", "#SBATCH --nodes=1", "ray symmetric-run", "16 ranks, the nodes hold 8 GPUs"),
    ("slurm.sh", "export RAY_AUTH_MODE=token\n", "", "RAY_AUTH_MODE", "not set to token"),
    ("slurm.sh", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "ray symmetric-run", "opens the dashboard"),
    ("slurm.sh", "env RAY_ADDRESS=auto ", "", "ray symmetric-run", "does not join the cluster"),
    ("slurm.sh", '-- \\\n    env', "\\\n    env", "ray symmetric-run", "no `--` before the command"),
    ("slurm.sh", "--kill-on-bad-exit=1", "--kill-on-bad-exit=1 \"", "line", "bash cannot read it"),
    ("slurm.sh", 'mkdir -p "$HOME/.ray"', "mkdir -p $HOME/.ray; cd /nowhere; for f in $(ls *.x); do echo $f; done", "line ", "SC"),
    # Docker, roles
    ("Dockerfile", "python:3.11-slim-bookworm", "python", "line 4", "no tag"),
    ("Dockerfile", "USER 1000\n", "USER root\n", "USER", "runs as root"),
    ("Dockerfile", "WORKDIR /opt", "WORKDER /opt", "line ", "DL1000"),
    ("roles/aws-head.json", '"ec2:RunInstances"', '"ec2:*"', "Statement.StartMachinesOfThisCluster.Action", "every action"),
    ("roles/aws-head.json", "role/gristmill-worker", "role/*", "Statement.GiveWorkersTheirRole.Resource", "administrator"),
    ("roles/azure.json", "/resourceGroups/gristmill", "", "AssignableScopes", "wider than a resource group"),
    ("grafana.json", "ray_gristmill_mfu", "ray_gristmill_mfa", "panels.2.targets.expr", "no gauge ray_gristmill_mfa"),
    ("fleet.yaml", "max: 40", "maxx: 40", "aws.groups.data-spot.maxx", "perhaps max"),
]  # fmt: skip


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
    found = findings_of((str(copy),))
    assert any(f.file == str(copy) and field in f.field and problem in f.problem for f in found), (
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
    text = (ROOT / "cluster" / "kuberay-job.yaml").read_text()
    parts = text.split("---\n")
    (tmp_path / "around.yaml").write_text("---\n".join(parts[:-1]))
    (tmp_path / "job.yaml").write_text(parts[-1])
    assert not findings_of((str(tmp_path),))
    (alone,) = findings_of((str(tmp_path / "job.yaml"),))
    assert "no NetworkPolicy" in alone.problem


def test_every_file_says_with_what_it_was_checked():
    assert all(c.means for c in validate((str(ROOT / "cluster"),)))
