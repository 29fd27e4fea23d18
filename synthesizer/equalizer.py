"""What is put on the spectrum of all that a voice says.

Voices made from one source share its timbre, and a synthesizer that learned from them has it too. A smooth
curve over the bands, another for women than for men, brings them nearer to real speakers. It is added to
the finished mel spectrogram and not learned by the network, so it can be fitted in minutes, and it
disturbs neither attention nor what the decoder is told of its own frames.
"""

import dataclasses
import os

import numpy as np
import torch
from torch import Tensor, nn

from savedmodels import read_checkpoint

from . import audio

_RIDGE = 0.01  # of the voices' own variance


@dataclasses.dataclass(frozen=True)
class EqualizerDims:
    """
    Attributes:
        speaker: numbers per voice.
        mels: bands.
    """

    speaker: int = 256
    mels: int = audio.N_MELS


class Equalizer(nn.Module):
    """An affine map from voices to curves over the mel bands.

    >>> Equalizer().curve(torch.rand(2, 256)).shape
    torch.Size([2, 80])
    """

    def __init__(self, dims: EqualizerDims | None = None) -> None:
        super().__init__()
        self.dims = dims or EqualizerDims()
        self.affine = nn.Linear(self.dims.speaker, self.dims.mels)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "Equalizer":
        """Reads our own safetensors; CheckpointError if the file is something else."""
        checkpoint = read_checkpoint(path)
        return checkpoint.build(cls, checkpoint.dims_as(EqualizerDims, cls.__name__))

    @classmethod
    def fit(cls, voices: np.ndarray, decibels: np.ndarray) -> "Equalizer":
        """Least squares with a small ridge, so that voices between two kinds get what lies between their curves.

        Args:
            voices: (n, speaker), unit length.
            decibels: (n, mels), the curve of each.
        """
        x, y = voices - voices.mean(axis=0), decibels - decibels.mean(axis=0)
        scatter = x.T @ x
        ridge = _RIDGE * np.trace(scatter) / len(scatter)
        weight = np.linalg.solve(scatter + ridge * np.eye(len(scatter)), x.T @ y)
        bias = decibels.mean(axis=0) - voices.mean(axis=0) @ weight
        equalizer = cls(EqualizerDims(voices.shape[1], decibels.shape[1]))
        with torch.no_grad():
            equalizer.affine.weight.copy_(torch.from_numpy(weight.T))
            equalizer.affine.bias.copy_(torch.from_numpy(bias))
        return equalizer.eval().requires_grad_(False)

    def curve(self, voices: Tensor) -> Tensor:
        """(B, speaker) unit length -> decibels (B, mels)."""
        return self.affine(voices)

    @torch.no_grad()
    def forward(self, mel: Tensor, voice: Tensor) -> Tensor:
        """Mel spectrogram (mels, frames) in [-4, 4] and a voice (speaker,) -> likewise (mels, frames)."""
        level = self.curve(voice[None].to(self.affine.weight)).to(mel) * (2 * audio.MAX_LEVEL / -audio.MIN_DB)
        return (mel + level[0, :, None]).clamp(-audio.MAX_LEVEL, audio.MAX_LEVEL)
