"""WaveRNN: mel spectrogram to waveform, one sample after the other.

The network is that of Kalchbrenner et al. (2018) in the two-GRU form whose weights are published
with Real-Time-Voice-Cloning. Beyond those it can be told to model, instead of the waveform, what
a linear predictor leaves of it (see `linear_prediction`).
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.signal import lfilter
from torch import Tensor, nn

from savedmodels import Checkpoint, CheckpointError, read_checkpoint

from . import folding, sequential
from .linear_prediction import predict
from .mu_law import PREEMPHASIS
from .refinement import refine

_WIDEST_SEQUENTIAL = 256  # units; beyond, a step's weights no longer fit a core's cache


@dataclasses.dataclass(frozen=True)
class WaveRNNDims:
    """Everything that shapes a WaveRNN; the defaults are those of the published weights.

    Attributes:
        mode: "RAW" is a softmax over 2**bits mu-law levels, "MOL" a mixture of `mixtures`
            logistics over the linear waveform.
        pad: mel frames of context that the network sees on each side.
        upsample: factors whose product is the hop.
        prediction_order: of the linear predictor; 0 models the waveform itself.
        excitation_range: standard deviations of the excitation that the mu-law covers.
        temperature: of the draws in mode RAW; below 1 they keep to what is likely.
        refinements: rounds of `refinement.refine` that a drawn waveform goes through; the mel spectrogram has to be
            the one that `linear_prediction` describes.
        pitch_reach: with linear prediction, how many samples on either side of the place one
            pitch period ago the network is shown.
    """

    mels: int = 80
    mode: Literal["RAW", "MOL"] = "RAW"
    bits: int = 9
    mixtures: int = 10
    rnn: int = 512
    fc: int = 512
    compute: int = 128
    res_out: int = 128
    res_blocks: int = 10
    pad: int = 2
    upsample: tuple[int, ...] = (5, 5, 8)
    sample_rate: int = 16_000
    prediction_order: int = 0
    excitation_range: float = 16.0
    temperature: float = 1.0
    refinements: int = 0
    pitch_reach: int = 4

    def __post_init__(self) -> None:
        if self.mode not in ("RAW", "MOL"):
            raise ValueError(f"mode is {self.mode!r}, not RAW or MOL")
        if self.prediction_order and self.mode != "RAW":
            raise ValueError("linear prediction goes with mode RAW")
        if self.res_out % 4:
            raise ValueError(f"res_out is {self.res_out}, not a multiple of 4")

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.upsample)

    @property
    def outputs(self) -> int:
        return 2**self.bits if self.mode == "RAW" else 3 * self.mixtures

    @property
    def inputs(self) -> int:
        """Numbers that a step is told of the past: the coded sample before it. With prediction,
        also the predicted sample and the true one before it, both in units of the excitation's
        level, and the coded samples around the place one pitch period ago."""
        return 3 + 2 * self.pitch_reach + 1 if self.prediction_order else 1


class ResBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv1d(channels, channels, 1, bias=False)
        self.batch_norm1 = nn.BatchNorm1d(channels)
        self.batch_norm2 = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.batch_norm2(self.conv2(F.relu(self.batch_norm1(self.conv1(x)))))


class MelResNet(nn.Module):
    def __init__(self, dims: WaveRNNDims):
        super().__init__()
        self.conv_in = nn.Conv1d(dims.mels, dims.compute, 2 * dims.pad + 1, bias=False)
        self.batch_norm = nn.BatchNorm1d(dims.compute)
        self.layers = nn.ModuleList(ResBlock(dims.compute) for _ in range(dims.res_blocks))
        self.conv_out = nn.Conv1d(dims.compute, dims.res_out, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, mels, T + 2 pad) -> (B, res_out, T)."""
        x = F.relu(self.batch_norm(self.conv_in(mel)))
        for layer in self.layers:
            x = layer(x)
        return self.conv_out(x)


class SmoothStretch(nn.Module):
    """Repeats every frame `factor` times, then convolves with a kernel of 2 * factor + 1.

    Every output depends on three frames alone, so both are done as one convolution over frames
    with an output channel per phase: a sixth of the work.
    """

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.full((1, 1, 1, 2 * factor + 1), 1 / (2 * factor + 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, T) -> (rows, T * factor)."""
        f = self.factor
        phase, tap = torch.arange(f, device=x.device)[:, None], torch.arange(2 * f + 1, device=x.device)
        frame = F.one_hot((phase + tap) // f, 3).to(x.dtype)  # which of the three a tap falls on
        kernel = torch.einsum("ptq,t->pq", frame, self.weight.flatten())
        return F.conv1d(x[:, None], kernel[:, None], padding=1).transpose(1, 2).flatten(1)


class Upsample(nn.Module):
    """Conditioning at the sample rate: the smoothed mel, and features of a residual network."""

    def __init__(self, dims: WaveRNNDims):
        super().__init__()
        self.hop, self.pad = dims.hop, dims.pad
        self.resnet = MelResNet(dims)
        # numbered as published, where the stretches between them count
        self.up_layers = nn.ModuleDict({str(2 * i + 1): SmoothStretch(f) for i, f in enumerate(dims.upsample)})

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, mels, T + 2 pad) -> (B, T * hop, mels), (B, T * hop, res_out)."""
        features = self.resnet(mel).repeat_interleave(self.hop, dim=2)
        x = mel.flatten(0, 1)
        for layer in self.up_layers.values():
            x = layer(x)
        margin = self.pad * self.hop
        smooth = x[:, margin:-margin].unflatten(0, mel.shape[:2])
        return smooth.transpose(1, 2), features.transpose(1, 2)


class WaveRNN(nn.Module):
    """Mel spectrogram to waveform.

    >>> model = WaveRNN(WaveRNNDims())
    >>> model(torch.zeros(2, 1000), torch.zeros(2, 80, 1000 // 200 + 4)).shape
    torch.Size([2, 1000, 512])
    """

    def __init__(self, dims: WaveRNNDims):
        super().__init__()
        self.dims = dims
        aux = dims.res_out // 4
        self.upsample = Upsample(dims)
        self.I = nn.Linear(dims.inputs + dims.mels + aux, dims.rnn)
        self.rnn1 = nn.GRU(dims.rnn, dims.rnn, batch_first=True)
        self.rnn2 = nn.GRU(dims.rnn + aux, dims.rnn, batch_first=True)
        self.fc1 = nn.Linear(dims.rnn + aux, dims.fc)
        self.fc2 = nn.Linear(dims.fc + aux, dims.fc)
        self.fc3 = nn.Linear(dims.fc, dims.outputs)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "WaveRNN":
        """The published ``vocoder.pt`` or our own file, in eval mode on the CPU.

        Raises:
            CheckpointError: the file cannot be read or holds another network.
        """
        checkpoint = read_checkpoint(path)
        if checkpoint.dims is None:
            dims = _published_dims(checkpoint)
        else:
            dims = checkpoint.dims_as(WaveRNNDims, cls.__name__)
        return checkpoint.build(cls, dims, ignore={"step"})

    def forward(self, samples: Tensor, mel: Tensor) -> Tensor:
        """Teacher-forced: logits of every sample given those before it.

        Args:
            samples: (B, n), the coded samples in [-1, 1], one step late; (B, n, inputs) with linear
                prediction (see `WaveRNNDims.inputs`).
            mel: (B, mels, n / hop + 2 pad) in [-1, 1], a quarter of the synthesizer's range.

        Returns:
            (B, n, outputs).
        """
        mels, features = self.upsample(mel)
        aux = features.chunk(4, dim=2)
        samples = samples.unflatten(-1, (-1, 1)) if samples.dim() == 2 else samples
        x = self.I(torch.cat([samples, mels, aux[0]], dim=2))
        x = x + self.rnn1(x)[0]
        x = x + self.rnn2(torch.cat([x, aux[1]], dim=2))[0]
        x = F.relu(self.fc1(torch.cat([x, aux[2]], dim=2)))
        x = F.relu(self.fc2(torch.cat([x, aux[3]], dim=2)))
        return self.fc3(x)

    @torch.inference_mode()
    def generate(
        self,
        mel: Tensor,
        seed: int = 0,
        engine: Literal["auto", "folded", "sequential"] = "auto",
        target: int = 8000,
        overlap: int = 800,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """A waveform for one mel spectrogram; the model must be in eval mode.

        Args:
            mel: (mels, T) in [-4, 4], T >= 1, frame t centred on sample t * hop.
            seed: of the samples that are drawn.
            engine: "folded" (see `folding`), "sequential" (see `sequential`: on a CPU, mode RAW),
                or whichever is faster here.
            target, overlap: of the folded engine.
            progress: called now and then with the share that is done.

        Returns:
            ((T - 1) * hop,) float32 in [-1, 1] on the CPU; one frame alone gives one hop.
        """
        d = self.dims
        mel = mel.to(self.I.weight) / 4
        if mel.shape[1] == 1:
            mel = mel.expand(-1, 2)
        # The network takes frame t for the samples from t * hop on; the last frame has none.
        frames = mel.shape[1] - 1
        mels, features = self.upsample(F.pad(mel[None], (d.pad, d.pad)))
        mels, features = mels[0, : frames * d.hop], features[0, : frames * d.hop : d.hop]
        known = predict(mel, d.prediction_order, d.hop) if d.prediction_order else None
        if engine == "auto":
            narrow = d.mode == "RAW" and d.rnn <= _WIDEST_SEQUENTIAL and not mel.is_cuda
            engine = "sequential" if narrow else "folded"
        if engine == "sequential":
            drawn = sequential.draw(self, mels, features, known, seed, progress)
        else:
            drawn = folding.draw(self, mels, features, known, seed, target, overlap, progress)
        if d.refinements:
            drawn = refine(drawn, mel, d.hop, d.refinements)
        restored = lfilter([1.0], [1.0, -PREEMPHASIS], drawn.cpu().numpy())
        return torch.from_numpy(restored).float().clamp(-1, 1)


def _published_dims(checkpoint: Checkpoint) -> WaveRNNDims:
    """Dimensions read off a published file's shapes; its hop and bits follow from the layer sizes."""
    t = checkpoint.tensors
    try:
        outputs, fc = t["fc3.weight"].shape
        mixture = outputs == 30
        factors = sorted(int(k.split(".")[2]) for k in t if k.startswith("upsample.up_layers."))
        return WaveRNNDims(
            mels=t["upsample.resnet.conv_in.weight"].shape[1],
            mode="MOL" if mixture else "RAW",
            bits=9 if mixture else outputs.bit_length() - 1,
            rnn=t["I.weight"].shape[0],
            fc=fc,
            compute=t["upsample.resnet.conv_in.weight"].shape[0],
            res_out=t["upsample.resnet.conv_out.weight"].shape[0],
            res_blocks=sum(k.endswith("conv1.weight") for k in t),
            pad=t["upsample.resnet.conv_in.weight"].shape[2] // 2,
            upsample=tuple(t[f"upsample.up_layers.{i}.weight"].shape[3] // 2 for i in factors),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: not a WaveRNN checkpoint ({error} is missing or odd)") from error
