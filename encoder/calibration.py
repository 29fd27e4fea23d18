"""From the space of one front-end's voices to another's.

Lip2Speech computed the voices its face encoder was to answer with from another mel spectrogram than
the speech encoder knows (`encoder.audio.legacy_mel`), so its answers are shifted. As a face tells of
a voice no more than what is typical, its answer is a mean of many voices; an affine map takes the
mean of some points to the mean of their images, so one fitted on single clips suits it.
"""

import dataclasses
import os

import numpy as np
import torch
from torch import Tensor, nn

from savedmodels import read_checkpoint

from .face_model import unit


@dataclasses.dataclass(frozen=True)
class CalibrationDims:
    """
    Attributes:
        embedding: numbers per voice.
    """

    embedding: int = 256


class Calibration(nn.Module):
    """An affine map of voices, then ReLU and unit length."""

    def __init__(self, dims: CalibrationDims | None = None) -> None:
        super().__init__()
        self.dims = dims or CalibrationDims()
        self.affine = nn.Linear(self.dims.embedding, self.dims.embedding)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "Calibration":
        """Reads our own safetensors; CheckpointError if the file is something else."""
        checkpoint = read_checkpoint(path)
        return checkpoint.build(cls, checkpoint.dims_as(CalibrationDims, cls.__name__))

    @classmethod
    def fit(cls, shifted: np.ndarray, true: np.ndarray) -> "Calibration":
        """Least squares with a ridge on what the map does beyond moving all voices by the same way. The
        ridge counts as much as one clip for each number of a voice, so few clips give little more.

        Args:
            shifted, true: (n, embedding), unit length: the same clips through the two front-ends.
        """
        x, y = (np.asarray(voices, np.float64) for voices in (shifted, true))
        centred, shift = x - x.mean(axis=0), y - x
        scatter = centred.T @ centred / len(x)
        weight = max(np.trace(scatter) / len(x), 1e-12)
        cross = centred.T @ (shift - shift.mean(axis=0)) / len(x)
        turn = np.eye(len(scatter)) + np.linalg.solve(scatter + weight * np.eye(len(scatter)), cross)
        calibration = cls(CalibrationDims(x.shape[1]))
        with torch.no_grad():
            calibration.affine.weight.copy_(torch.from_numpy(turn.T))
            calibration.affine.bias.copy_(torch.from_numpy(y.mean(axis=0) - x.mean(axis=0) @ turn))
        return calibration.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, voices: Tensor) -> Tensor:
        """(B, embedding) unit length -> (B, embedding) unit length, not negative."""
        return unit(self.affine(voices))
