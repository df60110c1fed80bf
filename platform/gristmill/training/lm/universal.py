"""DeepSpeed's universal checkpoints, as a start: weights and moments, whatever made them.

    FOLDER/zero/NAME/fp32.pt, exp_avg.pt, exp_avg_sq.pt, step.pt    one folder a parameter

What `ds_to_universal` writes (Lian et al., arXiv:2406.18820), without model parallelism.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.models.lm.config import ModelConfig

if TYPE_CHECKING:
    from gristmill.training.lm.engine import ParamState

FOLDER = "zero"
FILES = {"param": "fp32", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}


def is_universal(folder: str) -> bool:
    """Whether a folder is such a checkpoint."""
    return bool(folder) and any(
        uri.endswith(f"/{FILES['param']}.pt")
        for uri in io.list_files(io.join(folder, FOLDER), ".pt", recursive=True)
    )


def read_universal(folder: str, model: ModelConfig) -> "Iterator[tuple[str, ParamState]]":
    """Every parameter's state.

    Raises:
        BadInputError: It is of another model.
        CorruptDataError: A file cannot be read.
    """
    from gristmill.training.lm.engine import ParamState

    made = model.build(device="meta")
    for name, parameter in made.named_parameters():
        parts = {kind: _tensor(folder, name, stem) for kind, stem in FILES.items()}
        found = tuple(parts["param"].shape)
        if found != tuple(parameter.shape):
            raise BadInputError(
                f"{io.redact(folder)} is a checkpoint of another model: {name} is {found} there, "
                f"{tuple(parameter.shape)} in the preset"
            )
        yield name, ParamState(**parts)


def updates_applied(folder: str, model: ModelConfig) -> int:
    """How many updates the weights have had."""
    name = next(iter(model.build(device="meta").named_parameters()))[0]
    return int(_load(folder, name, "step"))


def _tensor(folder: str, name: str, stem: str) -> Any:
    import torch

    data = _load(folder, name, stem)
    tensor = data.get("param") if isinstance(data, dict) else data
    if not isinstance(tensor, torch.Tensor):
        raise CorruptDataError(f"{io.redact(folder)}: {stem}.pt of {name} holds no tensor")
    return tensor.float()


def _load(folder: str, name: str, stem: str) -> Any:
    import torch

    uri = io.join(folder, FOLDER, name, f"{stem}.pt")
    if not io.exists(uri):
        raise BadInputError(
            f"{io.redact(folder)} is no universal checkpoint of this model: it has no "
            f"{FOLDER}/{name}/{stem}.pt"
        )
    try:
        with io.open_read(uri) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no closed set of errors
        raise CorruptDataError(f"cannot read {io.redact(uri)}: {error}") from error
