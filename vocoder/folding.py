"""Generating one long waveform as a batch of overlapping pieces ("folds").

A recurrent vocoder makes one sample after the other; cut into folds it makes one sample of every
fold at a time. Folds overlap: the first half of an overlap lets a fold's recurrent state warm up
and stays unheard, the second half is cross-faded with the fold before.

    fold 0  |<- overlap ->|<------ target ------>|<- overlap ->|
    fold 1                                       |<- overlap ->|<------ target ------>| ...
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
