"""A differentiable warp: what lies at some points of a picture is carried to others, the rest follows.

Between the points the displacement is a polyharmonic spline (Duchon, 1977; order 2 is the thin-plate
spline of Bookstein, 1989), as in Cole et al. (2017), "Synthesizing Normalized Faces from Facial
Identity Features", section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ORDERS = (1, 2)
GRID = 57  # nodes a side at which the spline is evaluated, between them linearly: every fourth pixel of 224
BORDER = 4  # fixed points on each edge of the picture
RIDGE = 1e-3
_LEAST_RIDGE = 1e-6  # below it, single precision cannot tell coincident points from a singular system
_TINY = 1e-12  # keeps the root and the logarithm differentiable where a point meets itself


def warp(
    images: Tensor,
    source: Tensor,
    target: Tensor,
    order: int = 2,
    ridge: float = RIDGE,
    border: int = BORDER,
    grid: int = GRID,
) -> Tensor:
    """Pictures whose content at `source` is moved to `target`; gradients reach all three.

    With `source` equal to `target` the pictures come back. Coincident points with the same
    displacement count as one; with different ones their mean is met, as `ridge` smooths.

    Args:
        images: (B, C, S, S).
        source, target: (B, N, 2), or (N, 2) for the same in all; x, y in pixels, 0 to S - 1.
        order: 1 (the spline r) or 2 (r^2 log r, smoother).
        ridge: how much a point may miss its target for smoothness' sake.
        border: points on each edge that stay where they are; 0 lets the edges move.
        grid: see `GRID`.

    Returns:
        (B, C, S, S); what comes from beyond an edge repeats it.
    """
    side = images.shape[-1]
    source, target = (_to_unit(points.expand(len(images), -1, -1), side) for points in (source, target))
    fixed = border_points(border).to(images).expand(len(images), -1, -1)
    nodes = lattice(grid).to(images)
    # Looked up backwards: each pixel of the result asks where its content was.
    way = torch.cat([source - target, torch.zeros_like(fixed)], 1)
    moved = interpolate(torch.cat([target, fixed], 1), way, nodes.expand(len(images), -1, -1), order, ridge)
    moved = F.interpolate(moved.mT.unflatten(2, (grid, grid)), (side, side), mode="bilinear", align_corners=True)
    here = lattice(side).to(images).view(side, side, 2)
    return F.grid_sample(images, here + moved.permute(0, 2, 3, 1), padding_mode="border", align_corners=True)


def interpolate(centres: Tensor, values: Tensor, at: Tensor, order: int = 2, ridge: float = RIDGE) -> Tensor:
    """The spline through values at scattered points, by one linear system per item.

    Args:
        centres: (B, N, 2); distances of about 1 suit `ridge`.
        values: (B, N, C).
        at: (B, Q, 2).

    Returns:
        (B, Q, C).
    """
    count = centres.shape[1]
    kernel = _basis(_squared_distances(centres, centres), order)
    kernel = kernel + max(ridge, _LEAST_RIDGE) * torch.eye(count).to(kernel)
    plane = _with_one(centres)
    top = torch.cat([kernel, plane], 2)
    bottom = torch.cat([plane.mT, plane.new_zeros(len(plane), 3, 3)], 2)
    right = torch.cat([values, values.new_zeros(len(values), 3, values.shape[2])], 1)
    weights = torch.linalg.solve(torch.cat([top, bottom], 1), right)
    basis = _basis(_squared_distances(at, centres), order)
    return basis @ weights[:, :count] + _with_one(at) @ weights[:, count:]


def border_points(count: int) -> Tensor:
    """`count` points evenly on each edge of the square [-1, 1], corners once: (4 count, 2)."""
    along = torch.linspace(-1, 1, count + 1)[:-1]
    one = torch.ones(count)
    edges = [(along, -one), (one, along), (-along, one), (-one, -along)]
    return torch.cat([torch.stack(edge, 1) for edge in edges])


def lattice(side: int) -> Tensor:
    """The square [-1, 1] in side x side points, row by row: (side^2, 2) as x, y."""
    along = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(along, along).flip(1)


def _to_unit(points: Tensor, side: int) -> Tensor:
    return points * 2 / (side - 1) - 1


def _with_one(points: Tensor) -> Tensor:
    return torch.cat([points.new_ones(*points.shape[:2], 1), points], 2)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, None] - b[:, None]).square().sum(3)


def _basis(squared: Tensor, order: int) -> Tensor:
    """The spline's radial function, with the sign that makes it positive beside a plane: only then
    does a ridge smooth instead of meeting a pole."""
    if order == 1:
        return -(squared + _TINY).sqrt()
    if order == 2:
        return squared * (squared + _TINY).log() / 2
    raise ValueError(f"order {order} is none of {ORDERS}")
