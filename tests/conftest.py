"""One real Ray cluster for the whole session, an S3 server on loopback, and made-up pools."""

import os
import secrets
import tempfile

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
hypothesis.settings.load_profile("house")
LONGEST_FILES = (
    *("test_train_clip_ray.py", "test_search.py", "test_proxies.py", "test_lm_engines.py"),
    *("test_lm_train_job.py", "test_kills.py", "test_harness.py", "test_parity_with_open_clip.py"),
)
"""Those that take a minute or more: first, so that two processes end at much the same time."""
S3_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def pytest_collection_modifyitems(items):
    """The longest files first; the order is otherwise kept."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)


@pytest.fixture(scope="session")
def s3_server():
    """A real S3 server on loopback; set up before the cluster so that workers know it too."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        **S3_KEYS,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    yield settings["AWS_ENDPOINT_URL"]
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture
def bucket(s3_server):
    """The URI of a fresh bucket."""
    import s3fs

    name = f"t-{secrets.token_hex(6)}"
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def ray_cluster(s3_server):
    """A local cluster of two CPUs, for the whole session."""
    import ray

    from gristmill.execution.session import source_root

    # Workers unpickle what test modules define, so they need this folder too.
    os.environ["PYTHONPATH"] = os.pathsep.join([source_root(), os.path.dirname(__file__)])
    with tempfile.TemporaryDirectory(prefix="gm", dir="/tmp") as folder:
        ray.init(
            num_cpus=2,
            object_store_memory=200 << 20,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def custom_code(tmp_path_factory):
    """transformers keeps code that comes with a model in a folder of this session's own.

    One for all tests: it puts the folder into sys.path and never takes it out.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.HF_MODULES_CACHE = str(tmp_path_factory.mktemp("custom_code"))


@pytest.fixture(autouse=True)
def _mark_ray(request):
    """Tests with the `ray` marker get the cluster without asking for it by name."""
    if request.node.get_closest_marker("ray"):
        request.getfixturevalue("ray_cluster")
