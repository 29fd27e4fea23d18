"""Photos of people as the face decoder learns from them."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoder.face import FaceDetector, Photo, find_detector, find_faces, load_photo, photo_name
from savedmodels import InputError

from .frame import crop_frame, frames_to_tensor
from .landmarks import mirror, normalise, register

log = logging.getLogger(__name__)

_BATCH = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Portraits:
    """Arrays over n portraits.

    Attributes:
        which: (n,) int, the place of each in the list of photos it was made from.
        features: (n, 2, features) float32 of each frame and of its mirror image.
        textures: (n, 224, 224, 3) uint8 RGB, the faces with the mean landmarks.
        landmarks: (n, 68 or 72, 2) float32, pixels of the frame.
        mean_landmarks: (68 or 72, 2) float32, symmetric.
    """

    which: np.ndarray
    features: np.ndarray
    textures: np.ndarray
    landmarks: np.ndarray
    mean_landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.which)

    def only(self, rows: np.ndarray) -> "Portraits":
        """Those at `rows`, indices or a mask over n; the mean landmarks stay."""
        arrays = {name: value[rows] for name, value in vars(self).items() if name != "mean_landmarks"}
        return Portraits(**arrays, mean_landmarks=self.mean_landmarks)

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Portraits":
        with np.load(path) as file:
            return cls(**file)


def read_portraits(
    photos: Sequence[Photo],
    descriptor: Callable[[Tensor], Tensor],
    detector: FaceDetector | None = None,
    landmarks: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Portraits:
    """Everything that training a face decoder takes.

    A photo that cannot be read or shows no face is left out, with a warning in the log.

    Args:
        photos: see `encoder.face.load_photo`; the largest face of each counts.
        descriptor: frames (B, 3, 224, 224) in [0, 1] to features (B, features).
        detector: dlib's if None.
        landmarks: a frame, uint8 (224, 224, 3), to its 68 or 72 points; if None they are found by
            `landmarks.register`, for which there should be some dozens of portraits.

    Raises:
        InputError: no photo shows a face.
    """
    detector = detector or find_detector("dlib")
    which, frames, five = [], [], []
    for number, photo in enumerate(photos):
        try:
            pixels = load_photo(photo)
        except InputError as error:
            log.warning("%s", error)
            continue
        faces = find_faces(pixels, detector)
        if not faces:
            log.warning("%s: no face found in it", photo_name(photo))
            continue
        frame, points = crop_frame(pixels, faces[0])
        which.append(number)
        frames.append(frame)
        five.append(points)
    if not frames:
        raise InputError("no face found in any of the photos; give portraits")
    frames, five = np.stack(frames), np.stack(five)
    points = np.stack([landmarks(frame) for frame in frames]) if landmarks else register(frames, five)
    points = points.astype(np.float32)
    mean = ((points.mean(0) + mirror(points).mean(0)) / 2).astype(np.float32)
    features = [_describe(frames, descriptor), _describe(frames[:, :, ::-1], descriptor)]
    return Portraits(np.array(which), np.stack(features, 1), _textures(frames, points, mean), points, mean)


@torch.inference_mode()
def _describe(frames: np.ndarray, descriptor: Callable[[Tensor], Tensor]) -> np.ndarray:
    parts = [descriptor(frames_to_tensor(frames[i : i + _BATCH])) for i in range(0, len(frames), _BATCH)]
    return torch.cat(parts).cpu().numpy()


@torch.inference_mode()
def _textures(frames: np.ndarray, points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    textures = np.empty_like(frames)
    for start in range(0, len(frames), _BATCH):
        part = slice(start, start + _BATCH)
        moved = normalise(frames_to_tensor(frames[part]), torch.from_numpy(points[part]), torch.from_numpy(mean))
        textures[part] = (moved * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return textures
