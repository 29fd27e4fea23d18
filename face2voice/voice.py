"""A voice: 256 numbers in the space of the GE2E speech encoder."""

import dataclasses
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from savedmodels import InputError, write_atomically


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """Whose voice speaks.

    Attributes:
        embedding: float32 (256,), unit length, no value below 0.
        source: where it came from, for people to read.
    """

    embedding: np.ndarray
    source: str = ""

    def __post_init__(self) -> None:
        embedding = np.asarray(self.embedding, np.float32).reshape(-1)
        length = np.linalg.norm(embedding)
        if not np.isfinite(length) or length == 0:
            raise InputError(f"{self.source or 'voice'}: not a voice: its numbers are all zero or not finite")
        object.__setattr__(self, "embedding", embedding / length)

    def similarity(self, other: "Voice") -> float:
        """Cosine to another voice, 0 to 1."""
        return float(self.embedding @ other.embedding)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an ``.npz`` file that `load` reads."""
        buffer = io.BytesIO()
        np.savez(buffer, embedding=self.embedding, source=np.array(self.source))
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Voice":
        """Reads a saved voice; InputError if the file is missing or something else."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such voice file")
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["embedding"], str(stored["source"]))
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a voice saved by Face2Voice ({error})") from error

    @staticmethod
    def mix(voices: Sequence["Voice"], weights: Sequence[float] | None = None) -> "Voice":
        """The weighted mean direction; without weights the average, as of several photos of one person."""
        if not voices:
            raise InputError("no voices to mix")
        if weights is not None and (len(weights) != len(voices) or min(weights) < 0 or sum(weights) == 0):
            raise InputError("give one weight per voice, none below 0, not all 0")
        mean = np.average([voice.embedding for voice in voices], axis=0, weights=weights)
        return Voice(mean, " + ".join(voice.source for voice in voices))
