"""Speech -> the feature of a face that suits it."""

import dataclasses
import os
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from encoder.audio import SAMPLE_RATE, Clip
from savedmodels import Checkpoint, CheckpointError, InputError, read_checkpoint

from . import audio

_KERNEL = 4


class SpeechToFeature(Protocol):
    """What the pipeline asks of a voice encoder."""

    def feature_of(self, clip: Clip) -> Tensor:
        """The face feature (features,) that suits a clip; InputError as in `audio.load_clip`."""
        ...


@dataclasses.dataclass(frozen=True)
class VoiceEncoderDims:
    """Everything that shapes a `VoiceEncoder`; the defaults are a narrow one's.

    Attributes:
        channels: of each convolution, all 4 x 4 without padding.
        strides: of each, along frequency and time alike.
        pools: of each, the factor by which time, and time only, is pooled behind it.
        hidden: width of the fully connected layer behind the average over time.
        feature: numbers of the face feature.
        final_relu: whether the feature ends in a ReLU, as VGG-Face's fc7 does.
        front_end: see `audio.FrontEnd`.
        trim: whether pauses are cut out of clips.
    """

    channels: tuple[int, ...] = (16, 24, 32, 48, 64, 96)
    strides: tuple[int, ...] = (2, 2, 1, 1, 2, 2)
    pools: tuple[int, ...] = (1, 1, 2, 2, 1, 1)
    hidden: int = 256
    feature: int = 128
    final_relu: bool = False
    front_end: audio.FrontEnd = "complex"
    trim: bool = True

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.strides) == len(self.pools):
            raise ValueError("channels, strides and pools must be given for every convolution")
        if self.pools[-1] != 1:
            raise ValueError("behind the last convolution all time is averaged: its pool must be 1")

    @property
    def bins(self) -> int:
        """Height of the picture that the convolutions leave of 257 frequencies."""
        bins = audio.BINS
        for stride in self.strides:
            bins = (bins - _KERNEL) // stride + 1
        return bins

    @property
    def least_frames(self) -> int:
        """The shortest spectrogram of which something is left."""
        frames = 1
        for stride, pool in zip(reversed(self.strides), reversed(self.pools), strict=True):
            frames = (frames * pool - 1) * stride + _KERNEL
        return frames


PUBLISHED = VoiceEncoderDims(
    channels=(64, 64, 128, 128, 128, 256, 512, 512, 512),
    strides=(1, 1, 1, 1, 1, 1, 1, 2, 2),
    pools=(1, 1, 2, 2, 2, 2, 1, 1, 1),
    hidden=4096,
    feature=4096,
    final_relu=True,
    front_end="polar",
    trim=False,
)
"""The 148-million-parameter layout of Oh et al. (2019), table 1, as weights of it were published."""


class VoiceEncoder(nn.Module):
    """The convolutional voice encoder of Oh et al. (2019).

    >>> VoiceEncoder(VoiceEncoderDims())(torch.zeros(1, 2, 257, 598)).shape
    torch.Size([1, 128])
    """

    def __init__(self, dims: VoiceEncoderDims) -> None:
        super().__init__()
        self.dims = dims
        self._last = len(dims.channels)
        before = 2
        shapes = zip(dims.channels, dims.strides, dims.pools, strict=True)
        for number, (channels, stride, pool) in enumerate(shapes, start=1):
            layers = [nn.Conv2d(before, channels, _KERNEL, stride), nn.ReLU(), nn.BatchNorm2d(channels)]
            if pool > 1:
                layers.append(nn.MaxPool2d((1, pool)))
            if number == self._last:
                layers.insert(1, nn.AdaptiveAvgPool2d((None, 1)))
            self.add_module(f"layer{number}", nn.Sequential(*layers))
            before = channels
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(before * dims.bins, dims.hidden), nn.ReLU())
        final = nn.ReLU() if dims.final_relu else nn.Identity()
        self.add_module(f"layer{self._last + 1}", hidden)
        self.add_module(f"layer{self._last + 2}", nn.Sequential(nn.Linear(dims.hidden, dims.feature), final))

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "VoiceEncoder":
        """Our own file, or published weights of the full layout (keys ``layer1`` to ``layer11``).

        Raises:
            CheckpointError: the file cannot be read or holds another network.
        """
        return _build_convolutional(read_checkpoint(path))

    def forward(self, spectrograms: Tensor) -> Tensor:
        """(B, 2, 257, frames) of `audio.spectrogram` -> features (B, feature); any number of frames
        from `dims.least_frames` on."""
        if spectrograms.shape[3] < self.dims.least_frames:
            raise ValueError(f"{spectrograms.shape[3]} frames; at least {self.dims.least_frames} are needed")
        for layer in self.children():
            spectrograms = layer(spectrograms)
        return spectrograms

    def hear(self, samples: np.ndarray) -> Tensor:
        """Samples of `audio.load_clip` as what the network takes: (2, 257, frames of 6 s)."""
        return audio.spectrogram(torch.from_numpy(audio.fill(samples)), self.dims.front_end)

    @torch.inference_mode()
    def feature_of(self, clip: Clip) -> Tensor:
        """See `SpeechToFeature`; of the clip's speech the first 6 s count."""
        device = next(self.parameters()).device
        return self(self.hear(audio.load_clip(clip, self.dims.trim))[None].to(device))[0]


@dataclasses.dataclass(frozen=True)
class AstVoiceEncoderDims:
    """Everything that shapes an `AstVoiceEncoder`; the defaults are ``MIT/ast-finetuned-audioset-10-10-0.4593``'s.

    Attributes:
        hidden, layers, heads, inner: width, depth, attention heads and inner width of the transformer.
        mels, frames: size of the picture of sound; 1024 frames are 10.26 s.
        mean, deviation: of the log mels, taken out of them.
    """

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    mels: int = 128
    frames: int = 1024
    feature: int = 4096
    final_relu: bool = True
    mean: float = -5.460994
    deviation: float = 3.1129124
    trim: bool = False


class AstVoiceEncoder(nn.Module):
    """An audio spectrogram transformer (Gong et al., 2021) with a regression head, for which the
    package `transformers` is needed.

    Raises:
        InputError: it is not installed.
    """

    def __init__(self, dims: AstVoiceEncoderDims) -> None:
        super().__init__()
        transformers = _transformers()
        self.dims = dims
        config = transformers.ASTConfig(
            hidden_size=dims.hidden,
            num_hidden_layers=dims.layers,
            num_attention_heads=dims.heads,
            intermediate_size=dims.inner,
            num_mel_bins=dims.mels,
            max_length=dims.frames,
        )
        self.audio_spectrogram_transformer = transformers.ASTModel(config)
        self.classifier = nn.Sequential(_AstHead(dims), nn.ReLU() if dims.final_relu else nn.Identity())

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "AstVoiceEncoder":
        """Our own file, or published weights of the full size.

        Raises:
            CheckpointError: the file cannot be read or holds another network.
            InputError: `transformers` is not installed.
        """
        return _build_ast(read_checkpoint(path))

    def forward(self, mels: Tensor) -> Tensor:
        """(B, frames, mels) of `hear` -> features (B, feature)."""
        return self.classifier(self.audio_spectrogram_transformer(mels).pooler_output)

    def hear(self, samples: np.ndarray) -> Tensor:
        """Samples of `audio.load_clip`, repeated if short, as what the network takes: (frames, mels)."""
        d = self.dims
        extractor = _transformers().ASTFeatureExtractor(
            num_mel_bins=d.mels, max_length=d.frames, mean=d.mean, std=d.deviation
        )
        length = d.frames * audio.HOP + audio.WINDOW
        given = extractor(audio.fill(samples, length), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return given.input_values[0]

    @torch.inference_mode()
    def feature_of(self, clip: Clip) -> Tensor:
        """See `SpeechToFeature`."""
        device = next(self.parameters()).device
        return self(self.hear(audio.load_clip(clip, self.dims.trim))[None].to(device))[0]


class _AstHead(nn.Module):
    def __init__(self, dims: AstVoiceEncoderDims) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(dims.hidden, eps=1e-12)
        self.dense = nn.Linear(dims.hidden, dims.feature)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.layernorm(x))


def load_voice_encoder(path: str | os.PathLike) -> VoiceEncoder | AstVoiceEncoder:
    """Whichever voice encoder a file holds; errors as of the classes' `from_checkpoint`."""
    checkpoint = read_checkpoint(path)
    is_ast = checkpoint.network == AstVoiceEncoder.__name__ or any(
        name.startswith("audio_spectrogram_transformer.") for name in checkpoint.tensors
    )
    return _build_ast(checkpoint) if is_ast else _build_convolutional(checkpoint)


def _build_convolutional(checkpoint: Checkpoint) -> VoiceEncoder:
    if checkpoint.network is not None:
        return checkpoint.build(VoiceEncoder, checkpoint.dims_as(VoiceEncoderDims, VoiceEncoder.__name__))
    if "layer1.0.weight" not in checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path}: no voice encoder in it (weights named 'layer1.*')")
    return checkpoint.build(VoiceEncoder, PUBLISHED)


def _build_ast(checkpoint: Checkpoint) -> AstVoiceEncoder:
    dims = AstVoiceEncoderDims()
    if checkpoint.network is not None:
        dims = checkpoint.dims_as(AstVoiceEncoderDims, AstVoiceEncoder.__name__)
    return checkpoint.build(AstVoiceEncoder, dims)


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "this voice encoder needs the package transformers: pip install transformers, or use another bundle"
        ) from error
    return transformers
