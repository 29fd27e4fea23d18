"""Pictures that are saved: portraits and contact sheets, marked as made by a machine."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from savedmodels import InputError, write_atomically

MADE_BY = (
    "AI-generated portrait, made with Face2Voice. It shows what is typical for such a voice and identifies nobody."
)

_TEXT = 14  # pixels
_GAP = 8
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


class Tile(NamedTuple):
    """One picture of a sheet.

    Attributes:
        image: uint8 RGB (H, W, 3).
        caption: one line or several.
    """

    image: np.ndarray
    caption: str = ""


def check_picture_path(path: str | os.PathLike) -> Path:
    """`path` if a picture can be written there; InputError otherwise. Cheap: asked before the work is done."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: end the name in .png")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    return path


def save_picture(image: np.ndarray, path: str | os.PathLike) -> None:
    """Writes uint8 RGB (H, W, 3) as a PNG with the text chunk "Comment" that says it is AI-generated.

    Raises:
        InputError: another ending, or a folder that cannot be written to.
    """
    path = check_picture_path(path)
    note = PngInfo()
    note.add_text("Comment", MADE_BY)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=note)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def contact_sheet(tiles: Sequence[Tile], columns: int = 5) -> np.ndarray:
    """Tiles in rows, captions beneath: uint8 RGB (H, W, 3)."""
    font = ImageFont.load_default(_TEXT)
    width = max(tile.image.shape[1] for tile in tiles)
    height = max(tile.image.shape[0] for tile in tiles)
    lines = max(tile.caption.count("\n") + 1 if tile.caption else 0 for tile in tiles)
    cell = (width + _GAP, height + _GAP + lines * (_TEXT + 4))
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        x, y = _GAP + number % columns * cell[0], _GAP + number // columns * cell[1]
        sheet.paste(Image.fromarray(tile.image), (x, y))
        draw.multiline_text((x, y + height + 2), tile.caption, _INK, font)
    return np.array(sheet)


def sound_picture(samples: np.ndarray, side: int = 224) -> np.ndarray:
    """The envelope of a sound (n,) as a picture, uint8 RGB (side, side, 3)."""
    columns = np.array_split(np.abs(samples), side)
    heights = np.array([column.max(initial=0.0) for column in columns])
    heights = heights / max(heights.max(), 1e-9) * 0.45 * side
    rows = np.abs(np.arange(side) - (side - 1) / 2)[:, None]
    return np.where((rows <= heights)[..., None], np.uint8(90), np.uint8(240)).repeat(3, axis=2)
