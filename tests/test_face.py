"""Photo -> crop: what is accepted, what is refused and how, and the geometry of the crop."""

import random
import struct
import sys
import types
import zlib
from pathlib import Path

import dlib
import numpy as np
import pytest
import torch
from PIL import Image

import encoder.face
from encoder.face import (
    CROP_SIDE,
    DlibDetector,
    Face,
    FaceAlignmentDetector,
    crop_face,
    crop_from_photo,
    faces_to_tensor,
    find_detector,
    find_faces,
    load_photo,
    pick_face,
)
from savedmodels import InputError

PORTRAIT = Path(__file__).parent / "data" / "portrait.jpg"


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    with Image.open(PORTRAIT) as image:
        return image.convert("RGB")


@pytest.fixture(scope="module")
def crop(detector: DlibDetector) -> np.ndarray:
    return crop_from_photo(PORTRAIT, detector=detector)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(float) - b).mean())


def as_points(face: Face) -> dlib.full_object_detection:
    """The face as dlib takes it, points rounded to whole pixels."""
    points = [dlib.point(int(x), int(y)) for x, y in np.rint(face.points)]
    return dlib.full_object_detection(dlib.rectangle(0, 0, 1, 1), points)


# ---- photos as people have them


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif", "avif"])
def test_formats(portrait, tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    portrait.save(path)
    photo = load_photo(path)
    assert photo.dtype == np.uint8 and photo.shape == (*portrait.size[::-1], 3)
    assert difference(photo, np.array(portrait)) < 12  # GIF keeps 256 colours


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK", "1", "YCbCr"])
def test_colour_modes(portrait, mode):
    wanted = portrait.convert("L").convert("RGB") if mode in ("L", "LA", "1") else portrait
    photo = Image.fromarray(load_photo(portrait.convert(mode)))
    # in patches, as some modes dither
    patches = [np.array(image.resize((12, 16), Image.Resampling.BOX)) for image in (photo, wanted)]
    assert difference(*patches) < 6


def test_sixteen_bit_grey_is_scaled(portrait, tmp_path):
    grey = np.array(portrait.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert (load_photo(tmp_path / "deep.png") == grey[..., None]).all()


def test_transparency_is_laid_over_white(portrait):
    clear = portrait.convert("RGBA")
    clear.putalpha(0)
    assert (load_photo(clear) == 255).all()
    assert (load_photo(np.array(clear)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_orientation(portrait, tmp_path, orientation):
    undo = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = portrait
    for step in undo[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert (load_photo(tmp_path / "turned.png") == np.array(portrait)).all()


# ---- bad input: one line that names the file


def bad_files(folder: Path) -> dict[str, str]:
    """File name -> part of the message it should give."""
    whole = PORTRAIT.read_bytes()
    contents = {
        "empty.jpg": (b"", "empty"),
        "letter.jpg": (b"x", "not a picture"),
        "text.jpg": (b"hello", "not a picture"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        "page.pdf": (b"%PDF-1.4\n", "not a picture"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not a picture"),
        "half.jpg": (whole[: len(whole) // 2], "truncated"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    messages = {name: message for name, (_, message) in contents.items()}
    for name, size in {"tiny.png": (1, 1), "strip.png": (8000, 1)}.items():
        Image.new("L", size).save(folder / name)
        messages[name] = "too small"
    for name, size in {
        "wide.png": (12_001, 99),
        "huge.png": (9_400, 9_400),
        "bomb.png": (30_000, 30_000),
    }.items():
        header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)  # no pixels need follow it
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4)
        messages[name] = "too large"
    Image.new("F", (80, 80)).save(folder / "float.tiff")
    return messages | {"float.tiff": "32 bits", "missing.jpg": "no such file", ".": "no such file"}


def test_bad_files(tmp_path):
    for name, message in bad_files(tmp_path).items():
        path = tmp_path / name
        with pytest.raises(InputError) as error:
            load_photo(path)
        assert message in str(error.value) and str(path) in str(error.value), name
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((99, 99, 3)),
        np.zeros((99, 99, 2), np.uint8),
        np.zeros(99, np.uint8),
        np.zeros((0, 9, 3), np.uint8),
    ],
)
def test_bad_arrays(array):
    with pytest.raises(InputError, match="uint8"):
        load_photo(array)


def test_damaged_bytes_give_a_photo_or_a_message(tmp_path):
    dice = random.Random(0)
    for _ in range(100):
        content = bytearray(PORTRAIT.read_bytes())
        for _ in range(20):
            content[dice.randrange(len(content))] = dice.randrange(256)
        (tmp_path / "damaged.jpg").write_bytes(content)
        try:
            assert load_photo(tmp_path / "damaged.jpg").dtype == np.uint8
        except InputError as error:
            assert "damaged.jpg" in str(error)


# ---- finding


def test_the_same_face_whatever_the_memory_layout(portrait, detector, crop):
    flipped_twice = np.ascontiguousarray(np.array(portrait)[:, ::-1])[:, ::-1]
    assert not flipped_twice.flags.c_contiguous
    for _ in range(5):
        faces = find_faces(flipped_twice, detector)
        assert len(faces) == 1 and (crop_face(flipped_twice, faces[0]) == crop).all()
    assert (crop_from_photo(flipped_twice, detector=detector) == crop).all()


@pytest.mark.parametrize("angle", [-30, -10, 10, 30, 90, 180, 270])
def test_a_turned_face_is_cropped_upright(portrait, detector, crop, angle):
    turned = portrait.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    assert difference(crop_from_photo(turned, detector=detector), crop) < 20


@pytest.mark.parametrize("side", [40, 80])
def test_small_faces(portrait, detector, side):
    face = find_faces(np.array(portrait), detector)[0]
    scale = side / (face.box[2] - face.box[0])
    street = Image.new("RGB", (500, 400), (120, 130, 140))
    street.paste(portrait.resize((round(portrait.width * scale), round(portrait.height * scale))), (200, 150))
    (found,) = find_faces(np.array(street), detector)
    wanted = (np.add(face.box[:2], face.box[2:]) / 2 + 0.5) * scale - 0.5 + (200, 150)
    assert np.abs(np.add(found.box[:2], found.box[2:]) / 2 - wanted).max() < 0.15 * side


def test_several_faces_largest_first(portrait, detector):
    wall = Image.new("RGB", (700, 500), "grey")
    wall.paste(portrait, (20, 50))
    wall.paste(portrait.resize((portrait.width * 3 // 2, portrait.height * 3 // 2)), (300, 50))
    faces = find_faces(np.array(wall), detector)
    assert len(faces) == 2 and faces[0].area > faces[1].area and faces[0].box[0] > 250
    assert pick_face(faces) is faces[0] and pick_face(faces, 1) is faces[1]
    for index in (2, -1):
        with pytest.raises(InputError, match="wall.png shows 2 faces, choose 0 to 1"):
            pick_face(faces, index, "wall.png")


def test_no_face(detector, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.raises(InputError, match="no face found in .*noise.png"):
        crop_from_photo(tmp_path / "noise.png", detector=detector)


def test_detectors_by_name():
    assert isinstance(find_detector("dlib"), DlibDetector)
    with pytest.raises(InputError, match="choose auto, dlib or face-alignment"):
        find_detector("haar")


def test_face_alignment_gives_the_same_five_points(monkeypatch):
    """Against a stand-in with the package's interface: the package and its weights are not here."""
    points = np.arange(136, dtype=np.float32).reshape(68, 2)

    class StandIn:
        def __init__(self, landmarks_type, device, flip_input, compile=True):
            assert not compile
            self.face_detector = self

        def detect_from_image(self, pixels):
            return [] if pixels.mean() == 0 else [np.array([1, 2, 41, 52, 0.9], np.float32)]

        def get_landmarks_from_image(self, pixels, detected_faces):
            return [points for _ in detected_faces]

    package = types.ModuleType("face_alignment")
    package.FaceAlignment = StandIn
    package.LandmarksType = types.SimpleNamespace(TWO_D=1)
    monkeypatch.setitem(sys.modules, "face_alignment", package)
    detector = FaceAlignmentDetector()
    assert detector.detect(np.zeros((64, 64, 3), np.uint8)) == []
    (face,) = detector.detect(np.full((64, 64, 3), 9, np.uint8))
    assert face.box == (1, 2, 41, 52)
    assert (face.points == points[[45, 42, 36, 39, 33]]).all()
    (face,) = detector.detect(np.full((2000, 2000, 3), 9, np.uint8))  # scanned at half size
    assert face.box == (2, 4, 82, 104)
    assert (face.points == points[[45, 42, 36, 39, 33]] * 2 + 0.5).all()


# ---- cropping


def test_geometry_is_that_of_dlib_chips(portrait, detector):
    photo = np.array(portrait)
    face = find_faces(photo, detector)[0]
    face = Face(face.box, np.rint(face.points), face.score)
    assert difference(crop_face(photo, face), dlib.get_face_chip(photo, as_points(face), CROP_SIDE, 0.25)) < 0.1


def test_points_land_on_their_mean_positions():
    """Bright spots at the points of a tilted face come out at the mean points."""
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]]) * 300
    points = encoder.face.MEAN_POINTS @ turn + (300, 150)
    rows, columns = np.mgrid[:700, :700]
    for point, mean in zip(points, encoder.face.MEAN_POINTS, strict=True):
        spot = np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / 200) * 255
        photo = np.repeat(spot.astype(np.uint8)[..., None], 3, 2)
        light = crop_face(photo, Face((0, 0, 1, 1), points, 1.0))[..., 0].astype(float)
        found = np.array([light.sum(0) @ np.arange(CROP_SIDE), light.sum(1) @ np.arange(CROP_SIDE)]) / light.sum()
        assert np.abs(found - (mean + 0.25) / 1.5 * (CROP_SIDE - 1)).max() < 0.3


def test_shrinking_does_not_alias():
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    points = (encoder.face.MEAN_POINTS + 0.25) / 1.5 * 1600
    grey = crop_face(stripes, Face((0, 0, 1, 1), points, 1.0))[1:-1, 1:-1]
    assert np.abs(grey.astype(float) - 127.5).max() < 20


def test_beyond_the_photo_is_black(portrait, detector):
    photo = np.array(portrait)
    face = find_faces(photo, detector)[0]
    left = int(face.points[:, 0].mean())
    cut = crop_face(photo[:, left:], Face(face.box, face.points - (left, 0), face.score))
    assert (cut[:, :60] == 0).all() and cut[:, 100:].mean() > 30


def test_tensor_range_and_order():
    crops = np.zeros((2, CROP_SIDE, CROP_SIDE, 3), np.uint8)
    crops[..., 0] = 255
    tensor = faces_to_tensor(crops)
    assert tensor.shape == (2, 3, CROP_SIDE, CROP_SIDE) and tensor.dtype == torch.float32
    assert (tensor[:, 0] == 127.5 / 128).all() and (tensor[:, 1:] == -127.5 / 128).all()
    assert torch.equal(faces_to_tensor(crops[0]), tensor[:1])
    with pytest.raises(ValueError):
        faces_to_tensor(crops.astype(np.float32))
