"""How the waveform is coded before a network sees it."""

import math

import torch
from torch import Tensor

PREEMPHASIS = 0.97
MIN_LOG_SCALE = -12.0  # of a logistic of mode MOL: a fifth of a 16-bit level, which nothing narrower can tell from it


def mu_law_encode(samples: Tensor, bits: int) -> Tensor:
    """Samples in [-1, 1] -> labels 0 to 2**bits - 1 (ITU-T G.711's law with mu = 2**bits - 1)."""
    mu = 2**bits - 1
    x = samples.clamp(-1, 1)
    coded = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    return ((coded + 1) / 2 * mu + 0.5).long()


def label_to_coded(label: Tensor, bits: int) -> Tensor:
    """Labels -> [-1, 1], still on the mu-law's scale: what the network is told of the past."""
    return 2 * label.float() / (2**bits - 1) - 1


def mu_law_expand(coded: Tensor, bits: int) -> Tensor:
    """[-1, 1] on the mu-law's scale -> samples in [-1, 1]."""
    mu = 2**bits - 1
    return coded.sign() * torch.expm1(coded.abs() * math.log1p(mu)) / mu
