"""Location-sensitive attention (Chorowski et al., 2015), with the recurrence that asks it where to look.

The recurrence is the one part of a teacher-forced Tacotron that must go step by step. All that does
not depend on the step before is done for all steps at once, and the gradient is written out: taken
from records of some twenty small operations a step, it costs more than the arithmetic.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Weights(NamedTuple):
    """What a step multiplies by.

    Attributes:
        seen: (3 hidden, text), of the gates, from the text attended to by the step before.
        hidden, hidden_bias: (3 hidden, hidden), (3 hidden,), of the gates.
        query: (features, hidden), doubled.
        location: (features, kernel), from the attention so far; convolution and projection in one, doubled.
        score: (features,).

    Twice the energies are what is computed: tanh(x) = 2 sigmoid(2 x) - 1, and a CPU has the sigmoid three times as
    fast; the 1 is lost in the softmax.
    """

    seen: Tensor
    hidden: Tensor
    hidden_bias: Tensor
    query: Tensor
    location: Tensor
    score: Tensor


class State(NamedTuple):
    """What a step hands on.

    Attributes:
        hidden: (B, hidden) of the recurrence.
        seen: (B, text), the mean of the text by the weights of attention.
        attended: (B, T), the sum of all weights so far.
    """

    hidden: Tensor
    seen: Tensor
    attended: Tensor

    @classmethod
    def start(cls, hidden: int, text: Tensor) -> "State":
        return cls(text.new_zeros(len(text), hidden), torch.zeros_like(text[:, 0]), torch.zeros_like(text[..., 0]))


class LocationSensitiveAttention(nn.Module):
    """The weights, laid out as published."""

    def __init__(self, features: int, filters: int = 32, kernel: int = 31):
        super().__init__()
        self.conv = nn.Conv1d(1, filters, kernel, padding=(kernel - 1) // 2)
        self.L = nn.Linear(filters, features, bias=False)
        self.W = nn.Linear(features, features)
        self.v = nn.Linear(features, 1, bias=False)

    def keys(self, text: Tensor) -> Tensor:
        """(B, T, features), the text as projected for comparison, to keys with all biases added, doubled."""
        return 2 * (text + self.W.bias + self.L.weight @ self.conv.bias)

    def weights(self, cell: nn.GRUCell, text: int) -> Weights:
        """Of this attention and the `cell` that asks it, whose first `text` inputs are those of the text."""
        location = 2 * self.L.weight @ self.conv.weight[:, 0]
        hidden = (cell.weight_hh, cell.bias_hh)
        return Weights(cell.weight_ih[:, :text], *hidden, 2 * self.W.weight, location, self.v.weight[0])


def attend(
    state: State, gates: Tensor, text: Tensor, keys: Tensor, outside: Tensor, weights: Weights
) -> tuple[State, Tensor, tuple[Tensor, ...]]:
    """One step.

    Args:
        gates: (B, 3 hidden), what the gates get from elsewhere than the text and the hidden state.
        text: (B, T, text).
        keys: (B, T, features), see `LocationSensitiveAttention.keys`.
        outside: (B, T), True behind each item's end.

    Returns:
        The new state, the weights of attention (B, T), and what the gradient needs.
    """
    size = state.hidden.shape[1]
    given = gates + state.seen @ weights.seen.T
    own = torch.addmm(weights.hidden_bias, state.hidden, weights.hidden.T)
    reset, update = torch.sigmoid(given[:, : 2 * size] + own[:, : 2 * size]).chunk(2, dim=1)
    recalled = own[:, 2 * size :]
    new = torch.tanh(given[:, 2 * size :] + reset * recalled)
    hidden = new + update * (state.hidden - new)
    near = _windows(state.attended, weights.location.shape[1])
    energy = keys + (hidden @ weights.query.T)[:, None]
    energy.flatten(0, 1).addmm_(near.flatten(0, 1), weights.location.T)
    energy.sigmoid_()
    share = (energy @ (2 * weights.score)).masked_fill(outside, -torch.inf).softmax(dim=1)
    seen = torch.bmm(share[:, None], text)[:, 0]
    return State(hidden, seen, state.attended + share), share, (reset, update, recalled, new, energy)


def attend_all(
    gates: Tensor, text: Tensor, keys: Tensor, outside: Tensor, weights: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """`attend` for all steps: `gates` (B, steps, 3 hidden) in, hidden states (B, steps, hidden), texts seen
    (B, steps, text) and weights of attention (B, steps, T) out. Computed in float32, whatever the autocast."""
    with torch.autocast(gates.device.type, enabled=False):
        values = (x if x.dtype == torch.bool else x.float() for x in (gates, text, keys, outside, *weights))
        return _AttendAll.apply(torch.is_grad_enabled(), *values)


class _AttendAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, learning, gates, text, keys, outside, *weights):
        weights = Weights(*weights)
        states, shares, records = [State.start(weights.hidden.shape[1], text)], [], []
        for gate in gates.unbind(dim=1):
            state, share, record = attend(states[-1], gate, text, keys, outside, weights)
            states.append(state)
            shares.append(share)
            if learning:
                records.append(record)
        hidden, seen, attended = (torch.stack(x, dim=1) for x in zip(*states, strict=True))
        shares = torch.stack(shares, dim=1)
        if learning:
            ctx.records = records
            ctx.save_for_backward(text, hidden, seen, attended, shares, *weights)
        return hidden[:, 1:], seen[:, 1:], shares

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_hidden, grad_seen, grad_shares):
        text, hidden, seen, attended, shares, *weights = ctx.saved_tensors
        weights = Weights(*weights)
        width, text_across = weights.location.shape[1], text.transpose(1, 2).contiguous()
        *gates, energies = zip(*ctx.records, strict=True)
        resets, updates, recalled, news = (torch.stack(x, dim=1) for x in gates)
        # What a gradient of the hidden state is multiplied by to become one of the gates, for all steps at once.
        to_new = (1 - updates) * (1 - news * news)
        to_update = (hidden[:, :-1] - news) * updates * (1 - updates)
        slopes = torch.stack([to_new * recalled * resets * (1 - resets), to_update, to_new], dim=2)
        share_of_own = F.pad(resets, (2 * resets.shape[2], 0), value=1.0)  # the new state meets its own part reset
        twice_score = 2 * weights.score
        shapes = energies[0].shape, weights.location.shape, weights.score.shape
        to_hidden, to_seen, to_attended = (torch.zeros_like(x[:, 0]) for x in (hidden, seen, attended))
        to_keys, to_location, to_score = (torch.zeros(x, device=text.device) for x in shapes)
        to_given, to_own, to_query, seen_total = [], [], [], []  # of each step, the last one first
        for t in reversed(range(shares.shape[1])):
            energy, share = energies[t], shares[:, t]
            # through the mean of the text, the softmax and the scores
            to_seen = to_seen + grad_seen[:, t]
            to_share = grad_shares[:, t] + to_attended + torch.bmm(to_seen[:, None], text_across)[:, 0]
            to_scores = torch.ops.aten._softmax_backward_data(to_share, share, 1, share.dtype)
            to_score.addmv_(energy.flatten(0, 1).T, to_scores.flatten(), alpha=2)
            to_energy = torch.ops.aten.sigmoid_backward(to_scores[..., None] * twice_score, energy)
            # to what the energies are a sum of
            to_keys += to_energy
            asked = to_energy.sum(dim=1)
            near = _windows(attended[:, t], width)
            to_location.addmm_(to_energy.flatten(0, 1).T, near.flatten(0, 1))
            to_attended = to_attended + _sum_windows(to_energy @ weights.location)
            # through the gates
            to_hidden = torch.addmm(to_hidden + grad_hidden[:, t], asked, weights.query)
            given = (to_hidden[:, None] * slopes[:, t]).flatten(1)
            own = given * share_of_own[:, t]
            to_given.append(given)
            to_own.append(own)
            to_query.append(asked)
            seen_total.append(to_seen)
            to_hidden = torch.addmm(to_hidden * updates[:, t], own, weights.hidden)
            to_seen = given @ weights.seen
        to_given, to_own, to_query, seen_total = (
            torch.stack(x[::-1], dim=1) for x in (to_given, to_own, to_query, seen_total)
        )
        return (
            None,
            to_given,
            shares.transpose(1, 2) @ seen_total,
            to_keys,
            None,
            _outer(to_given, seen[:, :-1]),
            _outer(to_own, hidden[:, :-1]),
            to_own.sum(dim=(0, 1)),
            _outer(to_query, hidden[:, 1:]),
            to_location,
            to_score,
        )


def _windows(attended: Tensor, width: int) -> Tensor:
    """(B, T) -> (B, T, width): what lies around each place."""
    return F.pad(attended, (width // 2, width // 2)).unfold(1, width, 1)


def _sum_windows(windows: Tensor) -> Tensor:
    """The gradient of `_windows`: (B, T, width) -> (B, T), each value added to the place it was taken from."""
    items, places, width = windows.shape
    room = places + width - 1
    apart = windows.new_zeros(items, places, room)  # row t holds the window around t, moved to where it belongs
    apart.as_strided((items, places, width), (places * room, room + 1, 1)).copy_(windows)
    return apart.sum(dim=1)[:, width // 2 : width // 2 + places]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """(B, steps, m), (B, steps, n) -> (m, n), summed over items and steps."""
    return left.flatten(0, 1).T @ right.flatten(0, 1)
