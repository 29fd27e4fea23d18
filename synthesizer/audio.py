"""Waveform to mel spectrogram and back: the sound as the synthesizer and the vocoder share it.

The numbers are those of the published weights and of ours alike: 16 kHz, 50 ms windows every
12.5 ms, 80 Slaney mel bands, decibels mapped to [-4, 4].
"""

import functools

import librosa
import numpy as np
from scipy.signal import lfilter

SAMPLE_RATE = 16_000  # Hz
N_FFT = 800  # samples; the window is as long
HOP = 200  # samples
N_MELS = 80
F_MIN, F_MAX = 55.0, 7600.0  # Hz
PREEMPHASIS = 0.97
MIN_DB, REFERENCE_DB = -100.0, 20.0
MAX_LEVEL = 4.0  # the mel's range is [-MAX_LEVEL, MAX_LEVEL]
SPEECH_RMS = 0.1  # where something is said; the published networks learned from peaks of 0.9, which is much the same

FRAMES_PER_SECOND = SAMPLE_RATE // HOP

_PEAK = 0.95
_ACTIVE = 1e-4  # of the loudest frame's power
_GRIFFIN_LIM_POWER = 1.5
_GRIFFIN_LIM_ITERATIONS = 60


def to_level(samples: np.ndarray) -> np.ndarray:
    """float (n,) at 16 kHz -> float32 (n,), as loud as what the synthesizer learns from and all that is spoken:
    `SPEECH_RMS`, or less where peaks would reach full scale. Silence stays."""
    if not samples.any():
        return samples.astype(np.float32)
    energy = np.cumsum(np.pad(np.square(samples, dtype=np.float64), N_FFT // 2))
    power = (energy[N_FFT::HOP] - energy[:-N_FFT:HOP]) / N_FFT
    said = power > _ACTIVE * power.max()
    gain = min(SPEECH_RMS / np.sqrt(power[said].mean()), _PEAK / np.abs(samples).max())
    return (samples * gain).astype(np.float32)


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """float (n,) in [-1, 1] at 16 kHz -> float32 (80, n // 200 + 1) in [-4, 4]."""
    emphasised = lfilter([1.0, -PREEMPHASIS], [1.0], samples).astype(np.float32)
    spectrum = np.abs(librosa.stft(emphasised, n_fft=N_FFT, hop_length=HOP))
    decibels = 20 * np.log10(np.maximum(mel_filters() @ spectrum, 10 ** (MIN_DB / 20))) - REFERENCE_DB
    level = (decibels - MIN_DB) / -MIN_DB  # 0 to 1
    return (np.clip(2 * level - 1, -1, 1) * MAX_LEVEL).astype(np.float32)


def mel_amplitudes(mel: np.ndarray) -> np.ndarray:
    """The inverse of the decibel map: (80, frames) in [-4, 4] -> linear mel amplitudes."""
    decibels = (np.clip(mel / MAX_LEVEL, -1, 1) + 1) / 2 * -MIN_DB + MIN_DB + REFERENCE_DB
    return 10 ** (decibels / 20)


def griffin_lim(mel: np.ndarray, seed: int = 0) -> np.ndarray:
    """(80, frames) in [-4, 4] -> float32 ((frames - 1) * 200,) by Griffin & Lim (1984), 60 iterations."""
    if mel.shape[1] < 2:
        return np.zeros(0, np.float32)
    spectrum = np.maximum(np.linalg.pinv(mel_filters()) @ mel_amplitudes(mel), 1e-10)
    samples = librosa.griffinlim(
        spectrum**_GRIFFIN_LIM_POWER,
        n_iter=_GRIFFIN_LIM_ITERATIONS,
        hop_length=HOP,
        n_fft=N_FFT,
        random_state=seed,
    )
    return lfilter([1.0], [1.0, -PREEMPHASIS], samples).astype(np.float32)


@functools.cache
def mel_filters() -> np.ndarray:
    """(80, 401) Slaney filter bank with area normalisation."""
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=F_MIN, fmax=F_MAX)
