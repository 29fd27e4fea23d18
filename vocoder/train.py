"""Training a WaveRNN: random segments of speech into batches, and the loss of a batch."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .linear_prediction import PITCH_PERIODS, predict
from .model import WaveRNN
from .mu_law import PREEMPHASIS, label_to_coded, mu_law_encode

_MAX_GAIN_DB = 6.0

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, int]


@dataclasses.dataclass(frozen=True)
class Recording:
    """Sound and its mel spectrogram.

    Attributes:
        samples: int16 (n,), 16 kHz.
        mel: (80, n // 200 + 1) in [-4, 4], any float dtype, of the sound or predicted for it.
    """

    samples: np.ndarray
    mel: np.ndarray


class WaveRNNTask:
    """Cross entropy (RAW) or negative log-likelihood (MOL) of each sample given the past.

    Args:
        hops: length of a segment.
        max_noise: with linear prediction, the largest noise, in mu-law levels, that is put on the
            excitation the network is told of: at generation its own draws are as inexact
            (Valin & Skoglund, LPCNet, 2019, section 3.5).
    """

    def __init__(
        self,
        module: WaveRNN,
        recordings: Sequence[Recording],
        batch_size: int = 32,
        hops: int = 5,
        max_noise: float = 3.0,
    ):
        self.module = module
        self.hops = hops
        self.batch_size = batch_size
        self.max_noise = max_noise
        self.margin = module.dims.pad + 1
        needed = hops + 2 * self.margin
        self.recordings = [r for r in recordings if r.mel.shape[1] > needed]
        self.frames = np.array([r.mel.shape[1] - needed for r in self.recordings], float)

    def batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """Segments drawn at random, about as many as cover the recordings once.

        Yields:
            samples (B, 16 + hops * hop) pre-emphasised, mel (B, 80, hops + 2 pad) in [-1, 1],
            noise (B,) in mu-law levels, and the seed of its draws.
        """
        d = self.module.dims
        rng = np.random.default_rng((seed, epoch))
        share = self.frames / self.frames.sum()
        for _ in range(math.ceil(self.frames.sum() / self.hops / self.batch_size)):
            samples, mels = [], []
            for i in rng.choice(len(self.recordings), self.batch_size, p=share):
                recording = self.recordings[i]
                frame = int(rng.integers(self.frames[i])) + self.margin
                gain_db = rng.uniform(-_MAX_GAIN_DB, _MAX_GAIN_DB)
                start, stop = frame * d.hop, (frame + self.hops) * d.hop
                raw = recording.samples[start - d.prediction_order - 1 : stop].astype(np.float32) / 32768
                samples.append((raw[1:] - PREEMPHASIS * raw[:-1]) * 10 ** (gain_db / 20))
                mel = recording.mel[:, frame - d.pad : frame + self.hops + d.pad].astype(np.float32) / 4
                mels.append(np.clip(mel + gain_db / 50, -1, 1))  # [-1, 1] spans 100 dB
            noise = rng.uniform(0, self.max_noise, self.batch_size)
            yield np.stack(samples), np.stack(mels), noise, int(rng.integers(2**31))

    def loss(
        self, batch: tuple[np.ndarray, np.ndarray, np.ndarray], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss per sample in nats; `progress` is not used."""
        d = self.module.dims
        device = self.module.I.weight.device
        samples, mel = torch.from_numpy(batch[0]), torch.from_numpy(batch[1])
        if d.prediction_order:
            inputs, labels = self._excitation(samples, mel, *batch[2:])
        elif d.mode == "RAW":
            labels = mu_law_encode(samples, d.bits)
            inputs = F.pad(label_to_coded(labels, d.bits), (1, -1))
        else:
            labels = samples
            inputs = F.pad(samples, (1, -1))
        outputs = self.module(inputs.to(device), mel.to(device))
        if d.mode == "RAW":
            loss = F.cross_entropy(outputs.flatten(0, 1), labels.flatten().to(device))
        else:
            loss = logistic_mixture_loss(outputs, labels.to(device))
        return loss, {"nats": loss.detach()}

    def _excitation(self, samples: Tensor, mel: Tensor, noise: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs (B, n, inputs) and labels (B, n) of a generation that is forced back to the true waveform."""
        d = self.module.dims
        # frames of the segment's first to last sample: the padding's share is left out
        known = predict(mel[:, :, d.pad : mel.shape[2] - d.pad + 1], d.prediction_order, d.hop)
        inputs, labels = _force(
            samples.numpy(),
            *(x.numpy() for x in known),
            noise,
            d.pitch_reach,
            d.excitation_range,
            d.bits,
            seed,
        )
        return torch.from_numpy(inputs), torch.from_numpy(labels)


@numba.njit(cache=True, fastmath=True)
def _force(samples, coefficients, level, period, noise, reach, scale, bits, seed):
    """For each segment: predict, measure the excitation, code it, disturb it, and go on from there.

    Args: samples (B, order + n), the first `order` as history; coefficients (B, steps, order);
    level, period (B, steps); noise (B,).
    """
    np.random.seed(seed)
    batch, steps, order = coefficients.shape
    n = samples.shape[1] - order
    step = n // steps
    mu = 2.0**bits - 1
    log_mu = np.log1p(mu)
    before = PITCH_PERIODS[1] + reach
    inputs = np.empty((batch, n, 4 + 2 * reach), np.float32)
    labels = np.empty((batch, n), np.int64)
    for b in range(batch):
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
    log_scales = log_scales.clamp(min=-7.0)
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
