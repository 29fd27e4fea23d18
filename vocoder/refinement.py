"""Putting a finished waveform right by the mel spectrogram that it was made for.

What is drawn sample by sample cannot be taken back: noise adds up to more than was asked for, a
pitch period comes out too long. Afterwards the mel spectrogram tells where. This is Griffin and
Lim's iteration (1984) with two differences: it sets out from the phases of speech in place of
random ones, and knows magnitudes by band, not by bin, so it moves bands and leaves what is inside.
"""

import functools

import torch
from torch import Tensor

from .linear_prediction import MIN_DB, N_FFT, mel_filters, to_decibels

_FAINTEST = 10 ** (MIN_DB / 20)  # amplitude in a band, as in the mel spectrogram
_MOST_DB = 12.0  # that a band is moved at once


def refine(samples: Tensor, mel: Tensor, hop: int, rounds: int) -> Tensor:
    """The waveform moved towards one with this mel spectrogram.

    Args:
        samples: ((frames - 1) * hop,), pre-emphasised as the mel's are.
        mel: (bands, frames) in [-1, 1], frame t centred on sample t * hop.

    Returns:
        samples of the same shape.
    """
    window = torch.hann_window(N_FFT, device=samples.device)
    filters, spread = (x.to(samples) for x in _bands(mel.shape[0]))
    wanted = to_decibels(mel)
    for _ in range(rounds):
        spectrum = torch.stft(samples, N_FFT, hop, window=window, pad_mode="constant", return_complex=True)
        there = 20 * (filters @ spectrum.abs()).clamp(min=_FAINTEST).log10()
        gain = spread @ (wanted - there).clamp(-_MOST_DB, _MOST_DB)
        samples = torch.istft(spectrum * 10 ** (gain / 20), N_FFT, hop, window=window, length=len(samples))
    return samples


@functools.cache
def _bands(count: int) -> tuple[Tensor, Tensor]:
    """The mel filters (bands, bins), and the same the other way (bins, bands), where a bin's shares sum to one."""
    filters = torch.from_numpy(mel_filters(count))
    return filters, (filters / filters.sum(dim=0).clamp(min=1e-9)).T
