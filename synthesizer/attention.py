"""Location-sensitive attention (Chorowski et al., 2015), with the recurrence that asks it where to look.

The recurrence is the one part of a teacher-forced Tacotron that must go step by step. All that does
not depend on the step before is done for all steps at once, and the gradient is written out: taken
from records of some twenty small operations a step, it costs more than the arithmetic. A GPU takes longer
to be told of such an operation than to do it, so there a stretch of steps is told once and replayed.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graphs import Replayed

_STRETCH = 32  # steps that a GPU is told of at once
_PLACES = 32  # there, texts are as long as a multiple of this, so that few lengths have to be told


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
    state: State,
    gates: Tensor,
    text: Tensor,
    keys: Tensor,
    outside: Tensor,
    weights: Weights,
    energy: Tensor | None = None,
) -> tuple[State, Tensor, tuple[Tensor, ...]]:
    """One step.

    Args:
        gates: (B, 3 hidden), what the gates get from elsewhere than the text and the hidden state.
        text: (B, T, text).
        keys: (B, T, features), see `LocationSensitiveAttention.keys`.
        outside: (B, T), True behind each item's end.
        energy: where to write what is scored, (B, T, features).

    Returns:
        The new state, the weights of attention (B, T), and what the gradient needs of the gates.
    """
    size = state.hidden.shape[1]
    given = gates + state.seen @ weights.seen.T
    own = torch.addmm(weights.hidden_bias, state.hidden, weights.hidden.T)
    reset, update = torch.sigmoid(given[:, : 2 * size] + own[:, : 2 * size]).chunk(2, dim=1)
    recalled = own[:, 2 * size :]
    new = torch.tanh(given[:, 2 * size :] + reset * recalled)
    hidden = new + update * (state.hidden - new)
    near = _windows(state.attended, weights.location.shape[1])
    energy = torch.add(keys, (hidden @ weights.query.T)[:, None], out=energy)
    energy.flatten(0, 1).addmm_(near.flatten(0, 1), weights.location.T)
    energy.sigmoid_()
    share = (energy @ (2 * weights.score)).masked_fill(outside, -torch.inf).softmax(dim=1)
    seen = torch.bmm(share[:, None], text)[:, 0]
    return State(hidden, seen, state.attended + share), share, (reset, update, recalled, new)


def attend_all(
    gates: Tensor, text: Tensor, keys: Tensor, outside: Tensor, weights: Weights, stretch: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """`attend` for all steps: `gates` (B, steps, 3 hidden) in, hidden states (B, steps, hidden), texts seen
    (B, steps, text) and weights of attention (B, steps, T) out. Computed in float32, whatever the autocast.

    Args:
        stretch: steps that are run at once; if not given, `_STRETCH` on a GPU, elsewhere all.
    """
    places = text.shape[1]
    if gates.is_cuda:
        stretch = stretch or _STRETCH
        more = -places % _PLACES
        text, keys = (F.pad(x, (0, 0, 0, more)) for x in (text, keys))
        outside = F.pad(outside, (0, more), value=True)
    with torch.autocast(gates.device.type, enabled=False):
        values = (x if x.dtype == torch.bool else x.float() for x in (gates, text, keys, outside, *weights))
        hidden, seen, shares = _AttendAll.apply(torch.is_grad_enabled(), stretch or gates.shape[1], *values)
    return hidden, seen, shares[:, :, :places]


class _AttendAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, learning, stretch, gates, text, keys, outside, *weights):
        state, outputs, records = State.start(Weights(*weights).hidden.shape[1], text), [], []
        for some in _split(gates, stretch):
            record = _run(_onward, learning, *state, some, text, keys, outside, *weights)
            hidden, seen, attended, shares = record[:4]
            state = State(hidden[:, -1], seen[:, -1], attended[:, -1])
            outputs.append((hidden[:, 1:], seen[:, 1:], shares))
            records.append(record)
        if learning:
            ctx.steps, ctx.stretch, ctx.records = gates.shape[1], stretch, records
            ctx.save_for_backward(text, *weights)
        return tuple(torch.cat(x, dim=1)[:, : gates.shape[1]] for x in zip(*outputs, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads):
        to_state = [torch.zeros_like(x[:, 0]) for x in ctx.records[0][:3]]
        grads = list(zip(*(_split(x, ctx.stretch) for x in grads), strict=True))
        to_gates, totals = [], None
        for some, record in zip(reversed(grads), reversed(ctx.records), strict=True):
            told = _run(_back, *to_state, *some, *record, *ctx.saved_tensors)
            to_state, sums = told[:3], told[4:]
            to_gates.append(told[3])
            totals = sums if totals is None else [x + y for x, y in zip(totals, sums, strict=True)]
        to_text, to_keys, *to_weights = totals
        to_gates = torch.cat(to_gates[::-1], dim=1)[:, : ctx.steps]
        return None, None, to_gates, to_text, to_keys, None, *to_weights


def _split(values: Tensor, stretch: int) -> tuple[Tensor, ...]:
    """(B, steps, features) in parts of `stretch` steps, with zeros behind the end."""
    return F.pad(values, (0, 0, 0, -values.shape[1] % stretch)).split(stretch, dim=1)


def _run(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor | bool) -> tuple[Tensor, ...]:
    return (_replayed(function) if arguments[-1].is_cuda else function)(*arguments)


_replayed = functools.cache(Replayed)


def _onward(
    learning: bool,
    hidden: Tensor,
    seen: Tensor,
    attended: Tensor,
    gates: Tensor,
    text: Tensor,
    keys: Tensor,
    outside: Tensor,
    *weights: Tensor,
) -> tuple[Tensor, ...]:
    """Some steps from a state on: all states, that one first, the weights of attention and, for `_back`, what else
    there was at each step."""
    weights = Weights(*weights)
    states, shares, records = [State(hidden, seen, attended)], [], []
    steps = gates.unbind(dim=1)
    energies = keys.new_empty(len(steps), *keys.shape) if learning else [None] * len(steps)
    for gate, energy in zip(steps, energies, strict=True):
        state, share, record = attend(states[-1], gate, text, keys, outside, weights, energy)
        states.append(state)
        shares.append(share)
        records.append(record)
    stacked = (torch.stack(x, dim=1) for x in (*zip(*states, strict=True), shares))
    if not learning:
        return tuple(stacked)
    return *stacked, *(torch.stack(x, dim=1) for x in zip(*records, strict=True)), energies


def _back(
    to_hidden: Tensor,
    to_seen: Tensor,
    to_attended: Tensor,
    grad_hidden: Tensor,
    grad_seen: Tensor,
    grad_shares: Tensor,
    hidden: Tensor,
    seen: Tensor,
    attended: Tensor,
    shares: Tensor,
    resets: Tensor,
    updates: Tensor,
    recalled: Tensor,
    news: Tensor,
    energies: Tensor,
    text: Tensor,
    *weights: Tensor,
) -> tuple[Tensor, ...]:
    """The gradient of `_onward`, given those of the state it ends in and of all it put out: to the state it began
    with, to the gates, the text, the keys and the weights."""
    weights = Weights(*weights)
    width, text_across = weights.location.shape[1], text.transpose(1, 2).contiguous()
    # What a gradient of the hidden state is multiplied by to become one of the gates, for all steps at once.
    to_new = (1 - updates) * (1 - news * news)
    to_update = (hidden[:, :-1] - news) * updates * (1 - updates)
    slopes = torch.stack([to_new * recalled * resets * (1 - resets), to_update, to_new], dim=2)
    share_of_own = F.pad(resets, (2 * resets.shape[2], 0), value=1.0)  # the new state meets its own part reset
    twice_score = 2 * weights.score
    to_keys, to_location, to_score = (torch.zeros_like(x) for x in (energies[0], weights.location, weights.score))
    to_gates, to_own, to_query, seen_total = [], [], [], []  # of each step, the last one first
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
        to_gates.append(given)
        to_own.append(own)
        to_query.append(asked)
        seen_total.append(to_seen)
        to_hidden = torch.addmm(to_hidden * updates[:, t], own, weights.hidden)
        to_seen = given @ weights.seen
    to_gates, to_own, to_query, seen_total = (
        torch.stack(x[::-1], dim=1) for x in (to_gates, to_own, to_query, seen_total)
    )
    to_weights = Weights(
        seen=_outer(to_gates, seen[:, :-1]),
        hidden=_outer(to_own, hidden[:, :-1]),
        hidden_bias=to_own.sum(dim=(0, 1)),
        query=_outer(to_query, hidden[:, 1:]),
        location=to_location,
        score=to_score,
    )
    to_text = shares.transpose(1, 2) @ seen_total
    return to_hidden, to_seen, to_attended, to_gates, to_text, to_keys, *to_weights


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
