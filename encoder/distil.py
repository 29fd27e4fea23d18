"""Training a speech-speaker encoder to give another one's embeddings (knowledge distillation, Hinton
et al. 2015, with embeddings in place of class probabilities).
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from savedmodels import InputError, write_arrays

from .audio import partial_mels
from .speech_model import SpeechSpeakerEncoder, unit

_MAX_GAIN_DB = 10.0
_MAX_PARTIALS = 3  # of one utterance


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Partial utterances and what the teacher answers to them.

    Attributes:
        mels: (n, 160, 40) float16.
        answers: (n, embedding) float32, the teacher's embeddings before their ReLU.
        utterances: (n,) int64, which utterance a partial is of.
        speakers: (n,) names.
    """

    mels: np.ndarray
    answers: np.ndarray
    utterances: np.ndarray
    speakers: np.ndarray

    @classmethod
    def collect(
        cls, teacher: SpeechSpeakerEncoder, utterances: Iterable[tuple[np.ndarray, str]], seed: int = 0
    ) -> "Lessons":
        """From (samples as of `audio.prepare`, speaker) pairs. Half of the utterances are made louder
        by up to 10 dB, as users' clips are: the encoder raises quiet sound, but leaves loud sound."""
        rng = np.random.default_rng(seed)
        mels, answers, numbers, speakers = [], [], [], []
        for number, (samples, speaker) in enumerate(utterances):
            louder = 10 ** (rng.uniform(0, _MAX_GAIN_DB) / 20) if rng.random() < 0.5 else 1.0
            partials = partial_mels(samples * np.float32(louder))[:_MAX_PARTIALS]
            with torch.inference_mode():
                answers.append(teacher.raw(torch.from_numpy(partials)).numpy())
            mels.append(partials.astype(np.float16))
            numbers += [number] * len(partials)
            speakers += [speaker] * len(partials)
        if not mels:
            raise InputError("no utterances to learn from; is the folder of speech empty?")
        return cls(np.concatenate(mels), np.concatenate(answers), np.array(numbers), np.array(speakers))

    def save(self, path: Path) -> None:
        write_arrays(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Lessons":
        with np.load(path) as file:
            return cls(**file)

    def split(self, share: float = 0.1, seed: int = 0) -> tuple["Lessons", "Lessons"]:
        """Two parts without a common speaker, the second with `share` of the speakers."""
        names = np.unique(self.speakers)
        apart = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
        second = np.isin(self.speakers, apart)
        return self._only(~second), self._only(second)

    def _only(self, which: np.ndarray) -> "Lessons":
        return Lessons(*(values[which] for values in vars(self).values()))


class DistilTask:
    """One minus the cosine of the answers, and their squared error before the ReLU: without it an
    output that the student's ReLU has closed could never open again."""

    def __init__(self, module: SpeechSpeakerEncoder, lessons: Lessons, batch_size: int = 64, regression: float = 0.3):
        self.module = module
        self.lessons = lessons
        self.batch_size = batch_size
        self.regression = regression
        self.variance = float(lessons.answers.var(axis=0).mean())
        module.similarity_weight.requires_grad_(False)  # of another loss
        module.similarity_bias.requires_grad_(False)
        with torch.no_grad():  # starting at the mean answer spares the first hundred steps
            module.linear.bias.copy_(torch.from_numpy(lessons.answers.mean(axis=0)))
        names, index = np.unique(lessons.speakers, return_inverse=True)
        share = 1 / np.bincount(index)[index]
        self.share = share / len(names)  # as much of a speaker with few utterances as of one with many

    def batches(self, epoch: int, seed: int) -> Iterator[np.ndarray]:
        """Indices of partials, about as many as there are."""
        rng = np.random.default_rng((seed, epoch))
        for _ in range(max(1, len(self.share) // self.batch_size)):
            yield rng.choice(len(self.share), self.batch_size, p=self.share)

    def collate(self, batch: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mels (B, 160, 40) and the teacher's answers (B, embedding)."""
        mels = self.lessons.mels[batch].astype(np.float32)
        return torch.from_numpy(mels), torch.from_numpy(self.lessons.answers[batch])

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        mels, wanted = batch
        given = self.module.raw(mels).float()
        cosine = F.cosine_similarity(unit(given), unit(wanted), dim=1).mean()
        error = F.mse_loss(given, wanted) / self.variance
        return 1 - cosine + self.regression * error, {"cosine": cosine.detach(), "error": error.detach()}


def agreement(student: SpeechSpeakerEncoder, lessons: Lessons) -> dict[str, float]:
    """How well a student agrees with the teacher, on utterances (the mean of their partials).

    Returns:
        ``cosine``: mean of student to teacher; ``teacher_eer``, ``student_eer``: equal error rate of
        telling same from other speaker by the cosine of two utterances.
    """
    with torch.inference_mode():
        parts = torch.from_numpy(lessons.mels).split(256)
        given = torch.cat([student(part.float()) for part in parts]).numpy()
    wanted = unit(torch.from_numpy(lessons.answers)).numpy()
    numbers, first = np.unique(lessons.utterances, return_index=True)
    means = []
    for partials in (wanted, given):
        sums = np.stack([partials[lessons.utterances == number].sum(axis=0) for number in numbers])
        means.append(sums / np.linalg.norm(sums, axis=1, keepdims=True))
    speakers = lessons.speakers[first]
    return {
        "utterances": len(numbers),
        "cosine": float((means[0] * means[1]).sum(axis=1).mean()),
        "teacher_eer": equal_error_rate(means[0], speakers),
        "student_eer": equal_error_rate(means[1], speakers),
    }


def equal_error_rate(embeddings: np.ndarray, speakers: np.ndarray) -> float:
    """Where false acceptances and false rejections are equally frequent, over all pairs of utterances.

    Args:
        embeddings: (n, embedding), unit length.
        speakers: (n,) names.

    Returns:
        0 (all pairs told apart) to 0.5 (chance), or NaN without both kinds of pairs.
    """
    one, other = np.triu_indices(len(speakers), k=1)
    scores = (embeddings @ embeddings.T)[one, other]
    same = (speakers[one] == speakers[other])[np.argsort(scores, kind="stable")]
    if same.all() or not same.any():
        return float("nan")
    rejected = np.cumsum(same) / same.sum()  # same-speaker pairs up to each threshold
    accepted = 1 - np.cumsum(~same) / (~same).sum()  # other-speaker pairs above it
    crossing = np.argmax(rejected >= accepted)
    return float((rejected[crossing] + accepted[crossing]) / 2)
