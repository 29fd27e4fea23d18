"""The record every corpus is read into."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One spoken sentence, or only photos of a person.

    Attributes:
        audio: file with the sound, absolute once read; a video's own file where that holds the
            sound; None where there is none.
        text: what is said, None where the corpus does not tell.
        speaker: name unique within the corpus; the clip's own name where the corpus does not tell.
        sex: "f" or "m", None if unknown.
        age: in years, None if unknown.
        faces: photos of the speaker.
        split: "train", "dev" or "test": as published, "train" where nothing is.
        span: start and end in seconds, of the sound and the video alike; None for the whole file.
        video: file with the picture, None if there is none.
        box: left, top, right, bottom of the speaker's face in shares of the frame's width and
            height; where only the centre is known its sides are 0. None if nobody else is seen.
        words: (word, start, end) of each word, in seconds of the file; empty if unknown.
    """

    audio: Path | None = None
    text: str | None = None
    speaker: str = ""
    sex: str | None = None
    age: float | None = None
    faces: tuple[Path, ...] = ()
    split: str = "train"
    span: tuple[float, float] | None = None
    video: Path | None = None
    box: tuple[float, float, float, float] | None = None
    words: tuple[tuple[str, float, float], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file it names, once."""
        return tuple(dict.fromkeys(path for path in (self.audio, self.video, *self.faces) if path))
