"""What can be measured of speech without a listener."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000
_SILENCE = np.zeros(SAMPLE_RATE // 4, np.float32)  # the recogniser wants to hear a beginning and an end


@functools.cache
def harvard_sentences() -> tuple[str, ...]:
    """Forty Harvard sentences (IEEE, 1969), lists 1 to 4. For evaluation alone, never to be trained on."""
    return tuple(Path(__file__).with_name("harvard.txt").read_text().splitlines())


def recognise(samples: np.ndarray) -> str:
    """What pocketsphinx, with the model inside its package, hears: lower-case words.

    Args:
        samples: float32 (n,) in [-1, 1], 16 kHz.
    """
    decoder = _decoder()
    padded = np.concatenate([_SILENCE, samples, _SILENCE])
    decoder.start_utt()
    decoder.process_raw((np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """Word errors (substitutions, deletions, insertions together), and words said."""
    import jiwer

    result = jiwer.process_words(_words(said), _words(heard) or "-")
    return result.substitutions + result.deletions + result.insertions, len(_words(said).split())


def median_f0(samples: np.ndarray) -> float:
    """Median pitch of the voiced parts, Hz, by probabilistic YIN (Mauch & Dixon, 2014); NaN where nothing is voiced."""
    import librosa

    f0, voiced, _ = librosa.pyin(samples, fmin=60, fmax=400, sr=SAMPLE_RATE)
    return float(np.median(f0[voiced])) if voiced.any() else float("nan")


def bootstrap(values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % confidence interval of the (weighted) mean, by 2,000 resamplings."""
    rng = np.random.default_rng(seed)
    values, weights = np.asarray(values, float), np.ones(len(values)) if weights is None else np.asarray(weights)
    picks = rng.integers(len(values), size=(2000, len(values)))
    means = (values[picks] * weights[picks]).sum(1) / weights[picks].sum(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def _words(text: str) -> str:
    return re.sub(r"[^a-z' ]", "", text.lower()).strip()


@functools.cache
def _decoder():
    from pocketsphinx import Decoder

    return Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
