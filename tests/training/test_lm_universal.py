"""A start from DeepSpeed's own universal checkpoint, made by DeepSpeed's own tool."""

import os
import subprocess
import sys

import pytest
from lm_training import MODEL, losses, spec_for, train_here, write_small_tokens

from gristmill.core.errors import BadInputError
from gristmill.execution.session import source_root

MAKE = """
import sys, torch
from pathlib import Path
from lm_training import MODEL, spec_for
from gristmill.training.lm import loop
from gristmill.training.place import Place
corpus, out = sys.argv[1:]
place = Place(rank=0, world_size=1, device=torch.device("cpu"))
trainer = loop.Trainer(spec_for(corpus, out + "/ours", engine="zero2"), place, lambda record: None)
trainer.now = trainer._resume()
trainer._clock.start(0)
for _ in range(8):
    trainer._step()
trainer._save()
trainer._writer.close()
trainer._batches.close()
trainer.engine._engine.save_checkpoint(out + "/theirs", tag="last")
from deepspeed.checkpoint.ds_to_universal import main, parse_arguments
sys.argv = ["x", "--inject_missing_state", "--input_folder", out + "/theirs/last",
            "--output_folder", out + "/universal", "--num_extract_workers", "1",
            "--num_merge_workers", "1"]
main(parse_arguments())
"""


@pytest.mark.slow
def test_a_universal_checkpoint_is_a_start_with_its_moments(tmp_path):
    pytest.importorskip("deepspeed")
    (tmp_path / "t").mkdir()
    corpus = write_small_tokens(tmp_path / "t")
    paths = os.pathsep.join([source_root(), os.path.dirname(os.path.dirname(__file__))])
    done = subprocess.run(
        [sys.executable, "-c", MAKE, corpus, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "DS_ACCELERATOR": "cpu"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    from gristmill.training.lm import checkpoint, universal

    ours = str(tmp_path / "ours")
    manifest = checkpoint.read_manifest(ours, 8, model=MODEL)
    expected = dict(checkpoint.read_states(ours, 8, manifest))
    found = dict(universal.read_universal(str(tmp_path / "universal"), MODEL))
    assert found.keys() == expected.keys()
    for name, state in expected.items():
        for kind in ("param", "exp_avg", "exp_avg_sq"):
            assert (getattr(found[name], kind) == getattr(state, kind)).all(), (name, kind)
    assert universal.updates_applied(str(tmp_path / "universal"), MODEL) == 8
    spec = spec_for(corpus, tmp_path / "new", init=str(tmp_path / "universal"), steps=4)
    assert losses(train_here(spec))[0] < 4.5


def test_a_folder_that_is_none_says_what_it_lacks(tmp_path):
    from gristmill.training.lm import universal

    assert not universal.is_universal(str(tmp_path))
    (tmp_path / "zero" / "norm.weight").mkdir(parents=True)
    (tmp_path / "zero" / "norm.weight" / "fp32.pt").write_bytes(b"junk")
    assert universal.is_universal(str(tmp_path))
    with pytest.raises(BadInputError, match=r"it has no zero/embedding.weight/fp32.pt"):
        list(universal.read_universal(str(tmp_path), MODEL))
