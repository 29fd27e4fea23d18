"""A bundle under test, what it was given and what it said: spoken once, measured by every part."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from encoder.face import load_photo
from face2voice.pipeline import Engine, Face2Voice, Speech
from face2voice.recipes.sources import Portrait
from face2voice.voice import Voice
from savedmodels import InputError
from synthesizer import audio
from vocoder import WaveRNN

from .texts import PORTRAIT_SENTENCE


@dataclasses.dataclass(frozen=True)
class Take:
    """A text as one person's voice said it."""

    portrait: Portrait
    text: str
    speech: Speech

    @property
    def person(self) -> str:
        return self.portrait.photo.stem


class Subject:
    """A bundle with the people who lend it their faces.

    Args:
        people: whose voices are taken; a photo without a face is left out and noted.
        tick: called after every text that was spoken.
    """

    def __init__(
        self,
        tts: Face2Voice,
        people: Sequence[Portrait],
        vocoder: Engine = "wavernn",
        seed: int = 0,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.tts = tts
        self.people = people
        self.vocoder = vocoder
        self.seed = seed
        self.tick = tick
        self.notes: list[str] = []
        self.face_seconds: list[float] = []
        self._warm = False
        self._takes: dict[tuple, list[Take]] = {}
        self._voices: dict[Path, Voice | None] = {}

    def voice(self, portrait: Portrait) -> Voice | None:
        """The voice of a portrait, None if no face is found on it."""
        if portrait.photo not in self._voices:
            started = time.perf_counter()
            try:
                voice = self.tts.voice_from_face(portrait.photo)
            except InputError as error:
                voice = None
                self.notes.append(f"left out: {error}")
            self._voices[portrait.photo] = voice
            self.face_seconds.append(time.perf_counter() - started)
        return self._voices[portrait.photo]

    @property
    def seen(self) -> list[Portrait]:
        """The people on whose photos a face was found."""
        return [portrait for portrait in self.people if self.voice(portrait)]

    def first(self, voices: int) -> list[Portrait]:
        """The first so many of `seen`; InputError if there is nobody."""
        people = list(itertools.islice((p for p in self.people if self.voice(p)), voices))
        if not people:
            raise InputError("no face was found on any of the portraits")
        return people

    def say(self, text: str, portrait: Portrait, number: int = 0) -> Take:
        """`text` in the voice of one of the people seen, the `number`-th text of its kind."""
        if not self._warm:
            self.tts.warm_up(self.vocoder)
            self._warm = True
        speech = self.tts.speak(text, self.voice(portrait), seed=self.seed + number, vocoder=self.vocoder)
        self.tick()
        return Take(portrait, text, speech)

    def say_each(self, texts: Sequence[str], voices: int) -> list[Take]:
        """Every text in each of the first so many voices; said once, however often it is asked for."""
        return self._said(texts, [(text, p, n) for p in self.first(voices) for n, text in enumerate(texts)])

    def say_in_turn(self, texts: Sequence[str], voices: int) -> list[Take]:
        """Every text once, the voices taking turns; likewise."""
        people = self.first(voices)
        return self._said(texts, [(text, people[n % len(people)], n) for n, text in enumerate(texts)])

    def _said(self, texts: Sequence[str], plan: Sequence[tuple[str, Portrait, int]]) -> list[Take]:
        key = (tuple(texts), len(plan))
        if key not in self._takes:
            self._takes[key] = [self.say(*planned) for planned in plan]
        return self._takes[key]

    @cached_property
    def portraits(self) -> list[Take]:
        """One sentence by everybody."""
        return [self.say(PORTRAIT_SENTENCE, portrait) for portrait in self.seen]

    def copy(self, samples: np.ndarray) -> np.ndarray:
        """Copy synthesis: float32 (n,) at 16 kHz -> its mel spectrogram -> the vocoder, (about n,)."""
        mel = audio.mel_spectrogram(samples)
        if self.vocoder == "griffin-lim":
            return audio.griffin_lim(mel, self.seed)
        return self._wavernn.generate(torch.from_numpy(mel), self.seed).numpy()

    @cached_property
    def _wavernn(self) -> WaveRNN:
        return WaveRNN.from_checkpoint(self.tts.bundle.path("vocoder")).to(self.tts.device)


def altered(photo: Path) -> dict[str, np.ndarray]:
    """Other photos of one person, made of one: name -> uint8 RGB (H, W, 3)."""
    from PIL import Image

    image = Image.fromarray(load_photo(photo))
    width, height = image.size
    cut = (width * 6 // 100, height * 6 // 100)
    variants = {
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turned left": image.rotate(6, Image.Resampling.BICUBIC),
        "turned right": image.rotate(-6, Image.Resampling.BICUBIC),
        "cropped": image.crop((cut[0], cut[1], width - cut[0], height - cut[1])),
        "darker": Image.eval(image, lambda level: int(level * 0.7)),
    }
    return {name: np.asarray(variant) for name, variant in variants.items()}
