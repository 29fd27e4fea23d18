"""Who judges voices: a GE2E encoder, and what it knows of women's and men's voices."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from encoder import SpeechSpeakerEncoder
from face2voice.recipes.sources import GE2E_TEACHER
from face2voice.speech2face.judges import Score, sex_classifier
from savedmodels import Bundle, InputError

_RIDGE = 0.1  # few people, many directions
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


def classify_sex(voices: np.ndarray, sexes: Sequence[str]) -> Score:
    """Above 0 for women, from real voices (n, embedding) and the "f" or "m" of each."""
    return sex_classifier(voices, sexes, _RIDGE)


def cross_validate(voices: np.ndarray, sexes: Sequence[str]) -> np.ndarray:
    """(n,) bool: whose sex was told right by a classifier that had not heard them."""
    women = np.array([sex == "f" for sex in sexes])
    fold = np.empty(len(women), int)
    for sex in (women, ~women):  # both in every fold
        fold[sex] = np.arange(sex.sum()) % _FOLDS
    right = np.zeros(len(women), bool)
    for number in np.unique(fold):
        test = fold == number
        score = classify_sex(voices[~test], [sex for sex, out in zip(sexes, test, strict=True) if not out])
        right[test] = (score(torch.from_numpy(voices[test]).float()).numpy() > 0) == women[test]
    return right
