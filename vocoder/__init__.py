"""How it sounds: a mel spectrogram to a waveform."""

from .model import WaveRNN, WaveRNNDims

__all__ = ["WaveRNN", "WaveRNNDims"]
