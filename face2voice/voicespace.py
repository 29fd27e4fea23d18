"""What is known about the space of voices: people heard in it, and which way pitch and age lie."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from savedmodels import CheckpointError, InputError, write_arrays

from .voice import Voice

MAX_SEMITONES = 12.0
MAX_YEARS = 40.0

_WIDTH = 0.1  # of the neighbourhood, in cosine: the directions differ from men to women
_RIDGE = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class VoiceSpace:
    """Voices of speakers whose sex, age and pitch are known.

    Attributes:
        names: (n,) of the speakers.
        sexes: (n,) "f" or "m".
        ages: (n,) years.
        f0: (n,) median pitch, Hz.
        embeddings: (n, 256), unit length.
    """

    names: np.ndarray
    sexes: np.ndarray
    ages: np.ndarray
    f0: np.ndarray
    embeddings: np.ndarray

    def save(self, path: Path) -> None:
        write_arrays(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "VoiceSpace":
        """Reads a saved space; CheckpointError if the file is something else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{field.name: stored[field.name] for field in dataclasses.fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: no known voices in this file ({error})") from error

    def nearest(self, voice: Voice, count: int = 3) -> list[tuple[Voice, float]]:
        """The `count` most similar speakers and their cosines to the voice, the nearest first."""
        cosines = self.embeddings @ voice.embedding
        nearest = np.argsort(-cosines)[:count]
        return [(Voice(self.embeddings[i], str(self.names[i])), float(cosines[i])) for i in nearest]

    def shifted(self, voice: Voice, semitones: float = 0.0, years: float = 0.0) -> Voice:
        """The voice as it were with another pitch, and of a person of another age.

        The way to go is what pitch and age change among the speakers around (weighted linear regression).

        Raises:
            InputError: further than `MAX_SEMITONES` or `MAX_YEARS`.
        """
        if not abs(semitones) <= MAX_SEMITONES:
            raise InputError(f"pitch is {semitones}; choose {-MAX_SEMITONES:g} to {MAX_SEMITONES:g} semitones")
        if not abs(years) <= MAX_YEARS:
            raise InputError(f"age is {years}; choose {-MAX_YEARS:g} to {MAX_YEARS:g} years")
        if not semitones and not years:
            return voice
        slopes, _, _ = self._around(voice)
        marks = [f"{value:+g} {unit}" for value, unit in ((semitones, "semitones"), (years, "years")) if value]
        return _moved(voice, np.array([semitones, years]) @ slopes, ", ".join(marks))

    def candidates(self, voice: Voice, count: int, seed: int = 0, spread: float = 2.5) -> list[Voice]:
        """`count` voices that would suit as well: the given one, then draws from how the speakers around
        differ from each other beyond pitch and age.

        Args:
            spread: factor on how far the draws lie apart.
        """
        if count < 1:
            raise InputError(f"{count} candidates; ask for one or more")
        _, residuals, weights = self._around(voice)
        draws = np.random.default_rng(seed).normal(size=(count - 1, len(weights)))
        steps = spread * (draws * np.sqrt(weights)) @ residuals
        return [voice, *(_moved(voice, step, f"candidate {i}") for i, step in enumerate(steps, start=2))]

    def _around(self, voice: Voice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Slopes (2, 256) per semitone and year, residuals (n, 256), and the speakers' weights (n,), which sum to 1."""
        cosines = self.embeddings @ voice.embedding
        weights = np.exp((cosines - cosines.max()) / _WIDTH)
        weights /= weights.sum()
        causes = np.stack([12 * np.log2(self.f0), self.ages.astype(float)], axis=1)
        causes = causes - weights @ causes
        effects = self.embeddings - weights @ self.embeddings
        covariance = (causes * weights[:, None]).T @ causes
        ridge = _RIDGE * np.diag(np.diag(covariance) + 1e-6)
        slopes = np.linalg.solve(covariance + ridge, (causes * weights[:, None]).T @ effects)
        return slopes, effects - causes @ slopes, weights


def _moved(voice: Voice, step: Sequence[float], how: str) -> Voice:
    # no value of a voice lies below 0
    return Voice(np.maximum(voice.embedding + step, 0), f"{voice.source} ({how})")
