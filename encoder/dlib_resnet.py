"""dlib's face-recognition network as a torch module, and a reader of the file it is published in.

``dlib_face_recognition_resnet_model_v1.dat`` (Davis King, public domain) holds a ResNet with 29
convolutions that turns an upright face into 128 numbers. It was read here from the bytes of that
file and checked against dlib's own answer (tests/test_face_model.py).
"""

import os
import re
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import CheckpointError

SIDE = 150  # pixels: the crop the network was trained on

_MEAN = (122.782, 117.001, 104.298)  # of red, green and blue, subtracted before the network
_SCALE = 256.0

# Channels of each residual block; a block whose first convolution has stride 2 is marked True.
_BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), (64, False), (64, False), (64, False)],
    *[(128, True), (128, False), (128, False)],
    *[(256, True), (256, False), (256, False)],
    (256, True),
)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside 2x2 average pooling when `down`.

    Where the two sides differ in size, the smaller is filled with zeros at its end: channels on
    the side of the identity, rows and columns on the side of the convolutions, which lose a border.
    """

    def __init__(self, channels_in: int, channels_out: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return F.relu(x + y)


class DlibResnet(nn.Module):
    """Face crops -> features: dlib's descriptor when the weights are dlib's.

    dlib scales every channel after each convolution; that affine layer is folded into the
    convolution's weights and bias here.

    Args:
        features: numbers per face; 128 in the published file.
    """

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        channels = [32, *(out for out, _ in _BLOCKS)]
        self.blocks = nn.Sequential(
            *(_Residual(before, out, down) for before, (out, down) in zip(channels[:-1], _BLOCKS, strict=True))
        )
        self.fc = nn.Linear(256, features, bias=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Descriptors of faces.

        Args:
            crops: (B, 3, N, N), RGB, (x - 127.5) / 128 of 8-bit values, cut as `encoder.face`
                does; resized to 150x150 here.

        Returns:
            (B, features); dlib's weights give vectors about 1.4 long, nearer than 0.6 to each
            other when they show the same person.
        """
        # The corner pixels of dlib's chips sit on the corners of the face box whatever their size.
        x = F.interpolate(crops, (SIDE, SIDE), mode="bilinear", align_corners=True)
        x = (x * 128 + 127.5 - crops.new_tensor(_MEAN)[:, None, None]) / _SCALE
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.fc(self.blocks(x).mean((2, 3)))


def read_dlib_dat(path: str | os.PathLike) -> dict[str, Tensor]:
    """The weights in ``dlib_face_recognition_resnet_model_v1.dat``, named as in `DlibResnet`.

    The file is a dump of nested layers, innermost (the input) first. Each layer with weights
    starts with its name, and holds a tensor: four sizes, then raw float32, little endian.

    Raises:
        CheckpointError: the file is missing, cut or holds another network.
    """
    path = Path(path)
    try:
        layers = _layers(path.read_bytes())
        state = _state(layers)
        DlibResnet().load_state_dict(state)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, IndexError, StopIteration, RuntimeError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged, or not dlib's face-recognition network") from error
    return state


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """An integer of dlib's serialisation and the position behind it.

    A control byte holds the number of bytes that follow (low half) and the sign (top bit).
    """
    end = at + 1 + (data[at] & 0x0F)
    magnitude = int.from_bytes(data[at + 1 : end], "little")
    return (-magnitude if data[at] & 0x80 else magnitude), end


def _tensor(data: bytes, at: int) -> tuple[np.ndarray, int]:
    """A tensor of dlib's serialisation (samples, channels, rows, columns) and the position behind it."""
    version, at = _integer(data, at)
    if version != 2:
        raise ValueError("unknown tensor version")
    shape = []
    for _ in range(4):
        size, at = _integer(data, at)
        shape.append(size)
    count = int(np.prod(shape))
    return np.frombuffer(data, "<f4", count, at).reshape(shape), at + 4 * count


def _layers(data: bytes) -> list[tuple[str, np.ndarray]]:
    """Name and weights of every layer that has any, from the input on."""
    name_of_layer = re.compile(rb"\x01\x05(con_4)|\x01\x07(affine_)|\x01\x04(fc_2)")
    layers, at = [], 0
    while match := name_of_layer.search(data, at):  # from behind each tensor: never inside one
        name, at = match[match.lastindex].decode(), match.end()
        if name == "fc_2":  # its numbers of outputs and inputs come before the tensor
            _, at = _integer(data, at)
            _, at = _integer(data, at)
        tensor, at = _tensor(data, at)
        layers.append((name, tensor))
    return layers


def _state(layers: list[tuple[str, np.ndarray]]) -> dict[str, Tensor]:
    """Pairs of a convolution and its scaling, folded into one, and the last linear layer."""
    convolutions = [("stem", 32, 3, 7)]
    channels_in = 32
    for i, (channels, _) in enumerate(_BLOCKS):
        convolutions.append((f"blocks.{i}.conv1", channels, channels_in, 3))
        convolutions.append((f"blocks.{i}.conv2", channels, channels, 3))
        channels_in = channels
    names = [name for name, _ in layers]
    if names != ["con_4", "affine_"] * len(convolutions) + ["fc_2"]:
        raise ValueError("other layers than expected")

    state = {}
    tensors = iter(tensor for _, tensor in layers)
    for name, channels, channels_in, side in convolutions:
        flat = next(tensors).reshape(-1).astype(np.float64)
        weight, bias = flat[:-channels].reshape(channels, channels_in, side, side), flat[-channels:]
        gain, shift = next(tensors).reshape(2, channels).astype(np.float64)
        state[f"{name}.weight"] = torch.tensor(weight * gain[:, None, None, None], dtype=torch.float32)
        state[f"{name}.bias"] = torch.tensor(bias * gain + shift, dtype=torch.float32)
    last = next(tensors)
    state["fc.weight"] = torch.tensor(last.reshape(256, 128).T.copy())
    return state
