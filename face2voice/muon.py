"""An optimizer that learns matrices in fewer steps than Adam."""

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from synthesizer.graphs import Replayed

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that lifts small singular values fastest (Jordan, 2024)
_ROUNDS = 5
_LIKE_ADAM = 0.2  # root mean square of what Adam adds, in units of the learning rate (Liu et al., 2025, section 2.2)


class Muon(torch.optim.Optimizer):
    """Of a matrix the momentum's singular values are all made one (Jordan et al., Muon, 2024), so that directions
    which a few large ones would hide are learned as well; what is no matrix, and tables of embeddings, go Adam's way.
    So do the layers that a module in it names as its `output_layers`: what they make has a mean far from nothing,
    one direction to go for hundreds of steps.

    Args:
        module: whose parameters are learned, those that need a gradient.
        learning_rate: for both, as one would choose it for Adam.
    """

    def __init__(self, module: nn.Module, learning_rate: float, momentum: float = 0.95):
        apart = [m for m in module.modules() if isinstance(m, nn.Embedding)]
        apart += [layer for m in module.modules() for layer in getattr(m, "output_layers", ())]
        adams = {id(p) for m in apart for p in m.parameters()}
        learned = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in learned if p.dim() > 1 and id(p) not in adams]
        known = {id(p) for p in matrices}
        groups = [
            {"params": matrices, "matrices": True},
            {"params": [p for p in learned if id(p) not in known], "matrices": False},
        ]
        super().__init__(groups, {"lr": learning_rate, "momentum": momentum, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learned = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrices"]:
                self._orthogonal(learned, group)
            else:
                for parameter in learned:
                    self._adam(parameter, self.state[parameter], group)
        return loss

    def _orthogonal(self, parameters: list[Tensor], group: dict) -> None:
        """Of many processes, whose gradients are alike, each works out its share and tells it to the others."""
        rank, processes = 0, 1
        if dist.is_available() and dist.is_initialized():
            rank, processes = dist.get_rank(), dist.get_world_size()
        shares = _shares(parameters, processes)
        updates = [[self._ahead(p, group) for p in share] for share in shares]
        if updates[rank]:
            updates[rank] = (_replayed if updates[rank][0].is_cuda else _all_orthogonal)(*updates[rank])
        for owner, (share, made) in enumerate(zip(shares, updates, strict=True)):
            if processes > 1 and share:
                told = torch.cat([update.flatten() for update in made])
                dist.broadcast(told, owner)
                made = told.split([update.numel() for update in made])
            for parameter, update in zip(share, made, strict=True):
                scale = _LIKE_ADAM * math.sqrt(max(parameter.flatten(1).shape))
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)

    def _ahead(self, parameter: Tensor, group: dict) -> Tensor:
        """The momentum as Nesterov takes it, (rows, columns); a kernel is one row."""
        before = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        before.mul_(group["momentum"]).add_(parameter.grad)
        return parameter.grad.add(before, alpha=group["momentum"]).flatten(1)

    def _adam(self, parameter: Tensor, state: dict, group: dict) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        for name, value, beta in zip(
            ("mean", "square"), (parameter.grad, parameter.grad**2), group["betas"], strict=True
        ):
            state[name].lerp_(value, 1 - beta)
        mean, square = (
            state[name] / (1 - beta ** state["step"])
            for name, beta in zip(("mean", "square"), group["betas"], strict=True)
        )
        parameter.addcdiv_(mean, square.sqrt() + group["eps"], value=-group["lr"])


def _all_orthogonal(*matrices: Tensor) -> tuple[Tensor, ...]:
    return tuple(orthogonal(matrix) for matrix in matrices)


_replayed = Replayed(_all_orthogonal)


def _shares(matrices: list[Tensor], count: int) -> list[list[Tensor]]:
    """The matrices in `count` parts that take about the same time to make orthogonal."""
    shares, costs = [[] for _ in range(count)], [0.0] * count
    sides = {id(m): sorted(m.flatten(1).shape) for m in matrices}
    for matrix in sorted(matrices, key=lambda m: sides[id(m)], reverse=True):
        least = costs.index(min(costs))
        short, long = sides[id(matrix)]
        shares[least].append(matrix)
        costs[least] += short**2 * (4 * _ROUNDS * short + 2 * long)
    return shares


def orthogonal(matrix: Tensor) -> Tensor:
    """(rows, columns), its singular values brought near one (0.7 to 1.2), by Newton and Schulz's iteration.

    Each round multiplies by a polynomial of the product with its own transpose. All of these commute, so they are
    gathered in the smaller square, and the matrix itself, often many times as long as wide, is met twice.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ wide.T
    gathered = None
    for left in reversed(range(_ROUNDS)):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        gathered = factor if gathered is None else gathered @ factor
        if left:
            gram = factor @ gram @ factor
    wide = gathered @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
