"""A 60-pair pool of drawn pictures, a two-layer model, and a way to train without Ray."""

import json

import pytest
from training_shards import write_shards

TINY = "tiny-vit"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / f"{TINY}.json").write_text(json.dumps(CONFIG))
    import open_clip

    open_clip.add_model_config(folder)
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def train_here(model_folder, tmp_path):
    """Train the tiny model in this process; the records of rank 0."""
    import torch

    from gristmill.training.clip import Place
    from gristmill.training.data import StreamSpec
    from gristmill.training.loop import TrainSpec, train
    from gristmill.training.place import never
    from gristmill.training.scales import Scale
    from gristmill.training.shards import resolve
    from gristmill.training.steps import count_steps

    def run(
        data,
        *,
        samples=320,
        batch=16,
        epochs=1,
        loader_workers=0,
        accum=1,
        clip=None,
        keep=0,
        checkpoints=None,
        stop_after=None,
        notice=never,
        data_weights="",
        seed=0,
        **scale_fields,
    ):
        fields = {
            "name": "small",
            "model": TINY,
            "train_num_samples": samples,
            "batch_size": batch,
            "learning_rate": 1e-3,
            "warmup": 5,
        }
        scale = Scale(**(fields | scale_fields))
        sources = resolve(str(data), data_weights)
        shards = tuple(shard.uri for source in sources for shard in source.shards)
        weights = tuple(s.weight for s in sources for _ in s.shards if s.weight is not None)
        steps = count_steps(
            scale,
            num_workers=1,
            accum_freq=accum,
            num_checkpoints=epochs,
            loader_workers=loader_workers,
        )
        spec = TrainSpec(
            scale=scale,
            seed=seed,
            precision="fp32",
            accum_freq=accum,
            grad_clip_norm=clip,
            steps=steps,
            stream=StreamSpec(
                shards=shards,
                weights=weights or None,
                micro_batch_size=steps.micro_batch_size,
                loader_batches=steps.loader_batches,
                loader_workers=loader_workers,
                seed=seed,
            ),
            data_name=str(data),
            checkpoints=str(checkpoints or tmp_path / "checkpoints"),
            keep_checkpoints=keep,
            comparable=False,
            notice=notice,
        )
        records = []

        def post(record):
            records.append(record)
            if stop_after is not None and record.get("step", -1) >= stop_after:
                raise InterruptedError(f"stopped by the test after step {stop_after}")

        train(spec, Place(rank=0, world_size=1, device=torch.device("cpu")), post)
        return records

    return run


@pytest.fixture
def losses():
    def of(records):
        return {r["step"]: r["loss"] for r in records if r.get("kind") == "step"}

    return of
