"""Who judges voices: a GE2E encoder, and what it knows of women's and men's voices."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoder import SpeechSpeakerEncoder
from face2voice.recipes.sources import GE2E_TEACHER
from savedmodels import Bundle, InputError

_SHRINKAGE = 0.1  # of the scatter towards a ball
_FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Judge:
    """An encoder of voices, and its name for the report."""

    name: str
    encoder: SpeechSpeakerEncoder

    def embed(self, samples: np.ndarray) -> np.ndarray | None:
        """float32 (n,) at 16 kHz -> the voice, (embedding,) of unit length; None if no speech is heard."""
        try:
            return self.encoder.embed((samples, 16_000))
        except InputError:
            return None


def find_judge(checkpoint: Path | None = None) -> Judge | None:
    """The published GE2E encoder: of `checkpoint`, or out of the package that carries it.

    Returns:
        None if it cannot be fetched.

    Raises:
        CheckpointError: `checkpoint` is something else.
    """
    if checkpoint:
        return Judge(f"GE2E of {checkpoint}", SpeechSpeakerEncoder.from_checkpoint(checkpoint))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "face2voice"
    try:
        path = GE2E_TEACHER.fetch(cache)
    except (InputError, OSError):
        return None
    return Judge(f"published GE2E, {GE2E_TEACHER.requirement}", SpeechSpeakerEncoder.from_checkpoint(path))


def own_judge(bundle: Bundle) -> Judge:
    """The bundle's speech encoder, where the published one cannot be had. It flatters its bundle."""
    path = bundle.path("speech_encoder")
    return Judge(f"the bundle's own speech encoder, {path}", SpeechSpeakerEncoder.from_checkpoint(path))


class SexClassifier:
    """Fisher's linear discriminant (1936) between women and men, the scatter shrunk to a ball.

    Args:
        features: (n, size), of real people.
        women: (n,) bool.
    """

    def __init__(self, features: np.ndarray, women: Sequence[bool]) -> None:
        women = np.asarray(women, bool)
        centres = np.stack([features[women].mean(axis=0), features[~women].mean(axis=0)])
        scatter = np.cov((features - np.where(women[:, None], *centres)).T)
        ball = np.eye(len(scatter)) * np.trace(scatter) / len(scatter)
        self.direction = np.linalg.solve((1 - _SHRINKAGE) * scatter + _SHRINKAGE * ball, centres[0] - centres[1])
        self.threshold = float(centres.mean(axis=0) @ self.direction)

    def women(self, features: np.ndarray) -> np.ndarray:
        """(n, size) -> (n,) bool."""
        return features @ self.direction > self.threshold

    @classmethod
    def cross_validate(cls, features: np.ndarray, women: Sequence[bool]) -> np.ndarray:
        """(n,) bool: who was told right by a classifier that had not seen them."""
        women = np.asarray(women, bool)
        fold = np.empty(len(women), int)
        for sex in (women, ~women):  # both in every fold
            fold[sex] = np.arange(sex.sum()) % _FOLDS
        right = np.zeros(len(women), bool)
        for number in np.unique(fold):
            test = fold == number
            right[test] = cls(features[~test], women[~test]).women(features[test]) == women[test]
        return right
