"""The network that describes faces to the rest of Speech2Face."""

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from encoder import FaceSpeakerEncoder
from savedmodels import read_checkpoint

from .frame import FrameDescriptor, frames_to_tensor
from .vggface import VGGFace

_BATCH = 16


def load_descriptor(path: str | os.PathLike) -> tuple[nn.Module, int]:
    """VGG-Face, or the backbone of a face-speaker encoder.

    Returns:
        frames (B, 3, 224, 224) in [0, 1] to features (B, features), in eval mode and frozen; features.

    Raises:
        CheckpointError: the file cannot be read or holds another network.
    """
    if read_checkpoint(path).network == VGGFace.__name__:
        network = VGGFace.from_checkpoint(path)
        return network, network.dims.hidden
    encoder = FaceSpeakerEncoder.from_checkpoint(path)
    return FrameDescriptor(encoder.resnet), encoder.dims.features


@torch.inference_mode()
def describe(descriptor: Callable[[Tensor], Tensor], frames: np.ndarray) -> np.ndarray:
    """Frames uint8 (n, 224, 224, 3) -> float32 (n, 2, features), of each and of its mirror image."""
    both = []
    for pictures in (frames, frames[:, :, ::-1]):
        parts = [descriptor(frames_to_tensor(pictures[i : i + _BATCH])) for i in range(0, len(frames), _BATCH)]
        both.append(torch.cat(parts).cpu().numpy())
    return np.stack(both, 1)
