"""Sound and pictures of an utterance, whatever kind of file they are in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from encoder.audio import MAX_PEAK, MIN_SECONDS, SAMPLE_RATE, SILENCE
from encoder.face import load_photo
from face2voice.corpora.files import VIDEO
from savedmodels import InputError

_BY_FFMPEG = (*VIDEO, ".aac", ".m4a")


class Unusable(InputError):
    """A clip or photo that is left out.

    Attributes:
        reason: one of a few words, to count by: "missing", "corrupt", "too short", "silent", ...
        file: which.
    """

    def __init__(self, reason: str, file: Path | None, detail: str = "") -> None:
        super().__init__(f"{file}: {reason}{f' ({detail})' if detail else ''}")
        self.reason, self.file = reason, file


def read_sound(path: Path, span: tuple[float, float] | None = None) -> np.ndarray:
    """(n,) float32 in about [-1, 1], mono, 16 kHz; of a video its sound.

    Args:
        span: start and end in seconds; the whole file if None.

    Raises:
        Unusable: missing, corrupt, shorter than 0.5 s, or silent.
    """
    read = _read_ffmpeg if path.suffix.lower() in _BY_FFMPEG else _read_libsndfile
    with _readable(path):
        samples, rate = read(path, *(span or (0.0, None)))
        if len(samples) and not np.abs(samples).max() <= MAX_PEAK:  # NaN if any is NaN
            raise Unusable("corrupt", path, "values that are no sound")
    if len(samples) < MIN_SECONDS * rate:
        raise Unusable("too short", path, f"{len(samples) / rate:.2f} s")
    if np.square(samples, dtype=np.float64).mean() < 10 ** (SILENCE / 10):
        raise Unusable("silent", path)
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def read_photo(path: Path) -> np.ndarray:
    """uint8 RGB (H, W, 3), upright; Unusable if missing or corrupt."""
    with _readable(path):
        return load_photo(path)


def read_frames(path: Path, span: tuple[float, float] | None = None, count: int = 3) -> list[np.ndarray]:
    """Pictures of a video, evenly spread: uint8 RGB (H, W, 3) each, `count` or fewer of a short one.

    Raises:
        Unusable: missing or corrupt.
    """
    import av

    with _readable(path), av.open(str(path)) as container:
        stream = container.streams.video[0]
        start, end = span or (0.0, (container.duration or 0) / av.time_base)
        frames = {}
        for i in range(count):
            time = start + (end - start) * (i + 0.5) / count
            container.seek(round(time * av.time_base), backward=True)
            for frame in container.decode(stream):
                if frame.time is None or frame.time >= time:
                    frames[frame.pts] = frame.to_ndarray(format="rgb24")
                    break
    if not frames:
        raise Unusable("corrupt", path, "no picture in it")
    return list(frames.values())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a decoder says of the file becomes `Unusable`."""
    if not path.is_file():
        raise Unusable("missing", path)
    try:
        yield
    except (Unusable, MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise Unusable("corrupt", path, " ".join(str(error).split())) from error


def _read_libsndfile(path: Path, start: float, end: float | None) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(path) as file:
        first = round(start * file.samplerate)
        last = file.frames if end is None else min(file.frames, round(end * file.samplerate))
        file.seek(min(first, file.frames))
        samples = file.read(max(0, last - first), dtype="float32", always_2d=True)
        if len(samples) < last - first:
            raise Unusable("corrupt", path, "it breaks off")
        return samples.mean(axis=1, dtype=np.float32), file.samplerate


def _read_ffmpeg(path: Path, start: float, end: float | None) -> tuple[np.ndarray, int]:
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise Unusable("corrupt", path, "no sound in it")
        stream = container.streams.audio[0]
        rate, began, pieces = stream.rate, None, []
        if start:
            container.seek(round(start * av.time_base), backward=True)
        mono = av.AudioResampler(format="fltp", layout="mono")
        for frame in container.decode(stream):
            began = frame.time if began is None else began
            pieces += [piece.to_ndarray()[0] for piece in mono.resample(frame)]
            if end is not None and frame.time is not None and frame.time > end:
                break
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    offset = round((start - (began or 0.0)) * rate) if start else 0
    length = None if end is None else round((end - start) * rate)
    return samples[max(0, offset) :][:length], rate
