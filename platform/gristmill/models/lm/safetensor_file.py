"""Safetensors files on any storage, written tensor by tensor so that no second copy is held.

The format: 8 bytes of header length, a JSON header of (dtype, shape, offsets), the bytes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.errors import CorruptDataError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}
ALIGNMENT = 8


def write(uri: str, tensors: "Mapping[str, Tensor]", *, metadata: Mapping[str, str]) -> str:
    """Write tensors under their names; the file appears whole or not at all.

    Args:
        uri: The file.
        tensors: On any device; moved to the CPU one at a time.
        metadata: Texts kept in the header.

    Returns:
        SHA-256 of the file as 64 hex digits.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with io.open_hashed(uri) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(memoryview(flat.view(torch.uint8).numpy()))
    return file.sha256


def read(uri: str, *, sha256: str = "") -> dict[str, "Tensor"]:
    """All tensors of a file, on the CPU; a local file is mapped, not read at once.

    Args:
        uri: The file.
        sha256: What `write` returned; the bytes are held to it. A local file passes by once for
            that, and is mapped out of the system's cache.

    Raises:
        BadInputError: There is no such file.
        CorruptDataError: It is cut short, no safetensors file, or not the bytes of that hash.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        if io.is_local(uri):
            with io.open_read(uri):  # says plainly that there is none
                _compare(uri, sha256, lambda: io.sha256(uri))
                return dict(load_file(io.local_path(uri)))
        data = io.read_bytes(uri)
        _compare(uri, sha256, lambda: hashlib.sha256(data).hexdigest())
        return dict(load(data))
    except SafetensorError as error:
        raise CorruptDataError(f"cannot read weights {io.redact(uri)}: {error}") from error


def _compare(uri: str, wanted: str, found: Callable[[], str]) -> None:
    if wanted and (there := found()) != wanted:
        raise CorruptDataError(
            f"{io.redact(uri)} is damaged: its SHA-256 is {there[:12]}, {wanted[:12]} was written"
        )
