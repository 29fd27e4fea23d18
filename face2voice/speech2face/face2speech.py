"""The way back: face feature -> spectrogram -> the sound of a voice (not words)."""

import dataclasses
import math
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import read_checkpoint

from . import audio


@dataclasses.dataclass(frozen=True)
class VoiceDecoderDims:
    """Everything that shapes a `VoiceDecoder`.

    Attributes:
        feature: numbers of the face feature.
        hidden: width of the first layer.
        channels: of the picture at each size, each doubling it in both directions.
        frames: length of what comes out, in hops of 10 ms; 598 are 6 s.
    """

    feature: int = 128
    hidden: int = 256
    channels: tuple[int, ...] = (16, 48, 32, 24, 16)
    frames: int = audio.FRAMES

    @property
    def start(self) -> tuple[int, int]:
        """Bins and frames of the smallest picture."""
        factor = 2 ** (len(self.channels) - 1)
        return math.ceil(audio.BINS / factor), math.ceil(self.frames / factor)


class VoiceDecoder(nn.Module):
    """Features to spectrograms of the front end "complex".

    The output layer is linear: real and imaginary parts have either sign, and a ReLU there, as in a
    published attempt, can never make the half of them.
    """

    def __init__(self, dims: VoiceDecoderDims) -> None:
        super().__init__()
        self.dims = dims
        bins, frames = dims.start
        self.connected = nn.Sequential(
            nn.Linear(dims.feature, dims.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(dims.hidden, dims.channels[0] * bins * frames),
            nn.Unflatten(1, (dims.channels[0], bins, frames)),
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(dims.channels[:-1], dims.channels[1:], strict=True)
        )
        self.last = nn.Conv2d(dims.channels[-1], 2, 1)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "VoiceDecoder":
        """Our own file; CheckpointError if it cannot be read or holds another network."""
        checkpoint = read_checkpoint(path)
        return checkpoint.build(cls, checkpoint.dims_as(VoiceDecoderDims, cls.__name__))

    def forward(self, features: Tensor) -> Tensor:
        """(B, feature) -> (B, 2, 257, frames), see `audio.spectrogram`."""
        x = self.connected(features)
        for convolution in self.convolutions:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(convolution(x), 0.2)
        return self.last(x)[:, :, : audio.BINS, : self.dims.frames]

    @torch.inference_mode()
    def speak(self, features: Tensor, iterations: int = 60) -> Tensor:
        """(B, feature) -> samples (B, n) at 16 kHz, see `audio.waveform`."""
        return audio.waveform(self(features), iterations)
