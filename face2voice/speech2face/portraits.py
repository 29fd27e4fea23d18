"""Photos of people as the face decoder learns from them."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoder.face import FaceDetector, Photo, find_detector, find_faces, load_photo, photo_name
from savedmodels import InputError, write_arrays

from .descriptor import describe
from .frame import crop_frame, frames_to_tensor
from .landmarks import LIP_CORNERS_REPEATED, mirror, normalise, register

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

    @classmethod
    def of_frames(
        cls,
        frames: np.ndarray,
        five: np.ndarray,
        features: np.ndarray,
        which: np.ndarray | None = None,
        points: np.ndarray | None = None,
    ) -> "Portraits":
        """Lays the frames of faces on their common mean.

        Args:
            frames: uint8 RGB (n, 224, 224, 3).
            five: (n, 5, 2), the measured points of each; see `frame.crop_frame`.
            features: (n, 2, features), see `descriptor.describe`.
            which: (n,); the frames' own numbers if None.
            points: (n, 68 or 72, 2) landmarks; if None they are found by `landmarks.register`, for
                which there should be some dozens of frames.
        """
        points = (register(frames, five) if points is None else points).astype(np.float32)
        mean = ((points.mean(0) + mirror(points).mean(0)) / 2).astype(np.float32)
        which = np.arange(len(frames)) if which is None else which
        return cls(which, features, _textures(frames, points, mean), points, mean)

    def with_points(self, count: int) -> "Portraits":
        """With 68 landmarks, or with 72."""
        if self.landmarks.shape[1] == count:
            return self
        order = list(LIP_CORNERS_REPEATED)
        order = order if count == len(order) else [order.index(i) for i in range(count)]
        return dataclasses.replace(self, landmarks=self.landmarks[:, order], mean_landmarks=self.mean_landmarks[order])

    def on_mean(self, mean: np.ndarray) -> "Portraits":
        """With the textures on another mean face, (68 or 72, 2)."""
        if np.allclose(mean, self.mean_landmarks, atol=0.01):  # pixels
            return self
        own = np.repeat(self.mean_landmarks[None], len(self), 0)
        return dataclasses.replace(self, textures=_textures(self.textures, own, mean), mean_landmarks=mean)

    def save(self, path: Path) -> None:
        write_arrays(path, **vars(self))

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
    points = np.stack([landmarks(frame) for frame in frames]) if landmarks else None
    return Portraits.of_frames(frames, five, describe(descriptor, frames), np.array(which), points)


@torch.inference_mode()
def _textures(frames: np.ndarray, points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    textures = np.empty_like(frames)
    for start in range(0, len(frames), _BATCH):
        part = slice(start, start + _BATCH)
        moved = normalise(frames_to_tensor(frames[part]), torch.from_numpy(points[part]), torch.from_numpy(mean))
        textures[part] = (moved * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return textures
