"""Linear prediction read off a mel spectrogram.

The spectral envelope is known before the first sample is drawn. Turned into a linear predictor it
takes the formants off the network's shoulders (Valin & Skoglund, LPCNet, 2019): what is left to
model is the excitation, which is flatter, smaller and of a known level. The mel's lower bands also
show the harmonics, and so where the last pitch period began. With both, a narrow network trained
for hours on a CPU does what a wide one needs days for.
"""

import functools
import math
from typing import NamedTuple

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The mel spectrogram that this vocoder is fed with: the synthesizer's.
SAMPLE_RATE = 16_000  # Hz
N_FFT = 800  # samples; the Hann window is as long
F_MIN, F_MAX = 55.0, 7600.0  # Hz
MIN_DB, REFERENCE_DB = -100.0, 20.0  # mapped to [-1, 1]

_STEPS_PER_HOP = 4
_NOISE_FLOOR = 1e-4  # of the power, added to every band: bounds the predictor's gain
_LAG_WINDOW_HZ = 60.0  # smooths harmonics that low bands resolve
PITCH_PERIODS = (40, 320)  # samples, 400 to 50 Hz
_PITCH_MAX_HZ = 1200.0  # harmonics above are too close together for the bands
_ENVELOPE_BINS = 15  # width over which the harmonics' peaks and valleys average out


class Prediction(NamedTuple):
    """What the mel says of the samples to come, per step of a quarter of a hop; "..." is the batch.

    Attributes:
        coefficients: (..., steps, order) so that ``prediction[n] = sum_k c[k] * x[n - 1 - k]`` of
            the pre-emphasised waveform.
        level: (..., steps), standard deviation of what the prediction leaves.
        period: (..., steps) int64, samples since the last pitch period; meaningless in unvoiced sound.
    """

    coefficients: Tensor
    level: Tensor
    period: Tensor


def predict(mel: Tensor, order: int, hop: int) -> Prediction:
    """The prediction for every sample between the first frame and the last.

    Args:
        mel: (..., bands, frames) in [-1, 1], frame t centred on sample t * hop.

    Returns:
        steps = (frames - 1) * 4, a step of hop / 4 samples.
    """
    at = (torch.arange((mel.shape[-1] - 1) * _STEPS_PER_HOP, device=mel.device) + 0.5) / _STEPS_PER_HOP
    low = at.long()
    between = mel[..., low] + (mel[..., low + 1] - mel[..., low]) * (at - low)
    decibels = to_decibels(between).mT
    to_bins, to_lags, window, to_periods = (x.to(mel.device) for x in _maps(mel.shape[-2], order))
    spectrum = decibels @ to_bins[:-1] + to_bins[-1]
    period = (_harmonics(spectrum) @ to_periods).argmax(dim=-1) + PITCH_PERIODS[0]
    power = 10 ** (spectrum / 10)
    power = power + _NOISE_FLOOR * power.mean(dim=-1, keepdim=True)
    lags = (power @ to_lags) * window
    coefficients, error = _levinson(lags)
    window_energy = 0.375 * N_FFT  # of a Hann window
    return Prediction(coefficients, (error / window_energy).sqrt(), period)


def _harmonics(spectrum: Tensor) -> Tensor:
    """(..., steps, bins) in decibels -> (..., steps, low bins): what stands above or below the envelope."""
    low = round(_PITCH_MAX_HZ * N_FFT / SAMPLE_RATE) + 1
    margin = _ENVELOPE_BINS // 2
    padded = F.pad(spectrum[..., : low + margin], (margin, 0), mode="replicate")
    return spectrum[..., :low] - F.avg_pool1d(padded, _ENVELOPE_BINS, stride=1)


def _levinson(lags: Tensor) -> tuple[Tensor, Tensor]:
    """Levinson-Durbin over the last axis: (..., order + 1) -> predictor (..., order), error (...)."""
    order = lags.shape[-1] - 1
    predictor = lags.new_zeros(*lags.shape[:-1], order)
    error = lags[..., 0]
    for i in range(order):
        reflected = lags[..., i + 1] - (predictor[..., :i] * lags[..., 1 : i + 1].flip(-1)).sum(-1)
        k = reflected / error
        updated = predictor.clone()
        updated[..., :i] = predictor[..., :i] - k[..., None] * predictor[..., :i].flip(-1)
        updated[..., i] = k
        predictor, error = updated, error * (1 - k * k)
    return predictor, error


@functools.cache
def _maps(bands: int, order: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mel decibels to decibels per frequency bin (last row: offset), power to lags, lag window, and
    harmonics to the likelihood of each period."""
    filters = mel_filters(bands)
    bins = np.arange(N_FFT // 2 + 1)
    centres = filters @ bins / filters.sum(axis=1)
    interpolation = np.stack([np.interp(bins, centres, row) for row in np.eye(bands)])  # (bands, bins)
    offset = -20 * np.log10(filters.sum(axis=1)) @ interpolation
    weight = np.full(len(bins), 2.0)
    weight[[0, -1]] = 1.0  # the bins that the two-sided spectrum has once
    lags = np.arange(order + 1)
    cosines = np.cos(2 * np.pi * np.outer(bins, lags) / N_FFT) * weight[:, None] / N_FFT
    window = np.exp(-0.5 * (2 * math.pi * _LAG_WINDOW_HZ * lags / SAMPLE_RATE) ** 2)
    low = round(_PITCH_MAX_HZ * N_FFT / SAMPLE_RATE) + 1
    periods = np.arange(PITCH_PERIODS[0], PITCH_PERIODS[1] + 1)
    combs = np.cos(2 * np.pi * np.outer(bins[:low], periods) / N_FFT) * np.hanning(2 * low)[low:, None]
    maps = (np.vstack([interpolation, offset]), cosines, window, combs)
    return tuple(torch.from_numpy(x).float() for x in maps)


def to_decibels(mel: Tensor) -> Tensor:
    """From [-1, 1], of any shape."""
    return (mel + 1) / 2 * -MIN_DB + MIN_DB + REFERENCE_DB


def mel_filters(bands: int) -> np.ndarray:
    """(bands, 401) Slaney filter bank with area normalisation."""
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=bands, fmin=F_MIN, fmax=F_MAX)
