"""From what visitors ask for to speech, one sentence at a time."""

import contextlib
import dataclasses
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from face2voice import Face2Voice, Speech, Voice
from face2voice.limits import SPEAKING_SECONDS, TEXT_CHARACTERS, VOICE_FILE_BYTES
from face2voice.voicespace import MAX_SEMITONES, MAX_YEARS
from savedmodels import InputError

from .studio import Studio
from .words import calling

FindVoice = Callable[[Face2Voice], Voice]
MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Wishes:
    """How a text is to be spoken; the numbers are those of `Face2Voice.stream` and `VoiceSpace.shifted`.

    Whatever a browser or a program sends can be handed in: it is checked here.

    Raises:
        InputError: the text is too long or no text; a value is of another kind or out of its range.
    """

    text: str
    seed: int = 0
    speed: float = 1.0
    pause: float = 1.0
    pitch: float = 0.0
    older: float = 0.0
    bundle: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise InputError("there is no text yet: write what is to be said")
        if len(self.text) > TEXT_CHARACTERS:
            raise InputError(f"the text has {len(self.text)} characters: shorten it to {TEXT_CHARACTERS}")
        ranges = {
            "seed": (0, MAX_SEED),
            "speed": (0.5, 2.0),
            "pause": (0.0, 5.0),
            "pitch": (-MAX_SEMITONES, MAX_SEMITONES),
            "older": (-MAX_YEARS, MAX_YEARS),
        }
        for name, (low, high) in ranges.items():
            object.__setattr__(self, name, number(getattr(self, name), low, high, "age" if name == "older" else name))
        object.__setattr__(self, "seed", int(self.seed))
        for name in ("bundle", "device"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"the {name} is not a name: choose one from the list")


def number(value: object, low: float, high: float, name: str) -> float:
    """`value` if it is a number from `low` to `high`; InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(f"{name} is {str(value)[:20]}: choose a number from {low:g} to {high:g}")
    return float(value)


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """How far a text is.

    Attributes:
        voice: it is spoken in.
        pieces: spoken so far.
        total: pieces of the whole text.
        seconds: of computing so far.
    """

    voice: Voice
    pieces: tuple[Speech, ...]
    total: int
    seconds: float

    @property
    def finished(self) -> bool:
        return len(self.pieces) == self.total

    @property
    def speech(self) -> Speech:
        """All that was spoken so far."""
        return Speech.join(self.pieces)


def speak(studio: Studio, wishes: Wishes, find_voice: FindVoice) -> Iterator[Progress]:
    """Says a text, giving word before the first piece and after each; closing the iterator ends the work.

    The models are held for one piece at a time, so that others get their turn in between.

    Raises:
        InputError: the text or voice cannot be used, or it takes longer than a visitor's share.
    """
    tts = studio.tts(wishes.bundle, wishes.device)
    with studio.turn:
        clock = _Clock()
        total = len(tts.pieces(wishes.text))
        voice = find_voice(tts)
        if wishes.pitch or wishes.older:
            voice = tts.voice_space().shifted(voice, wishes.pitch, wishes.older)
        seconds, work = clock.read()
    yield Progress(voice, (), total, seconds)
    pieces: tuple[Speech, ...] = ()
    with contextlib.closing(tts.stream(wishes.text, voice, wishes.seed, wishes.speed, wishes.pause)) as stream:
        while len(pieces) < total:
            if work > SPEAKING_SECONDS:
                raise InputError(f"stopped after {work:.0f} s of computing: give a shorter text")
            with studio.turn:
                clock = _Clock()
                pieces += (next(stream),)
                took, worked = clock.read()
            seconds, work = seconds + took, work + worked
            yield Progress(voice, pieces, total, seconds)


class _Clock:
    """Seconds since it was made: on the wall, and of this thread's work, which a busy machine does not stretch."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.thread_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._started[0], time.thread_time() - self._started[1]


def speak_whole(studio: Studio, wishes: Wishes, find_voice: FindVoice) -> Progress:
    """`speak`, at its end."""
    for progress in speak(studio, wishes, find_voice):
        last = progress
    return last


def load_voice(path: Path) -> Voice:
    """A voice file that a visitor sent; InputError if it is anything else, or larger than a voice can be."""
    try:
        with zipfile.ZipFile(path) as stored:
            size = sum(entry.file_size for entry in stored.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError("not a voice file: give an .npz that was saved here or by face2voice embed") from error
    if max(size, path.stat().st_size) > VOICE_FILE_BYTES:
        raise InputError("not a voice file: it is too large for one")
    with calling(path, "the file"):
        return Voice.load(path)
