"""What the default bundle's Speech2Face networks learn from."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse

from face2voice.corpora import read_corpus
from face2voice.speech2face.audio import load_clip
from face2voice.speech2face.decoder import FaceDecoder
from face2voice.speech2face.face2speech import VoiceDecoder, VoiceDecoderDims
from face2voice.speech2face.judges import sex_classifier
from face2voice.speech2face.pairing import pair_by_sex_and_age
from face2voice.speech2face.portraits import Portraits
from face2voice.speech2face.train import VoiceDecoderTask, VoiceEncoderTask
from face2voice.speech2face.voice_encoder import VoiceEncoder, VoiceEncoderDims
from savedmodels import InputError

from .sources import Portrait, is_speaker_held_out

log = logging.getLogger(__name__)

ADULT = 18  # years
CLIPS_PER_SPEAKER = 10

Person = tuple[str | None, float | None]  # sex, age in years


def voice_encoder_task(
    speech: Path, frames: Portraits, people: list[Portrait], decoder: FaceDecoder
) -> VoiceEncoderTask:
    """Real adults' speech, each clip with the mean face of the people of the speaker's sex and about the
    speaker's age. Faces drawn among them teach the same, by many more steps: who one of them is says
    nothing of the voice.

    Some speakers are held out (`is_speaker_held_out`), and so are the portraits' held-out people.

    Args:
        speech: folder with ``LibriSpeech`` (sex, no age) and ``speechocean762`` (both).
        people: of each of the `frames`.
    """
    learning, apart = _clips(speech)
    features, faces = _shown(frames, people)
    typical = pair_by_sex_and_age([speaker for _, speaker in (*learning, *apart)], faces) @ features
    own = scipy.sparse.eye_array(len(typical), format="csr")
    return VoiceEncoderTask(
        VoiceEncoder(VoiceEncoderDims()),
        [clip for clip, _ in learning],
        faces=typical,
        table=own[: len(learning)],
        decoder=decoder,
        held_out=([clip for clip, _ in apart], own[len(learning) :]),
        sex=sex_classifier(features, [sex for sex, _ in faces]),
    )


def voice_decoder_task(speech: Path, frames: Portraits, people: list[Portrait]) -> VoiceDecoderTask:
    """The faces of people with clips of speakers of their sex and about their age; the arguments are as of
    `voice_encoder_task`, and so is who is held out."""
    learning, _ = _clips(speech)
    features, faces = _shown(frames, people)
    table = pair_by_sex_and_age([speaker for _, speaker in learning], faces)
    return VoiceDecoderTask(VoiceDecoder(VoiceDecoderDims()), [clip for clip, _ in learning], features, table)


def _shown(frames: Portraits, people: list[Portrait]) -> tuple[np.ndarray, list[Person]]:
    """Features (n, features) of the people who are not held out, and their sexes and ages."""
    shown = [i for i, person in enumerate(people) if not person.held_out]
    return frames.features[shown, 0], [(people[i].sex, people[i].age) for i in shown]


def _clips(speech: Path) -> tuple[list[tuple[np.ndarray, Person]], list[tuple[np.ndarray, Person]]]:
    """Clips to learn from and clips held out, each with its speaker's sex and age."""
    parts: tuple[list, list] = ([], [])
    for corpus in ("LibriSpeech", "speechocean762"):
        taken: Counter[str] = Counter()
        for utterance in read_corpus(corpus.lower(), speech / corpus):
            child = utterance.age is not None and utterance.age < ADULT
            if child or utterance.sex is None or taken[utterance.speaker] == CLIPS_PER_SPEAKER:
                continue
            try:
                clip = load_clip(utterance.audio)
            except InputError as error:
                log.warning("%s", error)
                continue
            taken[utterance.speaker] += 1
            parts[is_speaker_held_out(utterance.speaker)].append((clip, (utterance.sex, utterance.age)))
    return parts
