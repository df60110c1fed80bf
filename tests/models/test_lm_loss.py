"""The chunked cross entropy against torch's, and that it holds no more than a chunk of logits."""

import pytest
import torch
import torch.nn.functional as F

from gristmill.models.lm.loss import IGNORE, chunked_cross_entropy


def inputs(num_tokens=23, width=8, vocab=31, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_tokens, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(0, vocab, (num_tokens,), generator=generator)
    targets[[2, num_tokens // 3, -1]] = IGNORE
    return hidden, weight, targets


@pytest.mark.parametrize("chunk", [1, 5, 23, 1000])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_value_and_gradients_equal_torch(chunk, reduction):
    hidden, weight, targets = inputs()
    scale = torch.rand(23, dtype=torch.float64)
    ours = chunked_cross_entropy(hidden, weight, targets, reduction=reduction, chunk_tokens=chunk)
    theirs = F.cross_entropy(hidden @ weight.T, targets, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    grads = torch.autograd.grad((ours * scale).sum(), (hidden, weight))
    wanted = torch.autograd.grad((theirs * scale).sum(), (hidden, weight))
    torch.testing.assert_close(grads, wanted)


def test_gradcheck():
    hidden, weight, targets = inputs(num_tokens=5, width=3, vocab=4)
    assert torch.autograd.gradcheck(
        lambda h, w: chunked_cross_entropy(h, w, targets, chunk_tokens=2), (hidden, weight)
    )


def test_only_the_hidden_or_only_the_weight_may_need_gradients():
    hidden, weight, targets = inputs()
    (one,) = torch.autograd.grad(chunked_cross_entropy(hidden, weight.detach(), targets), hidden)
    (two,) = torch.autograd.grad(chunked_cross_entropy(hidden.detach(), weight, targets), weight)
    both = torch.autograd.grad(chunked_cross_entropy(hidden, weight, targets), (hidden, weight))
    torch.testing.assert_close((one, two), both)


def test_nothing_to_learn_gives_zero_and_no_nan():
    hidden, weight, targets = inputs()
    loss = chunked_cross_entropy(hidden, weight, torch.full_like(targets, IGNORE))
    loss.backward()
    assert loss == 0
    assert hidden.grad.abs().max() == weight.grad.abs().max() == 0


def test_an_ignored_token_adds_nothing_whatever_it_is():
    hidden, weight, targets = inputs()
    with torch.no_grad():
        hidden[2] = float("nan")
    loss = chunked_cross_entropy(hidden, weight, targets, chunk_tokens=4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(hidden.grad).all()


def test_large_logits_do_not_overflow():
    hidden, weight, targets = inputs(dtype=torch.float32)
    loss = chunked_cross_entropy(hidden * 1e4, weight, targets)
    torch.testing.assert_close(loss, F.cross_entropy(1e4 * hidden @ weight.T, targets))


def test_under_autocast_products_are_bfloat16_and_gradients_stay_float32():
    hidden, weight, targets = inputs(num_tokens=64, width=32, dtype=torch.float32)
    exact = chunked_cross_entropy(hidden, weight, targets)
    wanted = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_cross_entropy(hidden, weight, targets, chunk_tokens=10)
    grads = torch.autograd.grad(loss, (hidden, weight))
    assert loss.dtype == grads[0].dtype == grads[1].dtype == torch.float32
    assert loss != exact  # bfloat16 was used
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    torch.testing.assert_close(grads, wanted, rtol=0, atol=2e-2 * float(wanted[1].abs().max()))


def test_no_tensor_of_all_logits_is_made():
    """Every tensor an operation returns is counted, in forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, tuple | list) else [out]:
                if isinstance(value, torch.Tensor):
                    largest = max(largest, value.numel())
            return out

    hidden, weight, targets = inputs(num_tokens=200, vocab=300)
    with Sizes():
        chunked_cross_entropy(hidden, weight, targets, chunk_tokens=10).backward()
    assert largest == 10 * 300  # of 200 * 300
