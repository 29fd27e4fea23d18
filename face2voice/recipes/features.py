"""What the trainings need of each utterance, computed once: mel spectrogram, voice, text."""

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from encoder import SpeechSpeakerEncoder
from encoder import audio as encoder_audio
from face2voice.corpora import Utterance
from savedmodels import InputError, write_arrays
from synthesizer import audio

log = logging.getLogger(__name__)

_teacher: SpeechSpeakerEncoder | None = None  # of a worker process


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of many utterances, in the order they were given.

    Attributes:
        mels: (frames of all, 80) float16 in [-4, 4].
        ends: (n,) where each utterance's frames end.
        voices: (n, 256) float32, GE2E embedding of each utterance; zeros where none was computed.
    """

    mels: np.ndarray
    ends: np.ndarray
    voices: np.ndarray

    def mel(self, i: int) -> np.ndarray:
        """(80, frames) of utterance i."""
        return self.mels[self.ends[i - 1] if i else 0 : self.ends[i]].T


def compute_features(
    out: Path,
    utterances: Sequence[Utterance],
    teacher: Callable[[], Path],
    voices_per_speaker: int = 40,
    workers: int = 2,
) -> Features:
    """Features of all utterances, kept in ``out`` (.npz) and read from there the next time.

    Args:
        teacher: gives the checkpoint of the speech-speaker encoder that gives the voices; asked only if there is
            something to compute.
        voices_per_speaker: embeddings computed of each speaker; more would hardly move their mean.
    """
    if out.is_file():
        with np.load(out) as stored:
            return Features(stored["mels"], stored["ends"], stored["voices"])
    counts: Counter[str] = Counter()
    jobs = []
    for utterance in utterances:
        counts[utterance.speaker] += 1
        jobs.append((utterance.audio, counts[utterance.speaker] <= voices_per_speaker))
    mels, voices = [], []
    with ProcessPoolExecutor(workers, initializer=_load_teacher, initargs=(teacher(),)) as pool:
        for done, (mel, voice) in enumerate(pool.map(_features_of, jobs, chunksize=32), start=1):
            mels.append(mel)
            voices.append(voice)
            if done % 1000 == 0:
                log.info("features: %d of %d utterances", done, len(jobs))
    features = Features(np.concatenate(mels), np.cumsum([len(mel) for mel in mels]), np.stack(voices))
    write_arrays(out, **vars(features))
    return features


def _load_teacher(path: Path) -> None:
    global _teacher
    torch.set_num_threads(1)
    _teacher = SpeechSpeakerEncoder.from_checkpoint(path)


def _features_of(job: tuple[Path, bool]) -> tuple[np.ndarray, np.ndarray]:
    path, with_voice = job
    samples, rate = sf.read(path, dtype="float32")
    if rate != audio.SAMPLE_RATE:
        raise InputError(f"{path}: {rate} Hz, {audio.SAMPLE_RATE} expected")
    mel = audio.mel_spectrogram(samples).T.astype(np.float16)
    voice = np.zeros(_teacher.dims.embedding, np.float32)
    if with_voice:
        with contextlib.suppress(InputError):  # no speech heard in it: very short sentences
            voice = _teacher.embed_utterance(encoder_audio.prepare(samples))
    return mel, voice
