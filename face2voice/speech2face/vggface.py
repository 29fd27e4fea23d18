"""VGG-Face (Parkhi et al., 2015, "Deep Face Recognition"), and the two Keras files its weights come in."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import CheckpointError, InputError, read_checkpoint, write_checkpoint

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # in each block; a block ends in 2 x 2 pooling
_MEAN_BGR = (93.5940, 104.7624, 129.1863)  # 8-bit values, of VGG-Face's training photos
_HIDDEN = ("fc6", "fc7")


@dataclasses.dataclass(frozen=True)
class VGGFaceDims:
    """Everything that shapes a `VGGFace`; the defaults are the published network's.

    Attributes:
        widths: channels of the five blocks.
        hidden: numbers of fc6 and fc7.
        classes: of fc8.
        side: of the picture, a multiple of 32.
        preprocessing: "unit" feeds RGB in [0, 1], as the published Speech2Face weights were trained
            on; "mean" feeds BGR, 0 to 255, less the mean, as VGG-Face itself was trained.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    classes: int = 2622
    side: int = 224
    preprocessing: Literal["unit", "mean"] = "unit"

    def __post_init__(self) -> None:
        if self.preprocessing not in ("unit", "mean"):
            raise ValueError(f"no preprocessing {self.preprocessing!r}: choose unit or mean")
        if len(self.widths) != len(_CONVOLUTIONS) or self.side % 32:
            raise ValueError("VGG-Face has five blocks and a side that is a multiple of 32")


class VGGFace(nn.Module):
    """Frames of faces -> fc7 after its ReLU, the face feature of Speech2Face."""

    def __init__(self, dims: VGGFaceDims | None = None) -> None:
        super().__init__()
        self.dims = dims = dims or VGGFaceDims()
        self.convolutions = nn.ModuleList()
        before = 3
        for width, count in zip(dims.widths, _CONVOLUTIONS, strict=True):
            for _ in range(count):
                self.convolutions.append(nn.Conv2d(before, width, 3, padding=1))
                before = width
        self.fc6 = nn.Linear(before * (dims.side // 32) ** 2, dims.hidden)
        self.fc7 = nn.Linear(dims.hidden, dims.hidden)
        self.fc8 = nn.Linear(dims.hidden, dims.classes)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "VGGFace":
        """Our own file, made by `import_keras`.

        Raises:
            CheckpointError: the file cannot be read or holds another network.
        """
        checkpoint = read_checkpoint(path)
        return checkpoint.build(cls, checkpoint.dims_as(VGGFaceDims, cls.__name__))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, side, side) RGB in [0, 1] -> (B, hidden), not negative."""
        x = frames
        if self.dims.preprocessing == "mean":
            x = x.flip(1) * 255 - x.new_tensor(_MEAN_BGR)[:, None, None]
        layers = iter(self.convolutions)
        for count in _CONVOLUTIONS:
            for _ in range(count):
                x = F.relu(next(layers)(x))
            x = F.max_pool2d(x, 2)
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))

    def logits(self, features: Tensor) -> Tensor:
        """fc8 of features (B, hidden): scores of the people VGG-Face was trained on (B, classes)."""
        return self.fc8(features)


def import_keras(
    source: str | os.PathLike, out: str | os.PathLike, preprocessing: Literal["unit", "mean"] = "unit"
) -> VGGFaceDims:
    """Turns a published Keras file into one of ours; TensorFlow is not needed.

    Args:
        source: deepface's ``vgg_face_weights.h5`` or keras-vggface's ``rcmalli_vggface_tf_vgg16.h5``,
            known by the shape of fc6.
        out: ends in ``.safetensors``.
        preprocessing: stored with the weights, see `VGGFaceDims`.

    Raises:
        InputError: a wrong ending, or the package h5py is not installed.
        CheckpointError: the file cannot be read or holds another network.
    """
    if Path(out).suffix != ".safetensors":
        raise InputError(f"{out}: end the name in .safetensors")
    dims, state = read_keras(source)
    dims = dataclasses.replace(dims, preprocessing=preprocessing)
    with torch.device("meta"):
        network = VGGFace(dims)
    network.load_state_dict(state, assign=True)
    write_checkpoint(out, network)
    return dims


def read_keras(path: str | os.PathLike) -> tuple[VGGFaceDims, dict[str, Tensor]]:
    """The weights of either Keras file, named as in `VGGFace`.

    Keras keeps kernels as (height, width, in, out). deepface's fc6 to fc8 are convolutions;
    keras-vggface's are matrices on a picture flattened as (height, width, channels), while ours is
    flattened as (channels, height, width): fc6's rows have to change places.

    Raises:
        CheckpointError: the file is missing, damaged, or holds another network or none of its top.
        InputError: the package h5py is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: reading Keras files needs the package h5py: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            layers = list(_keras_layers(file))
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged, or not weights that Keras saved ({error})") from error
    count = sum(_CONVOLUTIONS)
    if len(layers) != count + 3:
        raise CheckpointError(f"{path}: {len(layers)} layers with weights; VGG-Face with its top has {count + 3}")
    try:
        return _to_state(layers)
    except ValueError as error:
        raise CheckpointError(f"{path}: not VGG-Face: {error}") from error


def _keras_layers(file: Mapping) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of every layer that has them, in the network's order, of an open HDF5 file."""
    root = file["model_weights"] if "model_weights" in file else file
    if "layer_names" not in root.attrs:
        raise ValueError("no list of layers in it")
    for name in root.attrs["layer_names"]:
        group = root[_text(name)]
        names = [_text(weight) for weight in group.attrs["weight_names"]]
        if names:
            kernel, bias = sorted((group[weight][()] for weight in names), key=np.ndim, reverse=True)
            yield kernel, bias


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _to_state(layers: list[tuple[np.ndarray, np.ndarray]]) -> tuple[VGGFaceDims, dict[str, Tensor]]:
    count = sum(_CONVOLUTIONS)
    state = {}
    for i, (kernel, bias) in enumerate(layers[:count]):
        if kernel.ndim != 4:
            raise ValueError(f"layer {i + 1} is no convolution")
        state[f"convolutions.{i}.weight"] = _tensor(kernel.transpose(3, 2, 0, 1))
        state[f"convolutions.{i}.bias"] = _tensor(bias)
    channels = layers[count - 1][0].shape[3]
    for name, (kernel, bias) in zip((*_HIDDEN, "fc8"), layers[count:], strict=True):
        if kernel.ndim == 2 and name == "fc6":
            across = round((kernel.shape[0] / channels) ** 0.5)
            kernel = kernel.reshape(across, across, channels, -1)
        if kernel.ndim == 4:
            if name == "fc6":
                across = kernel.shape[0]
            kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[3])
        state[f"{name}.weight"] = _tensor(kernel.T)
        state[f"{name}.bias"] = _tensor(bias)
    ends = np.cumsum(_CONVOLUTIONS) - 1
    dims = VGGFaceDims(
        widths=tuple(layers[i][0].shape[3] for i in ends),
        hidden=len(layers[count][1]),
        classes=len(layers[-1][1]),
        side=32 * across,
    )
    with torch.device("meta"):
        expected = VGGFace(dims).state_dict()
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, not {tuple(value.shape)}")
    return dims, state


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
