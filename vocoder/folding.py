"""Generating one long waveform as a batch of overlapping pieces ("folds").

A recurrent vocoder makes one sample after the other; cut into folds it makes one sample of every
fold at a time. Folds overlap: the first half of an overlap lets a fold's recurrent state warm up
and stays unheard, the second half is cross-faded with the fold before.

    fold 0  |<- overlap ->|<------ target ------>|<- overlap ->|
    fold 1                                       |<- overlap ->|<------ target ------>| ...
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear_prediction import PITCH_PERIODS, Prediction
from .mu_law import MIN_LOG_SCALE, label_to_coded, mu_law_expand

_BLOCK = 250  # samples whose random numbers and conditioning are prepared at once


def draw(
    model: nn.Module,
    mels: Tensor,
    features: Tensor,
    prediction: Prediction | None,
    seed: int,
    target: int,
    overlap: int,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Samples (n,) before de-emphasis, drawn from a `WaveRNN`.

    Args:
        mels: (n, mels), the smoothed mel at the sample rate.
        features: (n / hop, res_out), of the residual network, per frame.
        prediction: None if the network models the waveform itself.
        target, overlap: samples per fold and of the cross-fades between folds.
    """
    n = mels.shape[0]
    conditions = [mels, features.repeat_interleave(model.dims.hop, dim=0)]
    if prediction is not None:
        per_step = torch.cat([prediction.coefficients, torch.stack(prediction[1:], dim=1)], dim=1)
        conditions.append(per_step.repeat_interleave(n // len(per_step), dim=0))
    folds = fold(torch.cat(conditions, dim=1), target, overlap)
    return unfold(_draw_folds(model, folds, seed, progress), overlap)[:n]


def fold(x: Tensor, target: int, overlap: int) -> Tensor:
    """(n, features) -> (folds, target + 2 * overlap, features), zeros behind the end."""
    stride = target + overlap
    folds = max(1, -(-(x.shape[0] - overlap) // stride))
    padded = F.pad(x, (0, 0, 0, folds * stride + overlap - x.shape[0]))
    return padded.unfold(0, stride + overlap, stride).transpose(1, 2)


def unfold(folds: Tensor, overlap: int) -> Tensor:
    """(folds, target + 2 * overlap) samples -> (folds * (target + overlap) + overlap,), cross-faded."""
    count, size = folds.shape
    stride = size - overlap
    unheard = overlap // 2
    ramp = torch.linspace(0, 1, overlap - unheard, dtype=folds.dtype, device=folds.device)
    fade_in = torch.cat([ramp.new_zeros(unheard), ramp.sqrt()])  # equal power: the folds are independent
    faded = folds.clone()
    faded[1:, :overlap] *= fade_in
    faded[:-1, -overlap:] *= torch.cat([ramp.new_ones(unheard), (1 - ramp).sqrt()])
    samples = folds.new_zeros(count * stride + overlap)
    for i in range(count):
        samples[i * stride : i * stride + size] += faded[i]
    return samples


def _draw_folds(model: nn.Module, conditions: Tensor, seed: int, progress: Callable[[float], None] | None) -> Tensor:
    """Draws all folds side by side: (folds, n, features) -> (folds, n)."""
    d = model.dims
    aux = d.res_out // 4
    folds, n, _ = conditions.shape
    mels, a1, a2, a3, a4, prediction = conditions.split(
        [d.mels, aux, aux, aux, aux, conditions.shape[2] - d.mels - d.res_out], dim=2
    )
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on every device
    gru1, gru2 = (
        (gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0) for gru in (model.rnn1, model.rnn2)
    )
    h1 = h2 = conditions.new_zeros(folds, d.rnn)
    told = conditions.new_zeros(folds, 1)
    past = conditions.new_zeros(folds, max(d.prediction_order, 1))
    samples = conditions.new_empty(n, folds)
    if d.prediction_order:
        reach = torch.arange(-d.pitch_reach, d.pitch_reach + 1, device=conditions.device)
        heard = conditions.new_zeros(folds, PITCH_PERIODS[1] + d.pitch_reach + n)  # coded, of all time
    for start in range(0, n, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        heading = torch.cat([mels[:, block], a1[:, block]], dim=2)
        known = F.linear(heading, model.I.weight[:, d.inputs :], model.I.bias)
        noise = torch.rand(known.shape[1], folds, 2, generator=generator).to(known)
        if d.prediction_order:
            now = torch.arange(start, block.stop, device=conditions.device) + heard.shape[1] - n
            # a period may be shorter than the reach only where a fold is padded with zeros
            ago = prediction[:, block, -1].long().clamp(min=d.pitch_reach + 1)
            places = (now - ago)[..., None] + reach
        for i in range(known.shape[1]):
            t = start + i
            if d.prediction_order:
                level = prediction[:, t, -2].clamp(min=1e-8)
                predicted = (past * prediction[:, t, :-2]).sum(dim=1)
                scaled = torch.stack([predicted, past[:, 0]], dim=1) / level[:, None]
                told = torch.cat([told, scaled, heard.gather(1, places[:, i])], dim=1)
            x = known[:, i] + told @ model.I.weight[:, : d.inputs].T
            h1 = torch.gru_cell(x, h1, *gru1)
            x = x + h1
            h2 = torch.gru_cell(torch.cat([x, a2[:, t]], dim=1), h2, *gru2)
            x = x + h2
            x = F.relu(model.fc1(torch.cat([x, a3[:, t]], dim=1)))
            x = F.relu(model.fc2(torch.cat([x, a4[:, t]], dim=1)))
            coded = _pick(model.fc3(x), noise[i], d)
            if d.prediction_order:
                sample = predicted + mu_law_expand(coded, d.bits) * d.excitation_range * level
                past = torch.cat([sample[:, None], past[:, :-1]], dim=1)
                heard[:, t + heard.shape[1] - n] = coded
            else:
                sample = mu_law_expand(coded, d.bits) if d.mode == "RAW" else coded
            told = coded[:, None]
            samples[t] = sample
        if progress:
            progress(block.stop / n)
    return samples.T


def _pick(outputs: Tensor, noise: Tensor, dims) -> Tensor:
    """Coded samples (B,) in [-1, 1] from outputs (B, outputs), by inversion of uniform noise (B, 2)."""
    if dims.mode == "RAW":
        cumulated = (outputs / dims.temperature).softmax(dim=1).cumsum(dim=1)
        label = (cumulated < noise[:, :1] * cumulated[:, -1:]).sum(dim=1)
        return label_to_coded(label, dims.bits)
    logits, means, log_scales = outputs.unflatten(1, (3, -1)).unbind(dim=1)
    cumulated = logits.softmax(dim=1).cumsum(dim=1)
    which = (cumulated < noise[:, :1] * cumulated[:, -1:]).sum(dim=1, keepdim=True)
    u = noise[:, 1:].clamp(1e-5, 1 - 1e-5)
    scale = log_scales.gather(1, which).clamp(min=MIN_LOG_SCALE).exp()
    return (means.gather(1, which) + scale * (u.log() - (1 - u).log()))[:, 0].clamp(-1, 1)
