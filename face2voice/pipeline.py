"""The product: a face or a clip to a voice, a text and a voice to speech."""

import dataclasses
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import soundfile as sf
import torch

from encoder import FaceSpeakerEncoder, SpeechSpeakerEncoder
from encoder.audio import Clip
from encoder.calibration import Calibration
from encoder.face import FaceDetector, Photo, crop_from_photo, faces_to_tensor, find_detector, photo_name
from savedmodels import Bundle, CheckpointError, InputError, find_bundle, write_atomically
from synthesizer import Spoken, Tacotron, audio
from synthesizer.equalizer import Equalizer
from synthesizer.text import LettersToPhones, Piece, TextFrontEnd
from vocoder import WaveRNN

from .voice import Voice
from .voicespace import VoiceSpace

SAMPLE_RATE = audio.SAMPLE_RATE
MADE_BY = "AI-generated speech, made with Face2Voice"

PAUSES = {"none": 0.02, "clause": 0.15, "sentence": 0.40, "paragraph": 0.75}
"""Seconds of silence behind a piece, by what ends with it."""

_ATTEMPTS = 3  # at a piece whose attention fails
_FADE = SAMPLE_RATE // 200  # samples; a piece begins and ends at zero, without a click
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}

Engine = Literal["wavernn", "griffin-lim"]
Networks = TypeVar("Networks", bound="BundleNetworks")


@dataclasses.dataclass(frozen=True, eq=False)
class Speech:
    """Spoken text, or one piece of it.

    Attributes:
        samples: float32 (n,) in [-1, 1], the pause behind it included.
        sample_rate: 16,000 Hz.
        mel: float32 (80, frames) in [-4, 4], without the pauses.
        alignments: per piece (decoder steps, symbols), attention's weights.
        texts: per piece what was said, numbers and abbreviations written out.
        truncated: whether a piece was cut off because the network found no end.
        seconds: time that each stage took.
    """

    samples: np.ndarray
    mel: np.ndarray
    alignments: tuple[np.ndarray, ...]
    texts: tuple[str, ...]
    truncated: bool
    seconds: dict[str, float]
    sample_rate: int = SAMPLE_RATE

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return len(self.samples) / self.sample_rate

    def save(self, path: str | os.PathLike) -> None:
        """Writes 16-bit sound, tagged as AI-generated; WAV, FLAC or OGG by the path's ending.

        Raises:
            InputError: another ending, or a folder that cannot be written to.
        """
        path = check_sound_path(path)
        buffer = io.BytesIO()
        with sf.SoundFile(buffer, "w", self.sample_rate, 1, format=_FORMATS[path.suffix.lower()]) as file:
            file.comment = MADE_BY
            file.write(self.samples)
        try:
            write_atomically(path, buffer.getvalue())
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error

    @staticmethod
    def join(pieces: Sequence["Speech"]) -> "Speech":
        """Pieces one after the other."""
        stages = {stage for piece in pieces for stage in piece.seconds}
        return Speech(
            samples=np.concatenate([piece.samples for piece in pieces]),
            mel=np.concatenate([piece.mel for piece in pieces], axis=1),
            alignments=tuple(a for piece in pieces for a in piece.alignments),
            texts=tuple(t for piece in pieces for t in piece.texts),
            truncated=any(piece.truncated for piece in pieces),
            seconds={stage: sum(piece.seconds.get(stage, 0.0) for piece in pieces) for stage in sorted(stages)},
        )


class BundleNetworks:
    """One bundle's networks on one device, each read when first needed."""

    def __init__(self, bundle: Bundle, device: torch.device):
        self.bundle = bundle
        self.device = device
        self._parts: dict[str, torch.nn.Module] = {}
        self._detector: FaceDetector | None = None

    @classmethod
    def load(cls: type[Networks], bundle: str | os.PathLike = "default", device: str = "auto") -> Networks:
        """A bundle by name, or a folder laid out like one.

        Args:
            device: "auto" (a GPU if there is one), "cpu" or "cuda".

        Raises:
            CheckpointError: no such bundle.
            InputError: a GPU was asked for and there is none.
        """
        return cls(find_bundle(bundle), find_device(device))

    def _part(self, name: str, read: Callable[[Path], torch.nn.Module]) -> torch.nn.Module:
        if name not in self._parts:
            self._parts[name] = read(self.bundle.path(name)).to(self.device)
        return self._parts[name]

    def _own_detector(self) -> FaceDetector:
        self._detector = self._detector or find_detector(device=self.device)
        return self._detector


class Face2Voice(BundleNetworks):
    """Face or clip to voice, text and voice to speech.

    >>> tts = Face2Voice.load("default")
    >>> voice = tts.voice_from_face("photo.jpg")
    >>> tts.speak("Hello there.", voice).save("hello.wav")
    """

    _front_end: TextFrontEnd | None = None

    def warm_up(self, vocoder: Engine = "wavernn") -> None:
        """Reads what speaking needs and has the vocoder compiled: the first sentence is then as quick as others."""
        self._text()
        if vocoder == "wavernn":
            self._part("vocoder", WaveRNN.from_checkpoint).generate(torch.zeros(audio.N_MELS, 1))

    # ---- voices

    def voice_from_face(
        self,
        photo: Photo | Sequence[Photo],
        face: int | None = None,
        detector: FaceDetector | None = None,
        legacy_app: bool = False,
    ) -> Voice:
        """The voice that suits a face.

        Args:
            photo: path, PIL image or uint8 RGB array (H, W, 3); of several photos (a list) the
                average is taken.
            face: which face, 0 being the largest; the largest if None.
            detector: see `encoder.face.find_detector`.
            legacy_app: feed the network as the first Face2Voice web app did.

        Raises:
            InputError: a photo cannot be read or shows no such face.
        """
        if isinstance(photo, list | tuple):
            return Voice.mix([self.voice_from_face(one, face, detector, legacy_app) for one in photo])
        crop = crop_from_photo(photo, face, detector or self._own_detector())
        encoder = self._part("face_encoder", FaceSpeakerEncoder.from_checkpoint)
        embedding = encoder.embed(faces_to_tensor(crop).to(self.device), legacy_app)
        if self.bundle.find("calibration") and not legacy_app:  # that app had none
            embedding = self._part("calibration", Calibration.from_checkpoint)(embedding)
        return Voice(embedding[0].cpu().numpy(), photo_name(photo))

    def voice_from_speech(self, clip: Clip) -> Voice:
        """The voice of a clip: a path, or (samples, rate in Hz).

        Raises:
            InputError: the clip cannot be read, is too short or holds no speech.
        """
        encoder = self._part("speech_encoder", SpeechSpeakerEncoder.from_checkpoint)
        return Voice(encoder.embed(clip), "clip" if isinstance(clip, tuple) else str(clip))

    def voice_space(self) -> VoiceSpace:
        """The known voices: this bundle's, or the default's (all bundles share the space of one speech encoder)."""
        path = self.bundle.find("voices") or find_bundle("default").path("voices")
        return VoiceSpace.load(path)

    # ---- speech

    def speak(
        self,
        text: str,
        voice: Voice,
        seed: int = 0,
        speed: float = 1.0,
        pause: float = 1.0,
        vocoder: Engine = "wavernn",
        progress: Callable[[float], None] | None = None,
    ) -> Speech:
        """Says `text`; the arguments are those of `stream`.

        Args:
            progress: called with the share of the text that is spoken, 0 to 1.
        """
        total = len(self.pieces(text))
        spoken = []
        for piece in self.stream(text, voice, seed, speed, pause, vocoder):
            spoken.append(piece)
            if progress:
                progress(len(spoken) / total)
        return Speech.join(spoken)

    def stream(
        self,
        text: str,
        voice: Voice,
        seed: int = 0,
        speed: float = 1.0,
        pause: float = 1.0,
        vocoder: Engine = "wavernn",
    ) -> Iterator[Speech]:
        """Says `text` piece by piece, each given out as soon as it is ready.

        Args:
            text: up to 10,000 characters of English.
            seed: the same seed gives the same samples on the same device.
            speed: factor on the tempo, 0.5 to 2.
            pause: factor on the silences between pieces, 0 to 5.
            vocoder: "wavernn", or "griffin-lim" (no network, a hollow sound).

        Raises:
            InputError: the text is empty, too long, or nothing in it can be spoken; an option
                is out of its range.
        """
        if not 0.5 <= speed <= 2:
            raise InputError(f"speed is {speed}; choose 0.5 to 2")
        if not 0 <= pause <= 5:
            raise InputError(f"pause is {pause}; choose 0 to 5")
        if vocoder not in ("wavernn", "griffin-lim"):
            raise InputError(f"no vocoder {vocoder!r}: choose wavernn or griffin-lim")
        pieces = self.pieces(text)
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            silence = 0.0 if last else PAUSES[piece.pause] * pause
            yield self._speak_piece(piece, voice, _piece_seed(seed, number), speed, silence, vocoder)

    def pieces(self, text: str) -> list[Piece]:
        """What `stream` will say one at a time; InputError as there."""
        return self._text().pieces(text)

    def _speak_piece(
        self, piece: Piece, voice: Voice, seed: int, speed: float, silence: float, vocoder: Engine
    ) -> Speech:
        started = time.perf_counter()
        spoken = self._synthesize(piece, voice, seed)
        mel = spoken.mel
        if self.bundle.find("equalizer"):
            mel = self._part("equalizer", Equalizer.from_checkpoint)(mel, torch.from_numpy(voice.embedding))
        mel = _change_tempo(mel, speed)
        synthesized = time.perf_counter()
        if vocoder == "griffin-lim":
            samples = audio.griffin_lim(mel.numpy(), seed)
        else:
            samples = self._part("vocoder", WaveRNN.from_checkpoint).generate(mel, seed).numpy()
        samples = np.concatenate([_finish(samples), np.zeros(round(silence * SAMPLE_RATE), np.float32)])
        vocoded = time.perf_counter()
        return Speech(
            samples,
            mel.numpy(),
            (spoken.alignment.numpy(),),
            (piece.text,),
            not spoken.finished,
            {"synthesizer": synthesized - started, "vocoder": vocoded - synthesized},
        )

    def _synthesize(self, piece: Piece, voice: Voice, seed: int) -> Spoken:
        """The first attempt whose attention went through the text, else the last that was made."""
        symbols = self._text().encode(piece.text)
        embedding = torch.from_numpy(voice.embedding)[None]
        synthesizer = self._part("synthesizer", Tacotron.from_checkpoint)
        for attempt in range(_ATTEMPTS):
            (spoken,) = synthesizer.generate([symbols], embedding, [seed + attempt])
            if spoken.finished and attended_in_order(spoken.alignment):
                break
        return spoken

    def _text(self) -> TextFrontEnd:
        if self._front_end is None:
            dims = self._part("synthesizer", Tacotron.from_checkpoint).dims
            guesser = self.bundle.find("g2p") if dims.spelling == "phones" else None
            guesser = guesser and LettersToPhones.from_checkpoint(guesser)
            try:
                self._front_end = TextFrontEnd(dims.spelling, dims.symbols, guesser)
            except ValueError as error:
                raise CheckpointError(f"{self.bundle.path('synthesizer')}: cannot be spoken to: {error}") from error
        return self._front_end


def find_device(name: str = "auto") -> torch.device:
    """ "auto", "cpu" or "cuda" as a device; InputError if it is not to be had."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"no device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device here: choose --device auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def check_sound_path(path: str | os.PathLike) -> Path:
    """`path` if sound can be written there; InputError otherwise. Cheap: asked before the work is done."""
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: end the name in {', '.join(_FORMATS)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    return path


def attended_in_order(alignment: torch.Tensor) -> bool:
    """Whether attention (steps, symbols) went through the text once, without leaps or a missing end."""
    steps, symbols = alignment.shape
    place = alignment @ torch.arange(symbols, dtype=alignment.dtype)
    leaps = place.diff()
    return bool(
        place[-1] > symbols - 1 - max(3, 0.1 * symbols)
        and (not len(leaps) or (leaps.max() < max(8, 0.15 * symbols) and leaps.min() > -max(4, 0.1 * symbols)))
    )


def _piece_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _change_tempo(mel: torch.Tensor, speed: float) -> torch.Tensor:
    """(80, frames) played `speed` times as fast; the pitch stays, as it is in the bands."""
    if speed == 1.0:
        return mel
    frames = max(1, round(mel.shape[1] / speed))
    return torch.nn.functional.interpolate(mel[None], size=frames, mode="linear", align_corners=True)[0]


def _finish(samples: np.ndarray) -> np.ndarray:
    """One piece at the common loudness, faded in and out over 5 ms."""
    samples = audio.to_level(samples)
    fade = min(_FADE, len(samples) // 2)
    if fade:
        ramp = np.linspace(0, 1, fade)
        samples[:fade] *= ramp
        samples[-fade:] *= ramp[::-1]
    return samples
