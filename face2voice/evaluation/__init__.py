"""Measures a bundle on people and sentences it was not trained on."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from face2voice.pipeline import Face2Voice
from face2voice.recipes.sources import Portrait, read_voteview
from savedmodels import InputError

from .measures import bootstrap, harvard_sentences, median_f0, recognise, word_errors

log = logging.getLogger(__name__)

MEN_BELOW, WOMEN_ABOVE = 155.0, 165.0  # Hz, median F0 that is heard as the right sex
_SENTENCE_FOR_PITCH = "The old clock on the wall was ten minutes slow again."


def evaluate(
    tts: Face2Voice,
    faces: Path,
    people: int = 30,
    voices: int = 4,
    sentences: int = 20,
    vocoder: str = "wavernn",
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Sex and intelligibility over held-out portraits.

    Args:
        faces: folder of the voteview portraits; the people held out of training are taken.
        people: how many of them speak a sentence, half of them women.
        voices: how many of those speak Harvard sentences, half of them women.
        sentences: Harvard sentences per voice.

    Returns:
        figures as plain values, each with its 95 % confidence interval and its chance level where
        it has one.
    """
    chosen = held_out(faces, people)
    done, total = 0, len(chosen) + voices * sentences

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done / total)

    sex = []
    for portrait in chosen:
        speech = tts.speak(_SENTENCE_FOR_PITCH, tts.voice_from_face(portrait.photo), seed=1, vocoder=vocoder)
        f0 = median_f0(speech.samples)
        right = f0 < MEN_BELOW if portrait.sex == "m" else f0 > WOMEN_ABOVE
        sex.append({"photo": portrait.photo.name, "sex": portrait.sex, "f0": round(f0, 1), "right": bool(right)})
        tick()
    spoken = []
    for number, portrait in enumerate(chosen[:voices]):
        voice = tts.voice_from_face(portrait.photo)
        for sentence in harvard_sentences()[:sentences]:
            speech = tts.speak(sentence, voice, seed=number, vocoder=vocoder)
            heard = recognise(speech.samples)
            errors, words = word_errors(sentence, heard)
            spoken.append(
                {
                    "photo": portrait.photo.name,
                    "sex": portrait.sex,
                    "said": sentence,
                    "heard": heard,
                    "errors": errors,
                    "words": words,
                    "truncated": speech.truncated,
                    "real_time_factor": sum(speech.seconds.values()) / speech.duration,
                }
            )
            tick()
    return {
        "bundle": tts.bundle.name,
        "vocoder": vocoder,
        "sex": _sex_figures(sex),
        "intelligibility": _intelligibility_figures(spoken),
        "people": sex,
        "sentences": spoken,
    }


def held_out(faces: Path, people: int) -> list[Portrait]:
    """`people` portraits kept out of training, men and women in turn, in the order of the table."""
    portraits = [p for p in read_voteview(faces) if p.held_out]
    women, men = ([p for p in portraits if p.sex == sex] for sex in "fm")
    half = people // 2
    if len(women) < half or len(men) < half:
        raise InputError(f"{faces}: {len(women)} women and {len(men)} men are held out; {half} of each are asked for")
    return [portrait for pair in zip(women[:half], men[:half], strict=True) for portrait in pair]


def _sex_figures(people: Sequence[dict[str, Any]]) -> dict[str, Any]:
    right = [p["right"] for p in people]
    medians = {sex: [p["f0"] for p in people if p["sex"] == sex] for sex in "fm"}
    return {
        "people": len(people),
        "right": float(np.mean(right)),
        "interval": bootstrap(right),
        "chance": 0.5,
        "median_f0_women": float(np.median(medians["f"])),
        "median_f0_men": float(np.median(medians["m"])),
    }


def _intelligibility_figures(spoken: Sequence[dict[str, Any]]) -> dict[str, Any]:
    errors, words = (np.array([s[key] for s in spoken], float) for key in ("errors", "words"))
    voices = sorted({s["photo"] for s in spoken})
    return {
        "sentences": len(spoken),
        "word_error_rate": float(errors.sum() / words.sum()),
        "interval": bootstrap(errors / words, words),
        "by_voice": {
            voice: sum(s["errors"] for s in spoken if s["photo"] == voice)
            / sum(s["words"] for s in spoken if s["photo"] == voice)
            for voice in voices
        },
        "truncated": sum(s["truncated"] for s in spoken),
        "real_time_factor": float(np.median([s["real_time_factor"] for s in spoken])),
    }
