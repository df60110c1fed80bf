"""The 1B model forward and backward on a CPU."""

import resource

import pytest
import torch

from gristmill.models.lm.presets import preset


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pangu_pi_1b_runs_forward_and_backward():
    """Sequence 128 in float32: 4 GB of weights and as many of gradients."""
    model = preset("pangu-pi-1b").build(seed=0)
    model.recompute_blocks = True
    tokens = torch.randint(0, 100_883, (1, 129), generator=torch.Generator().manual_seed(0))
    loss = model(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(11.5, abs=1.0)  # ln 100,883 = 11.52
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
