"""Photo -> upright face crops: the image contract of the face-speaker encoder lives here.

The contract, whichever detector found the face: five points (the corners of both eyes and the
base of the nose) are laid on their mean positions by one similarity transform, so the eye line is
horizontal and the face fills the same part of a 160x160 RGB crop. The geometry is that of dlib's
``get_face_chip(size=160, padding=0.25)``.
"""

import cmath
import dataclasses
import importlib.util
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import dlib
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from savedmodels import LANDMARKS_5, CheckpointError, InputError

log = logging.getLogger(__name__)

CROP_SIDE = 160  # pixels
MAX_PIXELS = 40_000_000
MAX_SIDE = 12_000  # pixels
MIN_SIDE = 64  # pixels
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # JPEG takes MPO in

Photo = str | os.PathLike | Image.Image | np.ndarray

# Mean positions (x, y) of the five points over many faces, in a box about the inner face with side 1
# (dlib). Left and right are the viewer's.
MEAN_POINTS = np.array(
    [
        (0.8595674595992, 0.2134981538014),  # right eye, outer corner
        (0.6460604764104, 0.2289674387677),  # right eye, inner corner
        (0.1205750620789, 0.2137274526848),  # left eye, outer corner
        (0.3340850613712, 0.2290642403242),  # left eye, inner corner
        (0.4901123135679, 0.6277975316475),  # base of the nose
    ]
)
PADDING = 0.25  # on each side of that box, in units of its side

# The same five points among the 68 of the iBUG scheme.
_FIVE_OF_68 = [45, 42, 36, 39, 33]


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face found in a photo, in pixels of that photo (x to the right, y down).

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        points: (5, 2), in the order of dlib's five-point model: for the eye on the right of the
            picture and then for that on the left its outer and inner corner; the base of the nose.
        score: the detector's confidence; only to be compared within one detector.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray
    score: float

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


class FaceDetector(Protocol):
    """Anything that finds faces."""

    def detect(self, photo: np.ndarray) -> list[Face]:
        """The faces in a photo, uint8 RGB (H, W, 3), in any order."""
        ...


# ---- reading photos


def load_photo(source: Photo) -> np.ndarray:
    """A photo as people have it -> upright uint8 RGB (H, W, 3).

    Args:
        source: a file, a PIL image, or a uint8 array (H, W), (H, W, 3) RGB or (H, W, 4) RGBA. The
            camera's orientation is applied, transparency laid over white, 16 bits a channel scaled
            to 8; of an animation the first picture is taken.

    Raises:
        InputError: it is missing, empty, damaged, no picture, or has a size beyond the limits
            above. Sizes are checked before any pixel is decoded.
    """
    name = photo_name(source)
    with _as_image(source, name) as image:
        _check_size(image, name)
        try:
            return _upright_rgb(image, name)
        except InputError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise InputError(f"{name}: truncated or damaged; save or fetch the picture again") from error


def photo_name(source: Photo) -> str:
    """What messages call a photo: its path, or "photo"."""
    return str(source) if isinstance(source, (str, os.PathLike)) else "photo"


def _as_image(source: Photo, name: str) -> AbstractContextManager[Image.Image]:
    if isinstance(source, np.ndarray):
        return nullcontext(_image_from_array(source))
    if isinstance(source, Image.Image):
        return nullcontext(source)
    return _open(Path(source), name)


def _open(path: Path, name: str) -> Image.Image:
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():  # sizes are checked by us, and more strictly
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {_too_large()}") from error
    except PermissionError as error:
        raise InputError(f"{name}: cannot be read; check its permissions") from error
    except Exception as error:  # as above: the header of a damaged file
        raise InputError(f"{name}: not a picture in a known format; give a JPEG, PNG or WebP") from error


def _image_from_array(pixels: np.ndarray) -> Image.Image:
    shape_fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not shape_fits or pixels.size == 0:
        raise InputError(
            f"photo: an array of {pixels.dtype} with shape {pixels.shape}; "
            "give uint8 with shape (H, W), (H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise InputError(f"{name}: {width} x {height} pixels: {_too_large()}")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name}: {width} x {height} pixels: too small; give at least {MIN_SIDE} on each side")


def _too_large() -> str:
    return f"too large; scale it to at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} on a side"


def _upright_rgb(image: Image.Image, name: str) -> np.ndarray:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would clip at 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):  # no telling what white is
        raise InputError(f"{name}: 32 bits a pixel; save it with 8 bits a channel")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


# ---- finding faces


class DlibDetector:
    """dlib's HOG detector and five-point model: works offline, on the CPU, on faces from 35 pixels.

    A photo is scanned as it is, then enlarged, then turned (by quarters, and by 30 degrees for a
    tilted head), until a face is found for sure; else the scan with the surest face counts.

    Raises:
        CheckpointError: the file of the five-point model is missing or damaged.
    """

    PLAIN_PIXELS = 3_000_000  # larger photos are shrunk to this for the scan: about 0.3 s
    ENLARGED_PIXELS = 8_000_000
    TURNED_PIXELS = 1_000_000
    TURNS = (90, -90, 180, 30, -30)  # degrees, counter-clockwise
    SURE_SCORE = 0.4  # upside-down portraits gave false faces up to 0.25, true ones rarely score less
    POINTS_SIDE = 200  # of the face's box when its points are looked for

    def __init__(self) -> None:
        self._hog = dlib.get_frontal_face_detector()
        try:
            self._five_points = dlib.shape_predictor(str(LANDMARKS_5))
        except RuntimeError as error:
            raise CheckpointError(f"{LANDMARKS_5}: missing or damaged; install again") from error

    def detect(self, photo: np.ndarray) -> list[Face]:
        """See `FaceDetector`."""
        image = Image.fromarray(np.ascontiguousarray(photo))
        best: list[Face] = []
        for scale, angle in self._views(image.width * image.height):
            best = max(best, self._scan(image, scale, angle), key=_best_score)
            if _best_score(best) >= self.SURE_SCORE:
                break
        return best

    def _views(self, pixels: int) -> Iterator[tuple[float, float]]:
        """Scales and turns at which a photo of so many pixels is scanned, the likeliest first."""
        plain = min(1.0, math.sqrt(self.PLAIN_PIXELS / pixels))
        yield plain, 0
        for scale in (2 * plain, 3 * plain):
            if scale**2 * pixels <= self.ENLARGED_PIXELS:
                yield scale, 0
        for angle in self.TURNS:
            yield min(2.0, math.sqrt(self.TURNED_PIXELS / pixels)), angle

    def _scan(self, image: Image.Image, scale: float, angle: float) -> list[Face]:
        """Faces of the photo scaled and then turned counter-clockwise, in pixels of the photo."""
        scaled = image
        if scale != 1:
            scaled = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        view = scaled.rotate(angle, Image.Resampling.BILINEAR, expand=True) if angle else scaled
        # dlib gives random answers on arrays that are not contiguous, so it gets a fresh copy
        pixels = np.array(view, order="C")

        turn = cmath.rect(1, math.radians(angle))
        faces = []
        for box, score in zip(*self._hog.run(pixels, 0, 0.0)[:2], strict=True):
            middle = complex(
                (box.left() + box.right() + 1 - view.width) / 2,
                (box.top() + box.bottom() + 1 - view.height) / 2,
            )
            centre = middle * turn / scale + complex(image.width - 1, image.height - 1) / 2
            half = box.width() / 2 / scale
            faces.append(
                Face(
                    (centre.real - half, centre.imag - half, centre.real + half, centre.imag + half),
                    self._points(image, centre, half * turn),
                    float(score),
                )
            )
        return faces

    def _points(self, image: Image.Image, centre: complex, half: complex) -> np.ndarray:
        """The five points of the face whose box has this centre and this half, turned side.

        dlib rounds points to whole pixels and knows upright faces best, so it looks at a view in
        which the face is large, and then at one that is turned upright by the first answer.
        """
        side = self.POINTS_SIDE
        first, last = side // 2, side // 2 + side - 1
        for _ in range(2):
            step = half * 2 / side
            view = cut_square(image, centre, step, 2 * side)
            parts = self._five_points(view, dlib.rectangle(first, first, last, last)).parts()
            points = centre + step * np.array([complex(p.x - side + 0.5, p.y - side + 0.5) for p in parts])
            upright, _ = similarity_fit(points)
            half = abs(half) * upright / abs(upright)
        return np.stack([points.real, points.imag], 1)


def _best_score(faces: list[Face]) -> float:
    return max((face.score for face in faces), default=-math.inf)


class FaceAlignmentDetector:
    """The package `face-alignment` (1.5 or later): finds faces at any angle, slower on a CPU.

    Args:
        device: as torch names it.

    Raises:
        InputError: the package is not installed, or its weights are neither here nor to be had:
            it downloads them (180 MB) when it is first used.
    """

    MAX_PIXELS = 1_000_000  # the scan's time and memory grow with the photo
    WEIGHTS = ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar")

    def __init__(self, device: str | torch.device = "cpu") -> None:
        try:
            import face_alignment
        except ImportError as error:
            raise InputError(
                "the detector face-alignment is not installed: pip install face-alignment, or use dlib"
            ) from error
        try:
            self._net = face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D,
                device=str(device),
                flip_input=False,
                compile=False,  # takes longer than it saves on single photos
            )
        except OSError as error:
            raise InputError(
                "the weights of face-alignment could not be fetched: go online once, or use dlib"
            ) from error

    @classmethod
    def is_ready(cls) -> bool:
        """Whether the package is installed and its weights are on this machine."""
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return importlib.util.find_spec("face_alignment") is not None and all(
            (folder / name).is_file() for name in cls.WEIGHTS
        )

    def detect(self, photo: np.ndarray) -> list[Face]:
        """See `FaceDetector`."""
        image = Image.fromarray(np.ascontiguousarray(photo))
        scale = min(1.0, math.sqrt(self.MAX_PIXELS / (image.width * image.height)))
        if scale < 1:
            size = (round(image.width * scale), round(image.height * scale))
            image = image.resize(size, Image.Resampling.BICUBIC)
        pixels = np.array(image)
        boxes = self._net.face_detector.detect_from_image(pixels.copy())
        if len(boxes) == 0:
            return []
        landmarks = self._net.get_landmarks_from_image(pixels, detected_faces=boxes)
        ratio = np.array([photo.shape[1] / image.width, photo.shape[0] / image.height])
        return [
            Face(
                tuple(float(v) for v in np.asarray(box[:4]) * np.tile(ratio, 2)),
                (np.asarray(points, np.float64)[_FIVE_OF_68] + 0.5) * ratio - 0.5,
                float(box[4]),
            )
            for box, points in zip(boxes, landmarks, strict=True)
        ]


def find_detector(name: str = "auto", device: str | torch.device = "cpu") -> FaceDetector:
    """A detector by name.

    Args:
        name: "dlib", "face-alignment", or "auto": face-alignment if it is installed with its
            weights, else dlib. Only when asked for by name does face-alignment download them.
    """
    if name == "auto":
        name = "face-alignment" if FaceAlignmentDetector.is_ready() else "dlib"
    if name == "dlib":
        return DlibDetector()
    if name == "face-alignment":
        return FaceAlignmentDetector(device)
    raise InputError(f"no face detector {name!r}: choose auto, dlib or face-alignment")


def find_faces(photo: np.ndarray, detector: FaceDetector | None = None) -> list[Face]:
    """The faces in a photo, uint8 RGB (H, W, 3), the largest first."""
    faces = (detector or find_detector()).detect(photo)
    return sorted(faces, key=lambda face: (-face.area, face.box))


def pick_face(faces: Sequence[Face], index: int | None = None, name: str = "photo") -> Face:
    """One face of those found.

    Args:
        faces: as `find_faces` orders them.
        index: which; the largest if None.
        name: of the photo, for messages.

    Raises:
        InputError: there is no face, or none with this index.
    """
    if not faces:
        raise InputError(f"no face found in {name}: give a photo that shows one from the front")
    if index is None:
        return faces[0]
    if not 0 <= index < len(faces):
        shown = "1 face, choose 0" if len(faces) == 1 else f"{len(faces)} faces, choose 0 to {len(faces) - 1}"
        raise InputError(f"{name} shows {shown} (0 is the largest), not {index}")
    return faces[index]


# ---- cropping


def crop_face(photo: np.ndarray, face: Face) -> np.ndarray:
    """The face upright: uint8 RGB (160, 160, 3), black where it reaches beyond the photo.

    Args:
        photo: uint8 RGB (H, W, 3).
        face: found in that photo.
    """
    side, centre = similarity_fit(np.asarray(face.points) @ [1, 1j])
    # dlib lays the centres of the crop's outermost pixels on the first and last pixel of the box.
    step = side / abs(side) * max(abs(side) - 1, 1) / (CROP_SIDE - 1)  # photo pixels for one crop pixel
    return cut_square(Image.fromarray(np.ascontiguousarray(photo)), centre, step, CROP_SIDE)


def similarity_fit(points: np.ndarray) -> tuple[complex, complex]:
    """The padded box, turned with the face, whose mean points fit these points best.

    Args:
        points: (5,), x + iy.

    Returns:
        Its upper side, as the way from the left end to the right, and its centre.
    """
    # A similarity of the plane is a complex line, w = a z + b; this is its least-squares fit.
    z = (MEAN_POINTS + PADDING) / (1 + 2 * PADDING) @ [1, 1j]
    side = np.vdot(z - z.mean(), points - points.mean()) / np.vdot(z - z.mean(), z - z.mean())
    return complex(side), complex(points.mean() + side * (0.5 + 0.5j - z.mean()))


def cut_square(image: Image.Image, centre: complex, step: complex, side: int) -> np.ndarray:
    """A square of `side` pixels about `centre`, scaled and turned; black beyond the image.

    Positions are x + iy with whole numbers on the centres of pixels; `step` leads from one pixel
    of the square to its right neighbour, in pixels of the image.
    """
    # Sampled finely and averaged, so that shrinking does not alias; 8 x 8 samples are enough.
    fine = min(8, math.ceil(abs(step)))
    origin = centre + (1 + 1j) * (0.5 - step * side / 2)
    step = step / fine
    square = image.transform(
        (side * fine, side * fine),
        Image.Transform.AFFINE,
        (step.real, -step.imag, origin.real, step.imag, step.real, origin.imag),
        Image.Resampling.BILINEAR,
    )
    return np.array(square.reduce(fine))


def crop_from_photo(source: Photo, index: int | None = None, detector: FaceDetector | None = None) -> np.ndarray:
    """Photo -> crop in one call: uint8 RGB (160, 160, 3).

    Args:
        source: see `load_photo`.
        index: which face, 0 being the largest; the largest if None, with a warning in the log
            that counts them.
        detector: `find_detector()` if None.

    Raises:
        InputError: the photo cannot be read, or shows no such face.
    """
    photo, name = load_photo(source), photo_name(source)
    faces = find_faces(photo, detector)
    if index is None and len(faces) > 1:
        log.warning("%s shows %d faces; the largest was taken (0 of 0 to %d)", name, len(faces), len(faces) - 1)
    return crop_face(photo, pick_face(faces, index, name))


def faces_to_tensor(crops: np.ndarray | Sequence[np.ndarray]) -> Tensor:
    """Crops as the face-speaker encoder takes them.

    Args:
        crops: uint8 RGB (160, 160, 3), or several: (B, 160, 160, 3) or a list.

    Returns:
        float (B, 3, 160, 160), (x - 127.5) / 128.
    """
    pixels = np.asarray(crops)
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (CROP_SIDE, CROP_SIDE, 3):
        raise ValueError(f"crops are uint8 (B, {CROP_SIDE}, {CROP_SIDE}, 3), not {pixels.dtype} {pixels.shape}")
    return (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() - 127.5) / 128
