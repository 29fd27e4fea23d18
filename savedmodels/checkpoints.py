"""Reading and writing the weights of one network.

Two kinds of file go through this door:

- our own: safetensors, with the network's name and dimensions (a dataclass, as JSON) in the
  metadata, so that the file alone rebuilds its model;
- published ``.pt``/``.pth`` files: a dictionary of tensors, bare or wrapped in ``model_state``,
  ``state_dict`` or ``model_state_dict``. They are opened with ``weights_only=True``, always.
"""

import dataclasses
import json
import os
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from .errors import CheckpointError
from .files import write_atomically

FORMAT = "face2voice-1"
_WRAPPERS = ("model_state", "state_dict", "model_state_dict")
_MAX_NAMES_IN_MESSAGE = 5

Dims = TypeVar("Dims")
Module = TypeVar("Module", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of one weights file.

    Attributes:
        path: where it was read from.
        tensors: parameter name -> tensor, on the CPU, in the dtype of the file.
        network: class name of the network in our own format, None in a published file.
        dims: the network's dimensions as plain values, None in a published file.
    """

    path: Path
    tensors: dict[str, Tensor]
    network: str | None = None
    dims: dict[str, Any] | None = None

    def dims_as(self, dims_class: type[Dims], network: str) -> Dims:
        """The dimensions as `dims_class`; CheckpointError if the file holds another network."""
        if self.network != network:
            raise CheckpointError(f"{self.path}: holds a {self.network}, not a {network}")
        try:
            plain = {k: tuple(v) if isinstance(v, list) else v for k, v in self.dims.items()}
            return dims_class(**plain)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: its dimensions do not fit: {error}") from error

    def only(self, prefix: str) -> "Checkpoint":
        """The part of the file below `prefix`, with the prefix removed."""
        part = {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}
        if not part:
            raise CheckpointError(f"{self.path}: no weights named '{prefix}*' in it")
        return dataclasses.replace(self, tensors=part)

    def build(self, module_class: type[Module], dims: Any, ignore: Collection[str] = ()) -> Module:
        """A `module_class(dims)` in eval mode with these weights, as float32 on the CPU.

        Names, shapes and values are checked before anything is copied: a file with missing,
        unexpected, misshapen or non-finite weights is refused. Names in `ignore` (and, in
        published files, batch normalisation's step counters) may be there and are left out.
        """
        with torch.device("meta"):  # no memory is taken, nothing is initialised in vain
            module = module_class(dims)
        expected = module.state_dict()
        given = {k: v for k, v in self.tensors.items() if k not in ignore}
        missing = [k for k in expected if k not in given and not k.endswith("num_batches_tracked")]
        unexpected = [k for k in given if k not in expected]
        misshapen = [k for k, v in given.items() if k in expected and v.shape != expected[k].shape]
        for problem, names in (
            ("lacks", missing),
            ("has unexpected", unexpected),
            ("has in another shape", misshapen),
        ):
            if names:
                shown = ", ".join(sorted(names)[:_MAX_NAMES_IN_MESSAGE])
                more = "" if len(names) <= _MAX_NAMES_IN_MESSAGE else f" and {len(names) - 5} more"
                raise CheckpointError(
                    f"{self.path}: not a {module_class.__name__} checkpoint: it {problem} {shown}{more}"
                )
        state = {}
        for name, like in expected.items():
            value = given.get(name, torch.zeros(like.shape, dtype=like.dtype)).to(like.dtype)
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise CheckpointError(f"{self.path}: {name} holds values that are not finite")
            state[name] = value.contiguous()
        module.load_state_dict(state, assign=True)
        return module.eval().requires_grad_(False)


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads a weights file of either kind.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        return _read_own(path)
    return _read_published(path)


def _read_own(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not one of Face2Voice's")
    try:
        dims = json.loads(metadata["dims"])
        if not isinstance(dims, dict):
            raise ValueError("dims is no object")
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged ({error})") from error
    return Checkpoint(path, tensors, network=metadata.get("network"), dims=dims)


def _read_published(path: Path) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a checkpoint, or one that holds more than tensors and plain values; "
            "such files can run code and are not opened: save its state_dict alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: truncated or not a checkpoint; fetch it again") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: a PyTorch file, but no weights were found in it")
    return Checkpoint(path, {k: v for k, v in content.items() if isinstance(v, Tensor)})


def write_checkpoint(path: str | os.PathLike, module: nn.Module, dtype=torch.float32) -> None:
    """Writes a network's weights and dimensions (`module.dims`) in our own format.

    Args:
        path: ends in ``.safetensors``; replaced atomically.
        dtype: of the floating-point tensors in the file; reading gives float32 again. float16
            halves the file; it is meant for finished models, not for resuming.
    """
    tensors = {}
    for name, value in module.state_dict().items():
        value = value.detach().cpu()
        tensors[name] = (value.to(dtype) if value.is_floating_point() else value).contiguous()
    metadata = {
        "format": FORMAT,
        "network": type(module).__name__,
        "dims": json.dumps(dataclasses.asdict(module.dims), ensure_ascii=False),
    }
    write_atomically(path, safetensors_bytes(tensors, metadata))
