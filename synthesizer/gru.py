"""A GRU over a text or a spectrogram in both directions.

On a GPU that is the library's fused recurrence, once for each direction. On a CPU the library goes through time by
some ten small operations a step and keeps a record of each for the gradient, which costs more than the arithmetic of
recurrences as narrow as these. Here both directions take a step in one product, and the gradient is written out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def run_both_ways(rnn: nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, features) -> (B, T, 2 hidden), of which only the first `lengths` (B,) steps count; 0 behind.

    Each item is turned around by itself. Packed sequences do the same, but on a CPU their gradient
    takes time that grows with the square of T.
    """
    step = torch.arange(x.shape[1], device=x.device)
    last = lengths.to(x.device)[:, None] - 1
    turned = torch.where(step <= last, last - step, step)[..., None]

    def turn(values: Tensor) -> Tensor:
        return values.gather(1, turned.expand_as(values))

    run = _run_by_library if x.is_cuda else _run_side_by_side
    onward, back = run(rnn, x, turn(x))
    return torch.cat([onward, turn(back)], dim=2) * (step <= last)[..., None]


def _run_by_library(rnn: nn.GRU, onward: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    def run(values: Tensor, weights: list[Tensor]) -> Tensor:
        start = values.new_zeros(1, values.shape[0], rnn.hidden_size)
        return torch.gru(values, start, weights, True, 1, 0.0, rnn.training, False, True)[0]

    return run(onward, rnn.all_weights[0]), run(back, rnn.all_weights[1])


def _run_side_by_side(rnn: nn.GRU, onward: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    ways = zip((onward, back), rnn.all_weights, strict=True)
    given = torch.stack([F.linear(x.transpose(0, 1), w[0], w[2]) for x, w in ways], dim=1)  # (T, 2, B, 3 hidden)
    own, bias = (torch.stack(w) for w in zip(*(w[1::2] for w in rnn.all_weights), strict=True))
    states = _Recurrence.apply(torch.is_grad_enabled(), given, own, bias)
    return states[:, 0].transpose(0, 1), states[:, 1].transpose(0, 1)


class _Recurrence(torch.autograd.Function):
    """What the input gives the gates (T, G, B, 3 hidden), weights (G, 3 hidden, hidden) and biases (G, 3 hidden) of the
    state's own part, to the states (T, G, B, hidden) of G recurrences side by side. Gates: reset, update, new."""

    @staticmethod
    def forward(ctx, learning, given, own, bias):
        steps, ways, items, gates = given.shape
        size = gates // 3
        across, bias = own.transpose(1, 2), bias[:, None]
        hidden = given.new_zeros(ways, items, size)
        states, gated, recalled = given.new_empty(steps, ways, items, size), torch.empty_like(given), []
        for outer, kept, state in zip(given.unbind(), gated.unbind(), states.unbind(), strict=True):
            inner = torch.baddbmm(bias, hidden, across)
            both, new = kept[..., : 2 * size], kept[..., 2 * size :]
            torch.add(outer[..., : 2 * size], inner[..., : 2 * size], out=both).sigmoid_()
            torch.addcmul(outer[..., 2 * size :], both[..., :size], inner[..., 2 * size :], out=new).tanh_()
            hidden = torch.lerp(new, hidden, both[..., size:], out=state)
            if learning:
                recalled.append(inner[..., 2 * size :])
        if learning:
            ctx.save_for_backward(own, states, gated, torch.stack(recalled))
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_states):
        own, states, gated, recalled = ctx.saved_tensors
        before = F.pad(states[:-1], (0, 0, 0, 0, 0, 0, 1, 0))
        reset, update, new = gated.unflatten(-1, (3, -1)).unbind(dim=-2)
        # What a gradient of the state is multiplied by to become one of the gates, for all steps at once.
        to_new = (1 - update) * (1 - new * new)
        slopes = torch.stack(
            [to_new * recalled * reset * (1 - reset), (before - new) * update * (1 - update), to_new * reset], dim=-2
        )
        to_own = torch.empty_like(slopes)  # (T, G, B, 3, hidden)
        to_state, to_states = torch.zeros_like(states[0]), torch.empty_like(states)
        for step in reversed(range(len(states))):
            to_state = torch.add(to_state, grad_states[step], out=to_states[step])
            torch.mul(to_state[..., None, :], slopes[step], out=to_own[step])
            to_state = torch.baddbmm(to_state * update[step], to_own[step].flatten(-2), own)
        to_given = to_own.clone()
        to_given[..., 2, :] = to_states * to_new
        to_own = to_own.flatten(-2).transpose(0, 1).flatten(1, 2)  # (G, T B, 3 hidden)
        to_weights = to_own.transpose(1, 2) @ before.transpose(0, 1).flatten(1, 2)
        return None, to_given.flatten(-2), to_weights, to_own.sum(dim=1)
