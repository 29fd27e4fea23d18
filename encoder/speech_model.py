"""The speech-speaker encoder: GE2E (Wan et al. 2018, https://arxiv.org/abs/1710.10467)."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from savedmodels import read_checkpoint

from .audio import MELS, PARTIAL_FRAMES, PARTIAL_STEP, Clip, load_prepared, partial_mels

_BATCH = 32  # partial utterances at once, to bound memory on long clips


@dataclass(frozen=True)
class SpeechSpeakerEncoderDims:
    """The defaults are the published encoder's.

    Attributes:
        log_mels: whether the network hears the logarithm of the mels, which spans fewer orders of
            magnitude and so is learned from sooner.
    """

    mels: int = MELS
    hidden: int = 256
    layers: int = 3
    embedding: int = 256
    log_mels: bool = False


class SpeechSpeakerEncoder(nn.Module):
    """Mel frames -> an embedding of the voice: non-negative, of unit length."""

    def __init__(self, dims: SpeechSpeakerEncoderDims = SpeechSpeakerEncoderDims()):
        super().__init__()
        self.dims = dims
        self.lstm = nn.LSTM(dims.mels, dims.hidden, dims.layers, batch_first=True)
        _remember(self.lstm, PARTIAL_FRAMES)
        self.linear = nn.Linear(dims.hidden, dims.embedding)
        # Scale and offset of the similarities in the GE2E loss (equation 5); part of the published layout.
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "SpeechSpeakerEncoder":
        """Reads RTVC's encoder.pt, resemblyzer's pretrained.pt or our own safetensors.

        Raises:
            CheckpointError: missing, damaged, or the weights of something else.
        """
        checkpoint = read_checkpoint(path)
        published = checkpoint.network is None
        dims = SpeechSpeakerEncoderDims() if published else checkpoint.dims_as(SpeechSpeakerEncoderDims, cls.__name__)
        return checkpoint.build(cls, dims)

    def raw(self, mels: Tensor) -> Tensor:
        """The embedding before its ReLU and normalisation: (B, frames, mels) -> (B, embedding)."""
        if self.dims.log_mels:
            mels = mels.clamp(min=1e-6).log() / 4 + 2  # about -1.5 to 2
        _, (hidden, _) = self.lstm(mels)
        return self.linear(hidden[-1])

    def forward(self, mels: Tensor) -> Tensor:
        """(B, frames, mels) power mel spectrograms, 10 ms a frame -> (B, embedding), unit length, >= 0."""
        return unit(self.raw(mels))

    @torch.inference_mode()
    def embed_partials(self, mels: np.ndarray) -> np.ndarray:
        """(partials, 160, 40) of one utterance -> (embedding,) float32: the mean direction."""
        device = self.linear.weight.device
        chunks = torch.from_numpy(mels).split(_BATCH)
        total = sum(self(chunk.to(device)).sum(0) for chunk in chunks)
        return F.normalize(total, dim=0).cpu().numpy()

    def embed_utterance(self, samples: np.ndarray, step: int = PARTIAL_STEP) -> np.ndarray:
        """The voice of one prepared utterance.

        Args:
            samples: (n,) float32 mono 16 kHz, from `audio.prepare`.
            step: frames between partial utterances, see `audio.partial_slices`.

        Returns:
            (embedding,) float32, unit length, >= 0.
        """
        return self.embed_partials(partial_mels(samples, step))

    def embed(self, source: Clip) -> np.ndarray:
        """The voice of a clip, a path or (samples, rate); InputError as in `audio.load_speech`."""
        return self.embed_utterance(load_prepared(source))


@torch.no_grad()
def _remember(lstm: nn.LSTM, steps: int) -> None:
    """Sets the gates' biases so that the cells remember for 1 to `steps` steps (Tallec & Ollivier, 2018,
    section 2): what is read off the last step then tells of the whole partial utterance from the start."""
    hidden = lstm.hidden_size
    for layer in range(lstm.num_layers):
        one, other = getattr(lstm, f"bias_ih_l{layer}"), getattr(lstm, f"bias_hh_l{layer}")
        forget = torch.empty(hidden).uniform_(1, steps - 1).log()
        one[:hidden], one[hidden : 2 * hidden] = -forget, forget
        other[: 2 * hidden] = 0


def unit(raw: Tensor) -> Tensor:
    """ReLU, then division by the length plus 1e-5 (as published; it also keeps a null vector finite)."""
    positive = raw.relu()
    return positive / (positive.norm(dim=-1, keepdim=True) + 1e-5)
