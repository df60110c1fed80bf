import json
import os

import eval_world
import numpy as np
import pytest

from gristmill.pools.uid import make_uids, sort_uids

FALLBACK = "gristmill-test-tiny"
MODELS = os.path.join("/tmp", f"gristmill-test-models-{os.getuid()}")


@pytest.fixture(scope="session")
def arch():
    """The demo's architecture, else a tiny one that only this process knows."""
    import open_clip

    from gristmill.models.clip import register_configs

    register_configs()
    if "gristmill-demo" in open_clip.list_models():
        return "gristmill-demo"
    os.makedirs(MODELS, exist_ok=True)
    with open(os.path.join(MODELS, f"{FALLBACK}.json"), "w") as file:
        json.dump(eval_world.TINY, file)
    open_clip.add_model_config(MODELS)
    return FALLBACK


@pytest.fixture(scope="session")
def demo_arch(arch):
    """An architecture that Ray's workers know too."""
    if arch == FALLBACK:
        pytest.skip("gristmill/demo/models has no gristmill-demo.json")
    return arch


@pytest.fixture(scope="session")
def weights(arch, tmp_path_factory):
    """A file of random weights, the same in every run."""
    import open_clip
    import torch

    torch.manual_seed(0)
    model = open_clip.create_model(arch, pretrained=None)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny(arch, weights):
    from gristmill.models.clip import ClipSpec, load_clip

    return load_clip(ClipSpec(arch=arch, weights=str(weights)), device="cpu")


@pytest.fixture(scope="session")
def eval_data(tmp_path_factory):
    """The demo's sets as a folder, though the tasks go without one too."""
    from gristmill.demo.noise import write_eval

    folder = tmp_path_factory.mktemp("eval")
    write_eval(folder)
    return folder


@pytest.fixture(scope="session")
def uids():
    rng = np.random.default_rng(1)
    return sort_uids(make_uids([rng.bytes(16).hex() for _ in range(50)]))


@pytest.fixture
def world(tmp_path, uids):
    """Finished runs from filter to evaluation, with made-up weights and scores."""
    chain = eval_world.write_chain(tmp_path / "runs", "gristmill-demo", b"weights", uids)
    eval_world.write_eval(chain)
    return chain
