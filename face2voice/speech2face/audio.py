"""Speech -> what the voice encoder hears, and back to a waveform.

The numbers are those of Oh et al. (2019), "Speech2Face: Learning the Face Behind a Voice", section 3.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from encoder.audio import MAX_SECONDS, SAMPLE_RATE, Clip, load_prepared, load_speech

SECONDS = 6.0
SAMPLES = round(SECONDS * SAMPLE_RATE)
WINDOW = SAMPLE_RATE * 25 // 1000  # samples, 25 ms
HOP = SAMPLE_RATE * 10 // 1000  # samples, 10 ms
N_FFT = 512
BINS = N_FFT // 2 + 1
FRAMES = (SAMPLES - WINDOW) // HOP + 1  # of 6 s, uncentred: 598
POWER = 0.3
LOUDNESS = -23.0  # dBFS, root mean square; clips of every level are brought to it

FrontEnd = Literal["complex", "polar"]
"""What the two channels hold: real and imaginary part, from uncentred frames (the paper's); or
magnitude and phase, from frames centred on multiples of the hop (that of published weights)."""


def load_clip(source: Clip, trim: bool = True) -> np.ndarray:
    """A clip of speech at the front-end's rate and loudness.

    Args:
        source: path or (samples, rate in Hz), see `encoder.audio.load_speech`.
        trim: cut pauses out; of a long clip the first 30 s are looked through for speech.

    Returns:
        (n,) float32, mono, 16 kHz, n at most 30 s.

    Raises:
        InputError: the clip cannot be read, is silent, too short or (with `trim`) holds no speech.
    """
    return to_loudness(load_prepared(source) if trim else load_speech(source, MAX_SECONDS))


def to_loudness(samples: np.ndarray) -> np.ndarray:
    """(n,) float32 at -23 dBFS, whatever the level of what was recorded."""
    level = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64))))
    return (samples * (10 ** (LOUDNESS / 20) / max(level, 1e-9))).astype(np.float32)


def fill(samples: np.ndarray, length: int = SAMPLES, start: int = 0) -> np.ndarray:
    """`length` samples from `start` on; a clip that is too short begins anew."""
    return np.resize(samples[start:], length)


def spectrogram(samples: Tensor, front_end: FrontEnd = "complex") -> Tensor:
    """Samples (..., n) -> (..., 2, 257, frames), each number x as sgn(x) |x|^0.3.

    6 s make 598 frames, or 601 with the front end "polar".
    """
    if front_end == "complex":
        spectrum = _stft(samples)
        return _compress(torch.stack([spectrum.real, spectrum.imag], dim=-3))
    if front_end != "polar":
        raise ValueError(f"no front end {front_end!r}: choose complex or polar")
    spectrum = torch.stft(
        samples.reshape(-1, samples.shape[-1]),
        N_FFT,
        HOP,
        WINDOW,
        window=torch.hann_window(WINDOW).to(samples),
        center=True,
        pad_mode="constant",
        return_complex=True,
    ).unflatten(0, samples.shape[:-1] or (1,))
    spectrum = spectrum if samples.ndim > 1 else spectrum[0]
    return _compress(torch.stack([spectrum.abs(), spectrum.angle()], dim=-3))


def waveform(compressed: Tensor, iterations: int = 60) -> Tensor:
    """The inverse of the front end "complex", for spectrograms that no sound need have exactly.

    The magnitudes are kept, and the phases, from the given ones on, refined by the algorithm of
    Griffin and Lim (1984) until neighbouring frames agree. Without iterations the given phases
    count: of a true spectrogram they are exact, and refinement changes nothing audible.

    Args:
        compressed: (..., 2, 257, frames).

    Returns:
        (..., (frames - 1) * 160 + 400) samples.
    """
    real, imaginary = _expand(compressed).unbind(-3)
    spectrum = torch.complex(real, imaginary)
    magnitude = spectrum.abs()
    samples = _istft(spectrum)
    for _ in range(iterations):
        phase = _stft(samples)
        samples = _istft(phase * (magnitude / phase.abs().clamp(min=1e-9)))
    return samples


def _compress(x: Tensor) -> Tensor:
    return x.sign() * x.abs() ** POWER


def _expand(x: Tensor) -> Tensor:
    return x.sign() * x.abs() ** (1 / POWER)


def _stft(samples: Tensor) -> Tensor:
    """(..., n) -> complex (..., 257, frames): frames of 400 samples, filled up with zeros to 512."""
    # torch.stft without centring reads 512 samples a frame, and so makes one frame less of 6 s.
    frames = samples.unfold(-1, WINDOW, HOP) * torch.hann_window(WINDOW).to(samples)
    return torch.fft.rfft(frames, N_FFT).transpose(-1, -2)


def _istft(spectrum: Tensor) -> Tensor:
    """Complex (..., 257, frames) -> the samples (..., n) whose frames are nearest by least squares."""
    window = torch.hann_window(WINDOW).to(spectrum.real)
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), N_FFT)[..., :WINDOW] * window
    samples = _overlap(frames)
    weight = _overlap(window.square().expand(frames.shape[-2], -1))
    return samples / weight.clamp(min=1e-3)  # the outermost samples are heard by nearly no frame


def _overlap(frames: Tensor) -> Tensor:
    """Frames (..., frames, 400) added up at their places: (..., n)."""
    count, length = frames.shape[-2], (frames.shape[-2] - 1) * HOP + WINDOW
    columns = frames.reshape(-1, count, WINDOW).mT
    added = torch.nn.functional.fold(columns, (1, length), (1, WINDOW), stride=(1, HOP))
    return added.reshape(*frames.shape[:-2], length)
