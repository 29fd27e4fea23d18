"""Which curve over the spectrum brings voices nearest to real people, as a speaker encoder hears them."""

from collections.abc import Sequence

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoder import SpeechSpeakerEncoder
from encoder.audio import MELS, SAMPLE_RATE, partial_mels
from synthesizer import audio

from .voicebank import half_cosines

_HALF_COSINES = 12
_SIZE = 3e-3  # what a squared decibel costs; larger curves cost words (docs/experiments.md)
_STEPS = 120
_CLIPS = 10  # a step
_LEARNING_RATE = 0.4  # dB


def fit_curve(
    encoder: SpeechSpeakerEncoder, clips: Sequence[np.ndarray], toward: np.ndarray, seed: int = 0
) -> np.ndarray:
    """A smooth curve that turns the voices of clips into a direction.

    The clips' mel power spectrograms are multiplied by it in place of the clips being filtered, so that the
    encoder's gradient tells which way to go. All keep their energy.

    Args:
        clips: (n,) float32 each, of `encoder.audio.prepare`.
        toward: (embedding,), such as twice the mean voice of some people less that of others.

    Returns:
        decibels (80,), for the bands of `synthesizer.audio`.
    """
    mels = [torch.from_numpy(partial_mels(clip)) for clip in clips]
    hertz = librosa.mel_frequencies(MELS + 2, fmin=0.0, fmax=SAMPLE_RATE / 2)
    widths = torch.from_numpy(hertz[2:] - hertz[:-2]).float()
    basis, goal = _basis(hertz[1:-1]), torch.from_numpy(toward).float()
    amplitudes = torch.zeros(_HALF_COSINES, requires_grad=True)
    optimizer = torch.optim.Adam([amplitudes], _LEARNING_RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, _STEPS)
    rng = np.random.default_rng(seed)
    for _ in range(_STEPS):
        curve = basis @ amplitudes
        drawn = rng.choice(len(mels), min(_CLIPS, len(mels)), replace=False)
        voices = torch.stack([_voice(encoder, _equalized(mels[i], curve, widths)[0]) for i in drawn])
        loss = _SIZE * curve.square().mean() - (voices @ goal).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    with torch.no_grad():
        gain = torch.stack([_equalized(mel, basis @ amplitudes, widths)[1] for mel in mels]).mean()
        bands = librosa.mel_frequencies(audio.N_MELS + 2, fmin=audio.F_MIN, fmax=audio.F_MAX)[1:-1]
        return (_basis(bands) @ amplitudes + gain).numpy()


def _basis(hertz: np.ndarray) -> Tensor:
    return torch.from_numpy(half_cosines(hertz, _HALF_COSINES)).float()


def _equalized(mel: Tensor, decibels: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
    """Power (..., bands) with the curve on it and its energy as before; and by how many decibels that moved it."""
    changed = mel * 10 ** (decibels / 10)
    kept = (mel * widths).sum() / (changed * widths).sum()
    return changed * kept, 10 * kept.log10()


def _voice(encoder: SpeechSpeakerEncoder, partials: Tensor) -> Tensor:
    """(partials, frames, bands) -> (embedding,) unit length."""
    return F.normalize(encoder(partials).sum(0), dim=0)
