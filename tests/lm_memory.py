"""Bytes of every tensor that an engine keeps, measured on live engines of one or more ranks.

python -m lm_memory STORE RANK WORLD: rank 0 prints a JSON line for each engine.
"""

import gc
import json
import sys

from gristmill.models.lm.config import ModelConfig

MODEL = ModelConfig(
    vocab_size=512, width=128, num_layers=4, num_heads=4, ffn_hidden=384, context_length=16
)
CASES = [("torch", True, 2), ("zero1", True, 1), ("zero1", True, 2), ("zero2", True, 2)]
MORE = [
    *(("zero0", True, 2), ("zero2", True, 1), ("zero3", True, 1), ("zero3", True, 2)),
    *((name, False, 2) for name in ("torch", "zero0", "zero1", "zero2", "zero3")),
]
"""Name, bf16, micro-batches."""


def storages():
    """Of all floating tensors alive, gradients too, by address."""
    import torch

    found = {}
    for thing in gc.get_objects():
        try:
            if isinstance(thing, torch.Tensor) and thing.is_floating_point():
                for tensor in (thing, thing.grad if thing.is_leaf else None):
                    if tensor is not None:
                        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        except (ReferenceError, RuntimeError):
            continue
    return found


def seen(saved):
    """As it is: what backward needs becomes an object of Python, which `storages` finds."""
    return saved


def count_new(before):
    """Bytes of all that is not among those."""
    gc.collect()
    return sum(s.nbytes() for at, s in storages().items() if at not in before)


def measure(place, name, bf16, micro_batches):
    """Bytes before and after the last backward pass of the second step."""
    import torch

    from gristmill.training.lm.engine import EngineSpec, make_engine
    from gristmill.training.lm.schedule import Optimization

    gc.collect()
    before = storages()  # kept, so that no new tensor takes the place of an old one
    spec = EngineSpec(
        name=name, bf16=bf16, offload=False, micro_batch_size=1, micro_batches=micro_batches,
        optimization=Optimization(),
    )  # fmt: skip
    engine = make_engine(MODEL.build(), spec, place)
    rows = torch.randint(0, 512, (1, 17))
    for step in range(2):
        for i in range(micro_batches):
            with torch.autograd.graph.saved_tensors_hooks(seen, seen):
                loss = engine.forward(rows) / 16
            if step and i + 1 == micro_batches:
                forward = count_new(before)
            engine.backward(loss, last=i + 1 == micro_batches)
            del loss
        if step == 0:
            engine.step(1e-4)
    return forward, count_new(before)


def main(store, rank, world):
    import torch

    from gristmill.training.place import Place

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(store, world), rank=rank, world_size=world
    )
    place = Place(rank=rank, world_size=world, device=torch.device("cpu"))
    for case in CASES + MORE * (world > 1):
        found = measure(place, *case)
        if rank == 0:
            print("measured", json.dumps([*case, *found]), flush=True)
    torch.distributed.barrier()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
