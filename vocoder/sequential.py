"""Generation on a CPU, one sample after the other without folds.

A narrow network's step is far cheaper than the dozens of library calls it is made of. Compiled as
one loop it keeps up with real time on a single core, and there are no folds to cross-fade.
"""

import math
from collections.abc import Callable

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear_prediction import Prediction

_BLOCK = 4000  # samples between two reports of progress


def draw(
    model: nn.Module,
    mels: Tensor,
    features: Tensor,
    prediction: Prediction | None,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Samples (n,) before de-emphasis, drawn from a `WaveRNN` of mode RAW.

    Args:
        mels: (n, mels), the smoothed mel at the sample rate.
        features: (n / hop, res_out), of the residual network, per frame.
        prediction: None if the network models the waveform itself.
    """
    d = model.dims
    n = mels.shape[0]
    a1, a2, a3, a4 = features.chunk(4, dim=1)
    weights = [w.numpy() for w in _split_weights(model)]
    # What does not depend on the past is computed for all samples, or all frames, at once.
    aux = d.res_out // 4
    known = F.linear(mels, model.I.weight[:, d.inputs : d.inputs + d.mels], model.I.bias)
    known += F.linear(a1, model.I.weight[:, -aux:]).repeat_interleave(d.hop, dim=0)
    per_frame = [
        F.linear(a2, model.rnn2.weight_ih_l0[:, d.rnn :], model.rnn2.bias_ih_l0),
        F.linear(a3, model.fc1.weight[:, d.rnn :], model.fc1.bias),
        F.linear(a4, model.fc2.weight[:, d.fc :], model.fc2.bias),
    ]
    if prediction is None:
        coefficients, level, period = np.zeros((1, 0), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
        reach, scale = 0, 1.0
    else:
        coefficients, level, period = (x.numpy() for x in prediction)
        reach, scale = d.pitch_reach, d.excitation_range
    noise = torch.rand(n, generator=torch.Generator().manual_seed(seed)).numpy()
    state = np.zeros((2, d.rnn), np.float32)
    coded = np.zeros(n, np.float32)
    samples = np.zeros(n, np.float32)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        _advance(
            *(start, stop, known.numpy(), *(x.numpy() for x in per_frame), d.hop, coefficients, level, period),
            *(reach, scale, d.bits, np.float32(1 / d.temperature), noise, state, coded, samples, *weights),
        )
        if progress:
            progress(stop / n)
    return torch.from_numpy(samples)


def _split_weights(model: nn.Module) -> list[Tensor]:
    """The parts of the weights that meet the past, in the order of `_advance`'s arguments."""
    d = model.dims
    parts = [
        model.I.weight[:, : d.inputs],
        *(model.rnn1.weight_ih_l0, model.rnn1.weight_hh_l0, model.rnn1.bias_ih_l0, model.rnn1.bias_hh_l0),
        *(model.rnn2.weight_ih_l0[:, : d.rnn], model.rnn2.weight_hh_l0, model.rnn2.bias_hh_l0),
        *(model.fc1.weight[:, : d.rnn], model.fc2.weight[:, : d.fc], model.fc3.weight, model.fc3.bias),
    ]
    return [part.contiguous() for part in parts]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _add_product(out, matrix, vector):
    """out += matrix @ vector."""
    for i in range(matrix.shape[0]):
        total = np.float32(0.0)
        for j in range(matrix.shape[1]):
            total += matrix[i, j] * vector[j]
        out[i] += total


# The library's exp and tanh are called for one number at a time, and cost a step a tenth to a seventh more.
# What follows is arithmetic alone, which the compiler does for eight numbers at once; all of it in
# float32, as a plain number among the factors would make float64 of it.
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)
_ABOVE = tuple(np.float32(c) for c in (378, 17325, 135135))
_BELOW = tuple(np.float32(c) for c in (28, 3150, 62370, 135135))
_SERIES = tuple(np.float32(1 / math.factorial(n)) for n in (5, 4, 3, 2))
_LARGEST_TANH, _LEAST_EXP, _DIVISOR = np.float32(10), np.float32(-40), np.float32(1 / 64)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _tanh(x):
    """Within 1e-6: Lambert's continued fraction at x / 2, cut after seven terms, and the double argument from there."""
    half = min(max(x, -_LARGEST_TANH), _LARGEST_TANH) * _HALF
    square = half * half
    above = half * (((square + _ABOVE[0]) * square + _ABOVE[1]) * square + _ABOVE[2])
    below = ((_BELOW[0] * square + _BELOW[1]) * square + _BELOW[2]) * square + _BELOW[3]
    return _TWO * above * below / (below * below + above * above)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _sigmoid(x):
    return _HALF + _HALF * _tanh(_HALF * x)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _exp_of_negative(x):
    """To a part in 30,000 down to -15, to a hundredth at -40 and as there below: the series at x / 64, to the 64th."""
    y = max(x, _LEAST_EXP) * _DIVISOR
    y = _ONE + y * (_ONE + y * (_SERIES[3] + y * (_SERIES[2] + y * (_SERIES[1] + y * _SERIES[0]))))
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    return y * y


@numba.njit(cache=True, fastmath=True, nogil=True)
def _gru(x, h, gates, memory, weight_ih, weight_hh, bias_hh):
    """One step of a GRU, in place on h; `gates` holds the input's bias when it comes in."""
    size = h.shape[0]
    _add_product(gates, weight_ih, x)
    memory[:] = bias_hh
    _add_product(memory, weight_hh, h)
    for i in range(size):
        reset = _sigmoid(gates[i] + memory[i])
        update = _sigmoid(gates[size + i] + memory[size + i])
        new = _tanh(gates[2 * size + i] + reset * memory[2 * size + i])
        h[i] = (1 - update) * new + update * h[i]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _advance(
    start, stop, known, for_rnn2, for_fc1, for_fc2, hop, coefficients, level, period, reach, scale, bits, sharpness,
    noise, state, coded, samples, w_told, w_ih1, w_hh1, b_ih1, b_hh1, w_ih2, w_hh2, b_hh2, w_fc1, w_fc2, w_fc3, b_fc3,
):  # fmt: skip
    """Draws samples[start:stop]; `state`, `coded` and `samples` hold what came before and are written to."""
    rnn, fc, classes, inputs = state.shape[1], w_fc1.shape[0], w_fc3.shape[0], w_told.shape[1]
    order = coefficients.shape[1]
    step = known.shape[0] // level.shape[0]
    mu = np.float32(2**bits - 1)
    log_mu = np.log1p(mu)
    told = np.zeros(inputs, np.float32)
    x = np.empty(rnn, np.float32)
    y, z = np.empty(fc, np.float32), np.empty(fc, np.float32)
    gates, memory = np.empty(3 * rnn, np.float32), np.empty(3 * rnn, np.float32)
    mass = np.empty(classes, np.float32)
    for t in range(start, stop):
        frame, at = t // hop, min(t // step, level.shape[0] - 1)
        told[0] = coded[t - 1] if t else 0.0
        predicted = np.float32(0.0)
        unit = np.float32(1.0)
        if order:
            unit = max(level[at], np.float32(1e-8))
            for k in range(min(order, t)):
                predicted += coefficients[at, k] * samples[t - 1 - k]
            told[1] = predicted / unit
            told[2] = samples[t - 1] / unit if t else 0.0
            for k in range(2 * reach + 1):
                place = t - period[at] - reach + k
                told[3 + k] = coded[place] if place >= 0 else 0.0
        x[:] = known[t]
        _add_product(x, w_told, told)
        gates[:] = b_ih1
        _gru(x, state[0], gates, memory, w_ih1, w_hh1, b_hh1)
        x += state[0]
        gates[:] = for_rnn2[frame]
        _gru(x, state[1], gates, memory, w_ih2, w_hh2, b_hh2)
        x += state[1]
        y[:] = for_fc1[frame]
        _add_product(y, w_fc1, x)
        y[:] = np.maximum(y, np.float32(0.0))
        z[:] = for_fc2[frame]
        _add_product(z, w_fc2, y)
        z[:] = np.maximum(z, np.float32(0.0))
        mass[:] = b_fc3
        _add_product(mass, w_fc3, z)
        highest = mass.max()
        total = np.float32(0.0)
        for k in range(classes):
            mass[k] = _exp_of_negative((mass[k] - highest) * sharpness)
            total += mass[k]
        left = noise[t] * total
        label = 0
        while label < classes - 1 and left >= mass[label]:
            left -= mass[label]
            label += 1
        coded[t] = 2 * label / mu - 1
        expanded = np.sign(coded[t]) * np.expm1(abs(coded[t]) * log_mu) / mu
        samples[t] = predicted + expanded * scale * unit
