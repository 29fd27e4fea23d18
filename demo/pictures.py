"""Pictures of speech and of faces."""

import base64
import contextlib
import html
import io
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from encoder.face import Face
from face2voice import Speech

ACCENT = (31, 138, 128)
_WIDTH = 1200  # pixels
_DARK = (14, 26, 31)
_HEAT = np.array([_DARK, (18, 62, 76), (24, 112, 112), (92, 170, 128), (226, 214, 140), (255, 250, 226)], float)
_PAPER = (255, 255, 255)
_MARKED_SIDE = 800  # pixels of a photo that is shown


def waveform(samples: np.ndarray, height: int = 150) -> Image.Image:
    """Sound (n,) in [-1, 1] -> its envelope over a transparent ground, RGBA."""
    columns = np.array_split(np.abs(samples), min(_WIDTH // 2, max(1, len(samples))))
    reach = np.array([column.max() for column in columns]) / max(float(np.abs(samples).max(initial=0)), 0.1)
    image = Image.new("RGBA", (2 * len(columns), height))
    draw = ImageDraw.Draw(image)
    for x, value in enumerate(reach):
        half = max(1, round(value * (height / 2 - 2)))
        draw.rectangle((2 * x, height // 2 - half, 2 * x + 1, height // 2 + half), fill=(*ACCENT, 255))
    return image


def heat(values: np.ndarray, size: tuple[int, int] = (_WIDTH, 240)) -> Image.Image:
    """Values (rows, columns), dark where low; row 0 is drawn at the bottom."""
    low, high = np.percentile(values, (1, 99.5))
    share = np.clip((values[::-1] - low) / max(high - low, 1e-6), 0, 1)
    grey = Image.fromarray((share * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    stops = np.linspace(0, 255, len(_HEAT))
    table = np.stack([np.interp(np.arange(256), stops, _HEAT[:, band]) for band in range(3)], axis=1)
    return Image.fromarray(table.astype(np.uint8)[np.asarray(grey)])


def alignment(alignments: Sequence[np.ndarray]) -> np.ndarray:
    """Attention of all pieces, each (decoder steps, symbols), in one (symbols, steps) along the text."""
    steps, symbols = np.sum([a.shape for a in alignments], axis=0)
    whole = np.zeros((symbols, steps), np.float32)
    row = column = 0
    for piece in alignments:
        whole[row : row + piece.shape[1], column : column + piece.shape[0]] = piece.T
        row, column = row + piece.shape[1], column + piece.shape[0]
    return whole


def figures(speech: Speech) -> str:
    """Waveform, mel spectrogram and alignment of speech as HTML."""
    seconds = f"{speech.duration:.1f} s"
    return "".join(
        (
            figure(waveform(speech.samples), "Waveform", f"0 to {seconds}"),
            figure(heat(speech.mel), "Mel spectrogram", "80 bands, 0 to 8 kHz, low at the bottom"),
            figure(
                heat(np.sqrt(alignment(speech.alignments))),
                "Alignment",
                "which symbol (upwards) was read when; a clean diagonal is good",
            ),
        )
    )


def figure(picture: Image.Image, title: str, caption: str, comment: str | None = None) -> str:
    """A picture with its description, within the page itself: no file is left behind.

    Args:
        comment: for its metadata.
    """
    buffer, tag = io.BytesIO(), PngInfo()
    if comment:
        tag.add_text("Comment", comment)
    picture.save(buffer, "PNG", optimize=True, pnginfo=tag)
    source = base64.b64encode(buffer.getvalue()).decode()
    title, caption = html.escape(title), html.escape(caption)
    return (
        f'<figure class="f2v-figure"><figcaption><b>{title}</b> {caption}</figcaption>'
        f'<img src="data:image/png;base64,{source}" alt="{title}: {caption}"></figure>'
    )


def marked(photo: np.ndarray, faces: Sequence[Face], chosen: int = 0) -> tuple[Image.Image, float]:
    """A photo, uint8 RGB (H, W, 3), with its faces framed and numbered from 1, and the scale it is shown at."""
    scale = _MARKED_SIDE / max(photo.shape[:2])
    image = Image.fromarray(photo).resize((round(photo.shape[1] * scale), round(photo.shape[0] * scale)))
    draw = ImageDraw.Draw(image)
    size = max(14, max(image.size) // 26)
    font = ImageFont.load_default(size)
    for number, face in enumerate(faces):
        box = [round(side * scale) for side in face.box]
        fill = ACCENT if number == chosen else _DARK
        draw.rectangle(box, outline=_PAPER, width=size // 3)
        draw.rectangle([box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1], outline=fill, width=size // 5)
        left, top = max(0, box[0]), max(0, box[1])
        draw.rectangle((left, top, left + 1.5 * size, top + 1.4 * size), fill=fill)
        draw.text((left + 0.75 * size, top + 0.7 * size), str(number + 1), _PAPER, font, anchor="mm")
    return image, scale


@contextlib.contextmanager
def stored(picture: Image.Image) -> Iterator[str]:
    """The path of a picture, for as long as a component copies it.

    Of pixels gradio writes the same file for everyone who has the same ones, also while it is being sent.
    """
    with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
        path = f"{folder}/picture.webp"
        picture.save(path)
        yield path


def with_points(photo: np.ndarray, points: np.ndarray) -> Image.Image:
    """A picture, uint8 RGB (H, W, 3), with landmarks (n, 2) in its pixels, x to the right and y down."""
    image = Image.fromarray(photo).resize((2 * photo.shape[1], 2 * photo.shape[0]))
    draw = ImageDraw.Draw(image)
    for x, y in 2 * np.asarray(points):
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_PAPER, outline=ACCENT, width=2)
    return image
