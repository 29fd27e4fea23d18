"""How well an offline speech recogniser understands what is said."""

import functools
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from face2voice.corpora import Utterance
from face2voice.recipes.voicebank import speak_with_flite
from savedmodels import InputError

from .figures import Player, Section, ratio
from .material import read_clip
from .takes import Take

SAMPLE_RATE = 16_000
RECOGNISER = "pocketsphinx with the English model inside its package"
_SILENCE = np.zeros(SAMPLE_RATE // 4, np.float32)  # the recogniser wants to hear a beginning and an end

Heard = tuple[str, str, str | None, np.ndarray]
"""Whose voice, what was said, sex, samples."""


def measure(takes: Sequence[Take]) -> Section:
    """Word and character error rate of sentences said by several voices."""
    rows = transcribe((take.person, take.text, take.portrait.sex, take.speech.samples) for take in takes)
    voices = len({row["voice"] for row in rows})
    figures = error_rates(rows, f"sentences by {voices} voices")
    for sex, name in (("f", "women"), ("m", "men")):
        some = [row for row in rows if row["sex"] == sex]
        if some and len(some) < len(rows):
            figures[f"word_error_rate_{name}"] = error_rates(some, f"sentences by {name}")["word_error_rate"]
    first = {take.person: take for take in reversed(takes)}
    players = [Player(f"{name}: {take.text}", take.speech.samples) for name, take in sorted(first.items())]
    return Section(figures, rows, players=players)


def measure_flite(voice: str, texts: Sequence[str]) -> Section:
    """flite's voice saying the same: made of recordings of one real speaker each."""
    said = [flite(voice, text) for text in texts]
    rows = transcribe(said)
    players = [Player(f"flite {voice}: {texts[0]}", said[0][3])]
    return Section(error_rates(rows, "sentences by one voice"), rows, players=players)


def measure_natural(utterances: Sequence[Utterance]) -> Section:
    """People of whom it is known what they say. Their sentences are others than the bundle's."""
    rows = transcribe(natural(utterances))
    return Section(
        error_rates(rows, f"sentences by {len({u.speaker for u in utterances})} people"),
        rows,
        ["Other sentences than the bundles'; to speechocean762's readers English is a second language: a rough bound."],
    )


def natural(utterances: Iterable[Utterance]) -> Iterator[Heard]:
    """Utterances as they are said."""
    for utterance in utterances:
        samples = read_clip(utterance)
        if samples is not None:
            yield utterance.speaker, utterance.text, utterance.sex, samples


def flite(voice: str, text: str) -> Heard:
    """A text as flite says it."""
    return f"flite {voice}", text, None, speak_with_flite(text, voice).astype(np.float32)


def flite_is_here() -> bool:
    return shutil.which("flite") is not None


def transcribe(said: Iterable[Heard]) -> list[dict]:
    """A row for every sentence: what was said, what was heard, and its errors."""
    rows = []
    for voice, text, sex, samples in said:
        heard = recognise(samples)
        errors, words = word_errors(text, heard)
        letter_errors, letters = character_errors(text, heard)
        rows.append(
            {
                "voice": voice,
                "sex": sex,
                "said": text,
                "heard": heard,
                "errors": errors,
                "words": words,
                "character_errors": letter_errors,
                "characters": letters,
            }
        )
    return rows


def error_rates(rows: Sequence[dict], of: str) -> dict:
    """Word and character error rate of rows of `transcribe`; voices and sentences are resampled."""
    factors = ([row["voice"] for row in rows], [row["said"] for row in rows])
    columns = {key: [row[key] for row in rows] for key in ("errors", "words", "character_errors", "characters")}
    return {
        "word_error_rate": ratio(columns["errors"], columns["words"], *factors, of=of),
        "character_error_rate": ratio(columns["character_errors"], columns["characters"], *factors, of=of),
    }


def recognise(samples: np.ndarray) -> str:
    """What pocketsphinx, with the model inside its package, hears: lower-case words.

    Args:
        samples: float32 (n,) in [-1, 1], 16 kHz.

    Raises:
        InputError: pocketsphinx is not installed.
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
    result = _jiwer().process_words(_words(said), _words(heard) or "-")
    return result.substitutions + result.deletions + result.insertions, len(_words(said).split())


def character_errors(said: str, heard: str) -> tuple[int, int]:
    """The same of characters, spaces between words counted as such."""
    result = _jiwer().process_characters(_words(said), _words(heard) or "-")
    return result.substitutions + result.deletions + result.insertions, len(_words(said))


def check_installed() -> None:
    """InputError if a package is missing; asked for before the work begins."""
    _jiwer()
    _decoder()


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", "", text.lower().replace("-", " ")).split())


@functools.cache
def _decoder():
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise InputError("no speech recogniser here: pip install 'face2voice[eval]' (pocketsphinx)") from error
    return Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")


def _jiwer():
    try:
        import jiwer
    except ImportError as error:
        raise InputError("nothing to count word errors with: pip install 'face2voice[eval]' (jiwer)") from error
    return jiwer
