"""Landmarks of a face in its frame: 68 in iBUG's order, or 72 with the lip corners repeated.

The 68-point models that exist may not be used commercially, so none comes with this project: it has
five measured points (eye corners, nose base). The others are found as Jones and Poggio (1998),
"Multidimensional Morphable Models", find correspondence: a template of 68 points is laid on the mean
face, and each portrait is registered to the mean face; the points are carried along. They are thus
honest about where brows, nose, mouth and jaw are as far as pixels show it, and less exact than a
detector trained on labelled faces, above all along the jaw. Whoever has such a detector can give its
points to `portraits.read_portraits` instead.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frame import SIDE
from .warp import BORDER, border_points, interpolate, lattice, warp

LIP_CORNERS_REPEATED = (
    *range(48),
    *(48, 49, 50, 51, 52, 53, 54, 64, 63, 62, 61, 60),  # the upper lip
    *(54, 55, 56, 57, 58, 59, 48, 60, 67, 66, 65, 64),  # the lower lip
)
"""Which of 68 points each of 72 is: the named groups of the package face_recognition, one after the other."""

FIVE_OF_68 = (45, 42, 36, 39, 33)
"""The five measured points (see `encoder.face.Face`) among the 68."""

# Half a mean face, that on the left of the picture: distance from the middle and height, in pixels of
# the frame. Placed by hand on the mean of the default's portraits and their mirror images.
_JAW = [(73, 80), (72, 97), (69.5, 114), (65.5, 130), (58.5, 147), (48.5, 162), (35.5, 175), (19, 186), (0, 190)]
_BROW = [(56.5, 68), (50, 62.5), (40, 60.5), (28, 62.5), (16.5, 67)]
_BRIDGE = [(0, 79), (0, 92), (0, 105), (0, 117)]
_NOSTRIL = [(16.5, 121.5), (8.5, 124.5), (0, 125.8)]
_EYE = [(41.2, 79.6), (35, 75), (25, 75.5), (17.4, 81.3), (25, 83.5), (34.5, 83)]
_UPPER_LIP = [(30, 136.5), (18, 134), (7, 131.5), (0, 133)]
_LOWER_LIP = [(0, 156.5), (8.5, 155.5), (19.5, 150)]
_INNER_UPPER = [(27, 138), (9, 138), (0, 138.7)]
_INNER_LOWER = [(0, 148.5), (9, 147.5)]

_LEVELS = ((56, 40), (112, 20))  # side of the pictures compared, steps
_STEP = 0.6  # pixels of the frame, Adam's rate
_STIFFNESS = 3e-4
_ANCHOR = 0.02
_NEARNESS = 5e-4
_BATCH = 64


def template(points: int = 68) -> np.ndarray:
    """The landmarks of a mean, symmetric face: (68 or 72, 2), pixels of the frame."""
    left = [_JAW[:-1], _JAW[-1:], _BROW, _BRIDGE, _NOSTRIL, _EYE, _UPPER_LIP, _LOWER_LIP, _INNER_UPPER, _INNER_LOWER]
    jaw, chin, brow, bridge, nostril, eye, upper, lower, inner_upper, inner_lower = (
        np.array(part, float) * (-1, 1) for part in left
    )
    other = (-1, 1)
    mirrored_eye = (eye * other)[[3, 2, 1, 0, 5, 4]]
    parts = [
        *(jaw, chin, (jaw * other)[::-1]),
        *(brow, (brow * other)[::-1]),
        *(bridge, nostril, (nostril * other)[-2::-1]),
        *(eye, mirrored_eye),
        *(upper, (upper * other)[-2::-1]),
        *((lower * other)[:0:-1], lower),
        *(inner_upper, (inner_upper * other)[-2::-1]),
        *((inner_lower * other)[:0:-1], inner_lower),
    ]
    placed = np.concatenate(parts) + ((SIDE - 1) / 2, 0)
    if points not in (68, 72):
        raise ValueError(f"{points} landmarks: there are schemes of 68 and of 72")
    return placed if points == 68 else placed[list(LIP_CORNERS_REPEATED)]


def mirror_order(points: int = 68) -> list[int]:
    """Which point takes the place of each when a face is mirrored."""
    mean = template(points)
    flipped = (SIDE - 1, 0) - mean * (1, -1)
    return np.abs(flipped[None] - mean[:, None]).sum(2).argmin(1).tolist()


def mirror(landmarks: np.ndarray) -> np.ndarray:
    """The landmarks (..., 68 or 72, 2) of the mirrored frame."""
    return landmarks[..., mirror_order(landmarks.shape[-2]), :] * (-1, 1) + (SIDE - 1, 0)


def register(frames: np.ndarray, five: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Landmarks of portraits, by registering each to the mean of all.

    The mean is taken anew, and so becomes sharper, in every round. Portraits are compared in
    local contrast, so that neither light nor complexion counts.

    Args:
        frames: uint8 (n, 224, 224, 3), some dozens at least.
        five: (n, 5, 2), the measured points, which the result keeps close to.

    Returns:
        (n, 68, 2) float32, pixels of the frame.
    """
    mean = torch.from_numpy(template()).float()
    measured = torch.from_numpy(five).float() - mean[list(FIVE_OF_68)]
    pictures = {side: _contrast(frames, side) for side, _ in _LEVELS}
    moved = torch.zeros(len(frames), 68, 2)
    for _ in range(rounds):
        for side, steps in _LEVELS:
            spread = _Spread(mean, side)
            reference = spread.pull(pictures[side], moved).mean(0, keepdim=True)
            reference = (reference + reference.flip(3)) / 2  # a symmetric mean leaves no room for drift
            for start in range(0, len(frames), _BATCH):
                part = slice(start, start + _BATCH)
                moved[part] = spread.fit(pictures[side][part], reference, moved[part], measured[part], steps)
    return (mean + moved).numpy()


def normalise(frames: Tensor, landmarks: Tensor, mean: Tensor) -> Tensor:
    """Textures: frames (B, 3, 224, 224) with their landmarks (B, N, 2) moved to the mean's (N, 2)."""
    return warp(frames, landmarks, mean)


class _Spread:
    """How displacements of the template's points spread over a picture of the face."""

    def __init__(self, mean: Tensor, side: int) -> None:
        self.side = side
        unit = torch.cat([mean * 2 / (SIDE - 1) - 1, border_points(BORDER)])
        nodes = lattice(side)
        weights = torch.eye(len(unit))[None]
        self.spline = interpolate(unit[None], weights, nodes[None])[0, :, : len(mean)]  # (side^2, 68)
        self.nodes = nodes.view(side, side, 2)
        # The second differences of what the points do to the picture: how much they bend it.
        field = self.spline.T.reshape(len(mean), side, side)
        bends = [field.diff(n=2, dim=1).flatten(1), field.diff(n=2, dim=2).flatten(1)]
        self.bending = sum(bend @ bend.T for bend in bends) * (side / 56) ** 2
        x, y = self.nodes.unbind(2)
        face = (x / 0.68) ** 2 + ((y - 0.08) / 0.76) ** 2
        self.weight = torch.sigmoid((1 - face) * 8)
        self.weight /= self.weight.sum()

    def pull(self, pictures: Tensor, moved: Tensor) -> Tensor:
        """Pictures (B, C, side, side) as they look with their points, off by `moved`, on the template's."""
        columns = moved.transpose(0, 1).flatten(1)  # one product for the whole batch
        way = (self.spline @ columns * 2 / (SIDE - 1)).unflatten(1, (-1, 2)).transpose(0, 1)
        grid = self.nodes + way.unflatten(1, (self.side, self.side))
        return F.grid_sample(pictures, grid, padding_mode="border", align_corners=True)

    def fit(self, pictures: Tensor, reference: Tensor, moved: Tensor, measured: Tensor, steps: int) -> Tensor:
        """Displacements (B, 68, 2) under which the pictures look most like the reference."""
        moved = moved.clone().requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=_STEP)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _STEP * (1 - step / steps)
            difference = (self.pull(pictures, moved) - reference).abs().mean(1)
            bent = torch.einsum("bnc,nm,bmc->b", moved, self.bending, moved)
            off = (moved[:, list(FIVE_OF_68)] - measured).square().mean((1, 2))
            energy = (difference * self.weight).sum((1, 2)) + _STIFFNESS * bent
            energy = energy + _ANCHOR * off + _NEARNESS * moved.square().mean((1, 2))
            optimizer.zero_grad()
            energy.sum().backward()
            optimizer.step()
        return moved.detach()


def _contrast(frames: np.ndarray, side: int) -> Tensor:
    """Local contrast of luminance, within (-1, 1): (n, 1, side, side)."""
    window = side // 8 * 2 + 1
    parts = []
    for start in range(0, len(frames), _BATCH):
        grey = torch.from_numpy(frames[start : start + _BATCH].mean(3, dtype=np.float32))[:, None] / 255
        grey = F.interpolate(grey, (side, side), mode="area")
        padded = F.pad(grey, [window // 2] * 4, mode="replicate")
        level = F.avg_pool2d(padded, window, 1)
        spread = (F.avg_pool2d(padded.square(), window, 1) - level.square()).clamp(min=0).sqrt()
        parts.append(torch.tanh((grey - level) / (spread + 0.02)))
    return torch.cat(parts)
