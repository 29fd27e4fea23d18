"""The frame every portrait lives in: an upright face in 224 x 224 pixels, and how it is described.

Positions in the frame are (x to the right, y down), in pixels, whole numbers on pixel centres. The
frame shows a third more on each side than the crop that dlib's descriptor was trained on, so that
chin and hair are in it and a face detector finds the face again.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from encoder.dlib_resnet import SIDE as CHIP_SIDE
from encoder.face import PADDING as CHIP_PADDING
from encoder.face import Face, cut_square, similarity_fit

SIDE = 224  # pixels
PADDING = 0.5  # beyond dlib's box about the inner face, on each side, in units of its side
CHIP_SHARE = (1 + 2 * CHIP_PADDING) / (1 + 2 * PADDING)  # of the frame's side, the middle part


def crop_frame(photo: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
    """The face upright, and its five points.

    Args:
        photo: uint8 RGB (H, W, 3); its edge is drawn out where the frame reaches beyond it.
        face: found in that photo.

    Returns:
        uint8 RGB (224, 224, 3); (5, 2) positions in it.
    """
    points = np.asarray(face.points) @ [1, 1j]
    side, centre = similarity_fit(points)
    step = side / CHIP_SHARE / SIDE  # photo pixels for one of the frame
    margin = math.ceil(abs(step) * SIDE)
    edge = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    frame = cut_square(Image.fromarray(edge), centre + margin * (1 + 1j), step, SIDE)
    placed = (points - centre) / step + (SIDE - 1) / 2 * (1 + 1j)
    return frame, np.stack([placed.real, placed.imag], 1)


def frames_to_tensor(frames: np.ndarray) -> Tensor:
    """uint8 (B, 224, 224, 3) or one (224, 224, 3) -> float (B, 3, 224, 224) in [0, 1]."""
    frames = frames[None] if frames.ndim == 3 else frames
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def tensor_to_frame(image: Tensor) -> np.ndarray:
    """float (3, 224, 224) -> uint8 (224, 224, 3)."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


class FrameDescriptor(nn.Module):
    """A network on dlib's kind of crops as one on frames; gradients pass through.

    Args:
        backbone: crops (B, 3, N, N), (x - 127.5) / 128 of 8-bit RGB, to (B, features): the `resnet`
            of a `FaceSpeakerEncoder` with dlib's backbone.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frames: Tensor, jitter: Tensor | None = None) -> Tensor:
        """Descriptors of frames.

        Args:
            frames: (B, 3, 224, 224) RGB in [0, 1].
            jitter: (B, 3), how far each crop is moved (x, y, in halves of the frame) and enlarged
                (a share): pixels that please one exact position only are of no use then.

        Returns:
            (B, features).
        """
        theta = frames.new_zeros(len(frames), 2, 3)
        scale = CHIP_SHARE * (1 + (0 if jitter is None else jitter[:, 2]))
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        if jitter is not None:
            theta[:, :, 2] = jitter[:, :2]
        # The grid's outermost points are the crop's outermost pixel centres, as dlib lays them.
        grid = F.affine_grid(theta, [len(frames), 3, CHIP_SIDE, CHIP_SIDE], align_corners=True)
        chips = F.grid_sample(frames, grid, align_corners=True)
        return self.backbone((chips * 255 - 127.5) / 128)
