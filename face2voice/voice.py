"""A voice: 256 numbers in the space of the GE2E speech encoder."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from savedmodels import InputError, write_arrays

SIZE = 256
MADE_BY = "AI-generated voice, made with Face2Voice"


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """Whose voice speaks.

    Attributes:
        embedding: float32 (256,), unit length, no value below 0.
        source: where it came from, for people to read.

    Raises:
        InputError: other than 256 finite numbers, or all of them 0.
    """

    embedding: np.ndarray
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "embedding", _direction(self.embedding, self.source or "voice"))

    def similarity(self, other: "Voice") -> float:
        """Cosine to another voice, 0 to 1."""
        return float(self.embedding @ other.embedding)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an ``.npz`` file that `load` reads, tagged as AI-generated."""
        write_arrays(path, embedding=self.embedding, source=np.array(self.source), comment=np.array(MADE_BY))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Voice":
        """Reads a saved voice; InputError if the file is missing or something else."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such voice file")
        try:
            with np.load(path, allow_pickle=False) as stored:
                embedding, source = stored["embedding"], str(stored["source"])
        except Exception as error:  # numpy and zipfile raise a dozen kinds for damaged files
            raise InputError(f"{path}: not a voice saved by Face2Voice") from error
        return cls(_direction(embedding, str(path)), source)

    @staticmethod
    def mix(voices: Sequence["Voice"], weights: Sequence[float] | None = None) -> "Voice":
        """The weighted mean direction; without weights the average, as of several photos of one person."""
        if not voices:
            raise InputError("no voices to mix")
        if weights is not None and (len(weights) != len(voices) or min(weights) < 0 or sum(weights) == 0):
            raise InputError("give one weight per voice, none below 0, not all 0")
        mean = np.average([voice.embedding for voice in voices], axis=0, weights=weights)
        return Voice(mean, " + ".join(voice.source for voice in voices))


def _direction(numbers: object, name: str) -> np.ndarray:
    """256 numbers at unit length; InputError, which begins with `name`, if that cannot be made of them."""
    try:
        with np.errstate(over="ignore"):
            embedding = np.asarray(numbers, np.float32).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not a voice: it holds something other than numbers") from error
    if embedding.size != SIZE:
        raise InputError(f"{name}: not a voice: it has {embedding.size} numbers, a voice has {SIZE}")
    length = np.linalg.norm(embedding)
    if not np.isfinite(length) or length == 0:
        raise InputError(f"{name}: not a voice: its numbers are all zero or not finite")
    return embedding / length
