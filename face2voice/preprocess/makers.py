"""What each model learns from, made of one utterance at a time.

A maker is plain data, so that it can be sent to other processes and machines; the networks it
needs are read there, once per process.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import librosa
import numpy as np
import torch
from torch import nn

from encoder import SpeechSpeakerEncoder
from encoder import audio as voice_audio
from encoder.face import DlibDetector, Face, crop_face
from face2voice.corpora import Utterance
from face2voice.speech2face.descriptor import describe, load_descriptor
from face2voice.speech2face.frame import crop_frame
from savedmodels import InputError
from synthesizer import Tacotron
from synthesizer import audio as speech_audio
from synthesizer.audio import FRAMES_PER_SECOND
from synthesizer.text import CHARACTERS, PHONES, TextFrontEnd, clean_characters, default_g2p, normalise

from .media import Unusable, read_frames, read_photo, read_sound

VOICE_SECONDS = 30.0  # of a clip; a voice needs no more
CLIP_SECONDS = 12.0  # of which the voice encoder of Speech2Face hears six at a time
MAX_FRAMES = 900  # of a mel; longer utterances are split or left out, as for the published synthesizer
MIN_FRAMES = 128  # 1.6 s, likewise
PAUSE = 0.4  # seconds between words where an utterance may be split
TRIM_DB = 40.0  # below the peak is silence, at the ends of an utterance
VIDEO_FRAMES = 3  # looked at in a clip

Arrays = dict[str, np.ndarray]


class Maker(Protocol):
    """Makes the records of one model.

    Attributes:
        model: its name on the command line.
        measured: the array, and the axis of it, that a record's length is counted by.
    """

    model: ClassVar[str]
    measured: ClassVar[tuple[str, int]]

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        """The parts of an utterance that make a record each; none if it has nothing for this model."""

    def make(self, job: Utterance, seed: int) -> Arrays:
        """The record.

        Raises:
            Unusable: it cannot be made of this clip.
        """


@dataclasses.dataclass(frozen=True)
class SpeechEncoderMaker:
    """mels: (frames, 40) float16, power of what speech was heard, 10 ms a frame."""

    model: ClassVar = "speech-encoder"
    measured: ClassVar = ("mels", 0)

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        return _heard(utterance)

    def make(self, job: Utterance, seed: int) -> Arrays:
        return {"mels": voice_audio.mel_spectrogram(_prepared(job, _sound(job))).astype(np.float16)}


@dataclasses.dataclass(frozen=True)
class FaceEncoderMaker:
    """Photos, clips and videos each make a record; the speaker's name tells which belong together.

    crops: (n, 160, 160, 3) uint8 RGB, of photo and video. voice: (256,) float32, unit length, GE2E
    of clip and video; raw: (256,) before ReLU and length, the mean over partial utterances;
    legacy_raw: (256,) likewise, of the whole clip through `encoder.audio.legacy_mel`.
    """

    speech_encoder: Path
    model: ClassVar = "face-encoder"
    measured: ClassVar = ("crops", 0)

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        return _heard_or_seen(utterance)

    def make(self, job: Utterance, seed: int) -> Arrays:
        arrays: Arrays = {"crops": np.zeros((0, 160, 160, 3), np.uint8)}
        if job.faces or job.video:
            arrays["crops"] = np.stack([crop_face(photo, face) for photo, face in _faces(job)])
        if job.audio:
            samples = _sound(job)[: round(VOICE_SECONDS * voice_audio.SAMPLE_RATE)]
            encoder, prepared = _speech_encoder(self.speech_encoder), _prepared(job, samples)
            with torch.inference_mode():
                legacy = torch.from_numpy(voice_audio.legacy_mel(samples))[None]
                arrays["legacy_raw"] = encoder.raw(legacy)[0].numpy()
                partials = torch.from_numpy(voice_audio.partial_mels(prepared))
                arrays["raw"] = encoder.raw(partials).mean(dim=0).numpy()
            arrays["voice"] = encoder.embed_utterance(prepared)
        return arrays


@dataclasses.dataclass(frozen=True)
class SynthesizerMaker:
    """symbols: (T,) int16, the end included. mel: (80, frames) float16 in [-4, 4]. voice: (256,)
    float32, unit length. Long utterances are split at pauses where the corpus times its words."""

    speech_encoder: Path
    symbols: Literal["phones", "characters"] = "phones"
    model: ClassVar = "synthesizer"
    measured: ClassVar = ("mel", 1)

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        return (part for heard in _heard(utterance) for part in split_at_pauses(heard))

    def make(self, job: Utterance, seed: int) -> Arrays:
        samples = _levelled(_sound(job), trim=True)
        return _spoken(job, samples, _front_end(self.symbols), self.speech_encoder)


@dataclasses.dataclass(frozen=True)
class VocoderMaker:
    """samples: (n,) int16, 16 kHz. mel: (80, n // 200 + 1) float16 in [-4, 4], of the sound, or as a
    synthesizer predicts it when each step is told the true frame before it."""

    speech_encoder: Path
    synthesizer: Path | None = None
    model: ClassVar = "vocoder"
    measured: ClassVar = ("samples", 0)

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        for heard in _heard(utterance):
            yield from split_at_pauses(heard) if self.synthesizer else (heard,)

    def make(self, job: Utterance, seed: int) -> Arrays:
        samples = (_levelled(_sound(job), trim=self.synthesizer is not None) * 32767).round().astype(np.int16)
        if self.synthesizer is None:
            return {"samples": samples, "mel": speech_audio.mel_spectrogram(samples / 32768).astype(np.float16)}
        synthesizer = _synthesizer(self.synthesizer)
        spoken = _spoken(job, samples / np.float32(32768), _front_end_of(self.synthesizer), self.speech_encoder)
        return {"samples": samples, "mel": _aligned(synthesizer, spoken, seed).astype(np.float16)}


@dataclasses.dataclass(frozen=True)
class VoiceEncoderMaker:
    """Photos, clips and videos each make a record, as for the face encoder.

    samples: (n,) int16, 16 kHz, at most 12 s, of clip and video; not empty if there was speech in
    it. feature: (features,) float32 of photo and video, the mean over its frames.
    """

    face_encoder: Path
    model: ClassVar = "voice-encoder"
    measured: ClassVar = ("samples", 0)

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        return _heard_or_seen(utterance)

    def make(self, job: Utterance, seed: int) -> Arrays:
        arrays: Arrays = {"samples": np.zeros(0, np.int16)}
        if job.audio:
            samples = _sound(job)[: round(CLIP_SECONDS * voice_audio.SAMPLE_RATE)]
            arrays["samples"] = (samples.clip(-1, 1) * 32767).round().astype(np.int16)
            _prepared(job, arrays["samples"] / np.float32(32767))  # as it will be heard, or there is no speech in it
        if job.faces or job.video:
            frames, _ = _frames(job)
            arrays["feature"] = describe(_descriptor(self.face_encoder), frames)[:, 0].mean(axis=0)
        return arrays


@dataclasses.dataclass(frozen=True)
class FaceDecoderMaker:
    """crops: (n, 224, 224, 3) uint8 RGB, upright. points: (n, 5, 2) float32, pixels of the crop, in
    the order of `encoder.face.Face`. features: (n, 2, features) float32, of each and of its mirror image."""

    face_encoder: Path
    model: ClassVar = "face-decoder"
    measured: ClassVar = ("crops", 0)

    def jobs(self, utterance: Utterance) -> Iterator[Utterance]:
        return (job for job in _heard_or_seen(utterance) if job.faces or job.video)

    def make(self, job: Utterance, seed: int) -> Arrays:
        crops, points = _frames(job)
        return {"crops": crops, "points": points, "features": describe(_descriptor(self.face_encoder), crops)}


MAKERS: dict[str, Callable[..., Maker]] = {
    maker.model: maker
    for maker in (
        SpeechEncoderMaker,
        FaceEncoderMaker,
        SynthesizerMaker,
        VocoderMaker,
        VoiceEncoderMaker,
        FaceDecoderMaker,
    )
}


def find_maker(
    model: str,
    speech_encoder: Path,
    symbols: str = "phones",
    synthesizer: Path | None = None,
    face_encoder: Path | None = None,
) -> Maker:
    """The maker of a model's records, told of what it has a use for.

    Args:
        speech_encoder: checkpoint of the GE2E encoder that gives the voices.
        symbols: "phones", or "characters" for the published synthesizer.
        synthesizer: checkpoint that predicts the vocoder's mels; true ones without it.
        face_encoder: checkpoint that describes the faces of Speech2Face, see `load_descriptor`.

    Raises:
        InputError: no such model or kind of symbols, or what describes faces is wanting.
    """
    if model not in MAKERS:
        raise InputError(f"no model {model!r}: choose one of {', '.join(MAKERS)}")
    if symbols not in ("phones", "characters"):
        raise InputError(f"no symbols {symbols!r}: choose phones or characters")
    options = {
        "speech_encoder": speech_encoder,
        "symbols": symbols,
        "synthesizer": synthesizer,
        "face_encoder": face_encoder,
    }
    fields = {field.name for field in dataclasses.fields(MAKERS[model])}
    if "face_encoder" in fields and face_encoder is None:
        raise InputError(f"the {model} learns from described faces; say by which face encoder")
    return MAKERS[model](**{name: value for name, value in options.items() if name in fields})


def split_at_pauses(utterance: Utterance) -> list[Utterance]:
    """Parts short enough for the synthesizer, as long as possible, cut in pauses of at least 0.4 s;
    the utterance itself if it is short or its words are not timed."""
    limit, words = MAX_FRAMES / FRAMES_PER_SECOND, utterance.words
    if not words or words[-1][2] - words[0][1] <= limit:
        return [utterance]
    phrases = [[words[0]]]
    for before, word in zip(words, words[1:], strict=False):
        if word[1] - before[2] >= PAUSE:
            phrases.append([])
        phrases[-1].append(word)
    parts = [phrases[0]]
    for phrase in phrases[1:]:
        if phrase[-1][2] - parts[-1][0][1] + PAUSE <= limit:
            parts[-1] = parts[-1] + phrase
        else:
            parts.append(phrase)
    margin = PAUSE / 2
    return [
        dataclasses.replace(
            utterance,
            text=" ".join(word for word, _, _ in part),
            span=(max(0.0, part[0][1] - margin), part[-1][2] + margin),
            words=tuple(part),
        )
        for part in parts
    ]


# ---- sound


def _heard(utterance: Utterance) -> Iterator[Utterance]:
    if utterance.audio:
        yield dataclasses.replace(utterance, faces=(), video=None)


def _heard_or_seen(utterance: Utterance) -> Iterator[Utterance]:
    """The clip with its video, and each photo: a photo of many clips is looked at once."""
    if utterance.audio or utterance.video:
        yield dataclasses.replace(utterance, faces=(), words=())
    for face in utterance.faces:
        yield Utterance(
            speaker=utterance.speaker, sex=utterance.sex, age=utterance.age, faces=(face,), split=utterance.split
        )


def _sound(job: Utterance) -> np.ndarray:
    return read_sound(job.audio, job.span)


def _prepared(job: Utterance, samples: np.ndarray) -> np.ndarray:
    try:
        return voice_audio.prepare(samples)
    except InputError as error:
        raise Unusable("no speech", job.audio) from error


def _levelled(samples: np.ndarray, trim: bool) -> np.ndarray:
    if trim:
        samples, _ = librosa.effects.trim(
            samples, top_db=TRIM_DB, frame_length=speech_audio.N_FFT, hop_length=speech_audio.HOP
        )
    return speech_audio.to_level(samples)


def _spoken(job: Utterance, samples: np.ndarray, front_end: TextFrontEnd, speech_encoder: Path) -> Arrays:
    """symbols, mel and voice of a levelled utterance."""
    symbols = _symbols(job, front_end)
    mel = speech_audio.mel_spectrogram(samples)
    if not MIN_FRAMES <= mel.shape[1] <= MAX_FRAMES:
        reason = "too long" if mel.shape[1] > MAX_FRAMES else "too short"
        raise Unusable(reason, job.audio, f"{mel.shape[1] / FRAMES_PER_SECOND:.1f} s")
    voice = _speech_encoder(speech_encoder).embed_utterance(_prepared(job, samples))
    return {"symbols": symbols, "mel": mel.astype(np.float16), "voice": voice}


def _symbols(job: Utterance, front_end: TextFrontEnd) -> np.ndarray:
    if not job.text:
        raise Unusable("no text", job.audio)
    # Where all is in capitals a word would be spelled out as if it were an abbreviation.
    text = job.text.lower() if job.text.isupper() else job.text
    try:
        spoken = normalise(text)
        spoken = clean_characters(spoken) if front_end.table.spelling == "characters" else spoken
    except InputError as error:
        raise Unusable("no text", job.audio, f"{text!r} cannot be spoken") from error
    return np.array(front_end.encode(spoken), np.int16)


def _aligned(synthesizer: Tacotron, spoken: Arrays, seed: int) -> np.ndarray:
    """(80, frames): the synthesizer's mel of a true one."""
    frames, r = spoken["mel"].shape[1], synthesizer.dims.r
    padding = (-frames) % r
    mel = np.pad(spoken["mel"].astype(np.float32), ((0, 0), (0, padding)), constant_values=-speech_audio.MAX_LEVEL)
    torch.manual_seed(seed)  # of the prenet's dropout
    with torch.inference_mode():
        output = synthesizer(
            torch.from_numpy(spoken["symbols"].astype(np.int64))[None],
            torch.from_numpy(mel)[None],
            torch.from_numpy(spoken["voice"])[None],
        )
    return output.post_mel[0, :, :frames].clamp(-speech_audio.MAX_LEVEL, speech_audio.MAX_LEVEL).numpy()


# ---- faces


def _faces(job: Utterance) -> list[tuple[np.ndarray, Face]]:
    """The photo or the frames in which the speaker's face was found, with it."""
    photos = [read_photo(path) for path in job.faces] or read_frames(job.video, job.span, VIDEO_FRAMES)
    found = [(photo, _speakers_face(_detector().detect(photo), photo, job.box)) for photo in photos]
    found = [(photo, face) for photo, face in found if face]
    if not found:
        raise Unusable("no face", job.files[-1])
    return found


def _speakers_face(faces: list[Face], photo: np.ndarray, box: tuple[float, float, float, float] | None) -> Face | None:
    """The face that holds the middle of the box or is nearest to it; the largest without a box."""
    if not faces or box is None:
        return max(faces, key=lambda face: face.area, default=None)
    height, width = photo.shape[:2]
    x, y = (box[0] + box[2]) / 2 * width, (box[1] + box[3]) / 2 * height

    def away(face: Face) -> float:
        left, top, right, bottom = face.box
        return float(np.hypot(x - (left + right) / 2, y - (top + bottom) / 2)) / (right - left)

    nearest = min(faces, key=away)
    return nearest if away(nearest) < 1 else None


def _frames(job: Utterance) -> tuple[np.ndarray, np.ndarray]:
    """(n, 224, 224, 3) uint8 and (n, 5, 2) float32, see `crop_frame`."""
    frames, points = zip(*(crop_frame(photo, face) for photo, face in _faces(job)), strict=True)
    return np.stack(frames), np.stack(points).astype(np.float32)


# ---- networks, once per process


@functools.cache
def _detector() -> DlibDetector:
    return DlibDetector()


@functools.cache
def _speech_encoder(path: Path) -> SpeechSpeakerEncoder:
    return SpeechSpeakerEncoder.from_checkpoint(path)


@functools.cache
def _descriptor(path: Path) -> nn.Module:
    return load_descriptor(path)[0]


@functools.cache
def _synthesizer(path: Path) -> Tacotron:
    return Tacotron.from_checkpoint(path)


@functools.cache
def _front_end(symbols: str) -> TextFrontEnd:
    table = CHARACTERS if symbols == "characters" else PHONES
    return TextFrontEnd(table.spelling, table.symbols, default_g2p() if table is PHONES else None)


@functools.cache
def _front_end_of(synthesizer: Path) -> TextFrontEnd:
    dims = _synthesizer(synthesizer).dims
    return TextFrontEnd(dims.spelling, dims.symbols, default_g2p() if dims.spelling == "phones" else None)
