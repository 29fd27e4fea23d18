"""Training a WaveRNN: random segments of speech into batches, and the loss of a batch."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from savedmodels import InputError

from .linear_prediction import PITCH_PERIODS, predict
from .model import WaveRNN
from .mu_law import MIN_LOG_SCALE, PREEMPHASIS, label_to_coded, mu_law_encode

_MAX_GAIN_DB = 6.0

_EVALUATED = 4  # batches of the recordings held out
_SHOWN = 40  # frames, half a second

Batch = tuple[Tensor, Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Recording:
    """Sound and its mel spectrogram.

    Attributes:
        samples: int16 (n,), 16 kHz.
        mel: (80, n // 200 + 1) in [-4, 4], any float dtype, of the sound or predicted for it.
    """

    samples: np.ndarray
    mel: np.ndarray


class Segment(NamedTuple):
    """A piece of a recording.

    Attributes:
        recording: its index.
        frame: the first mel frame, counted from the first that can be.
        gain_db: put on the sound.
        noise: in mu-law levels, see `WaveRNNTask`.
        seed: of the noise's draws.
    """

    recording: int
    frame: int
    gain_db: float
    noise: float
    seed: int


class WaveRNNTask:
    """Cross entropy (RAW) or negative log-likelihood (MOL) of each sample given the past.

    Args:
        recordings: read when needed, so they may lie on the disk.
        hops: length of a segment; recordings too short for one are left out.
        max_noise: with linear prediction, the largest noise, in mu-law levels, that is put on the
            excitation the network is told of: at generation its own draws are as inexact
            (Valin & Skoglund, LPCNet, 2019, section 3.5).
        frames: of each recording's mel; looked up if not given.
        held_out: other recordings, for the figure and the sound.

    Raises:
        InputError: no recording is long enough.
    """

    def __init__(
        self,
        module: WaveRNN,
        recordings: Sequence[Recording],
        batch_size: int = 32,
        hops: int = 8,
        max_noise: float = 3.0,
        frames: Sequence[int] | None = None,
        held_out: Sequence[Recording] = (),
    ):
        self.module = module
        self.hops = hops
        self.batch_size = batch_size
        self.max_noise = max_noise
        self.recordings = recordings
        self.held_out = held_out
        self.margin = module.dims.pad + 1
        frames = [r.mel.shape[1] for r in recordings] if frames is None else frames
        self.starts = self._starts(frames)
        if not self.starts.any():
            raise InputError(f"no recording is longer than {hops + 2 * self.margin} mel frames; give longer ones")

    def _starts(self, frames: Sequence[int]) -> np.ndarray:
        """(recordings,): how many frames of each a segment can start at."""
        return np.maximum(np.asarray(frames) - self.hops - 2 * self.margin, 0)

    def batches(self, epoch: int, seed: int) -> Iterator[list[Segment]]:
        """Segments drawn at random, about as many as cover the recordings once."""
        yield from self._draw(self.starts, np.random.default_rng((seed, epoch)))

    def _draw(self, starts: np.ndarray, rng: np.random.Generator) -> Iterator[list[Segment]]:
        share = starts / starts.sum()
        for _ in range(math.ceil(starts.sum() / self.hops / self.batch_size)):
            yield [
                Segment(
                    int(i),
                    int(rng.integers(starts[i])),
                    rng.uniform(-_MAX_GAIN_DB, _MAX_GAIN_DB),
                    rng.uniform(0, self.max_noise),
                    int(rng.integers(2**31)),
                )
                for i in rng.choice(len(starts), self.batch_size, p=share)
            ]

    def collate(self, batch: Sequence[Segment]) -> Batch:
        """What the network is told and asked of each sample.

        Returns:
            inputs (B, n) or (B, n, inputs) and mel (B, 80, hops + 2 pad) as of `WaveRNN.forward`;
            labels (B, n): classes (RAW) or pre-emphasised samples (MOL).
        """
        return self._collate(self.recordings, batch)

    def _collate(self, recordings: Sequence[Recording], batch: Sequence[Segment]) -> Batch:
        d = self.module.dims
        cut = [self._cut(recordings[segment.recording], segment) for segment in batch]
        samples = torch.from_numpy(np.stack([samples for samples, _ in cut]).astype(np.float32))
        mel = torch.from_numpy(np.stack([mel for _, mel in cut]).astype(np.float32))
        if d.prediction_order:
            inputs, labels = self._excitation(samples, mel, batch)
        elif d.mode == "RAW":
            labels = mu_law_encode(samples, d.bits)
            inputs = F.pad(label_to_coded(labels, d.bits), (1, -1))
        else:
            labels = samples
            inputs = F.pad(samples, (1, -1))
        return inputs, mel, labels

    def _cut(self, recording: Recording, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        """Samples (hops * hop,) pre-emphasised, behind prediction_order + pad * hop of the past if there is
        linear prediction; mel (80, hops + 2 pad) in [-1, 1]."""
        d = self.module.dims
        frame = segment.frame + self.margin
        start, stop = frame * d.hop, (frame + self.hops) * d.hop
        if d.prediction_order:
            start -= d.pad * d.hop
        raw = recording.samples[start - d.prediction_order - 1 : stop].astype(np.float32) / 32768
        samples = (raw[1:] - PREEMPHASIS * raw[:-1]) * 10 ** (segment.gain_db / 20)
        mel = recording.mel[:, frame - d.pad : frame + self.hops + d.pad].astype(np.float32) / 4
        return samples, np.clip(mel + segment.gain_db / 50, -1, 1)  # [-1, 1] spans 100 dB

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss per sample in nats; `progress` is not used."""
        inputs, mel, labels = batch
        outputs = self.module(inputs, mel).float()
        if self.module.dims.mode == "RAW":
            loss = F.cross_entropy(outputs.flatten(0, 1), labels.flatten())
        else:
            loss = logistic_mixture_loss(outputs, labels)
        return loss, {"nats": loss.detach()}

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """``held_out_nats``: the loss over some segments of the recordings held out, always the same."""
        starts = self._starts([recording.mel.shape[1] for recording in self.held_out])
        if not starts.any():
            return {}
        device = self.module.I.weight.device
        drawn = itertools.islice(self._draw(starts, np.random.default_rng(0)), _EVALUATED)
        batches = [[x.to(device) for x in self._collate(self.held_out, batch)] for batch in drawn]
        return {"held_out_nats": float(np.mean([float(self.loss(batch, 0.0)[0]) for batch in batches]))}

    @torch.inference_mode()
    def show(self) -> dict[str, np.ndarray]:
        """Half a second from the middle of the first recording (held out, if any are), made from its mel."""
        mel = (self.held_out or self.recordings)[0].mel
        start = max(0, (mel.shape[1] - _SHOWN) // 2)
        cut = torch.from_numpy(mel[:, start : start + _SHOWN].astype(np.float32))
        # Short folds: the network goes through a fold sample by sample, but through all folds at once.
        made = self.module.generate(cut.to(self.module.I.weight.device), target=1000, overlap=200)
        return {"sound": made.numpy()}

    def _excitation(self, samples: Tensor, mel: Tensor, batch: Sequence[Segment]) -> tuple[Tensor, Tensor]:
        """Inputs (B, n, inputs) and labels (B, n) of a generation that is forced back to the true waveform.
        It begins where the padding does, so that the first samples too have a pitch period behind them."""
        d = self.module.dims
        past = d.pad * d.hop
        known = predict(mel[:, :, : mel.shape[2] - d.pad + 1], d.prediction_order, d.hop)
        inputs, labels = _force(
            samples.numpy(),
            *(x.numpy() for x in known),
            np.array([segment.noise for segment in batch]),
            d.pitch_reach,
            d.excitation_range,
            d.bits,
            np.array([segment.seed for segment in batch]),
        )
        return torch.from_numpy(inputs[:, past:].copy()), torch.from_numpy(labels[:, past:].copy())


@numba.njit(cache=True, fastmath=True)
def _force(samples, coefficients, level, period, noise, reach, scale, bits, seeds):
    """For each segment: predict, measure the excitation, code it, disturb it, and go on from there.

    Args: samples (B, order + n), the first `order` as history; coefficients (B, steps, order);
    level, period (B, steps); noise, seeds (B,).
    """
    batch, steps, order = coefficients.shape
    n = samples.shape[1] - order
    step = n // steps
    mu = 2.0**bits - 1
    log_mu = np.log1p(mu)
    before = PITCH_PERIODS[1] + reach
    inputs = np.empty((batch, n, 4 + 2 * reach), np.float32)
    labels = np.empty((batch, n), np.int64)
    for b in range(batch):
        np.random.seed(seeds[b])
        past = samples[b, :order][::-1].copy()
        coded = np.zeros(before + n)
        for t in range(n):
            at = t // step
            predicted = 0.0
            for k in range(order):
                predicted += coefficients[b, at, k] * past[k]
            unit = level[b, at]
            inputs[b, t, 0] = coded[before + t - 1]
            inputs[b, t, 1] = predicted / unit
            inputs[b, t, 2] = past[0] / unit
            for k in range(-reach, reach + 1):
                inputs[b, t, 3 + reach + k] = coded[before + t - period[b, at] + k]
            x = min(max((samples[b, order + t] - predicted) / unit / scale, -1.0), 1.0)
            label = int((np.sign(x) * np.log1p(mu * abs(x)) / log_mu + 1) / 2 * mu + 0.5)
            labels[b, t] = label
            told = label + round(noise[b] * (np.random.random() + np.random.random() - 1))
            fed = 2 * min(max(told, 0.0), mu) / mu - 1
            coded[before + t] = fed
            for k in range(order - 1, 0, -1):
                past[k] = past[k - 1]
            past[0] = predicted + np.sign(fed) * np.expm1(abs(fed) * log_mu) / mu * scale * unit
    return inputs, labels


def logistic_mixture_loss(outputs: Tensor, samples: Tensor, half_bin: float = 1 / 65535) -> Tensor:
    """Discretised mixture of logistics (Salimans et al., PixelCNN++, 2017, section 2.1).

    Args:
        outputs: (B, n, 3 * mixtures): logits, means, log scales.
        samples: (B, n) in [-1, 1], of 16-bit depth.

    Returns:
        mean negative log-likelihood in nats of a 16-bit level.
    """
    logits, means, log_scales = outputs.unflatten(-1, (3, -1)).unbind(dim=-2)
    log_scales = log_scales.clamp(min=MIN_LOG_SCALE)
    centred = samples[..., None] - means
    inverse = torch.exp(-log_scales)
    above, below = inverse * (centred + half_bin), inverse * (centred - half_bin)
    mass = torch.sigmoid(above) - torch.sigmoid(below)
    # Far from the mean the difference is lost in rounding; there the density times the bin is as exact.
    middle = inverse * centred
    density = middle - log_scales - 2 * F.softplus(middle) + math.log(2 * half_bin)
    mass = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
    mass = torch.where(samples[..., None] < -0.999, F.logsigmoid(above), mass)
    mass = torch.where(samples[..., None] > 0.999, F.logsigmoid(-below), mass)
    return -torch.logsumexp(F.log_softmax(logits, dim=-1) + mass, dim=-1).mean()
