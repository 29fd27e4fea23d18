"""Runs the parts of the evaluation over bundles, side by side."""

import dataclasses
import datetime
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence

import torch

from face2voice.corpora import Utterance
from face2voice.pipeline import Engine, Face2Voice
from face2voice.recipes.sources import Portrait
from face2voice.speech2face import Speech2Face
from savedmodels import InputError

from . import attention, intelligibility, sound, speech2face, speed, voices
from .figures import Section
from .judge import Judge, own_judge
from .material import COMPARED, KEPT_OUT, Material
from .takes import Subject
from .texts import PORTRAIT_SENTENCE, harvard_sentences, long_text, varied_sentences
from .voices import RealSpeaker

log = logging.getLogger(__name__)

PARTS = ("intelligibility", "voices", "pairs", "sound", "attention", "speech2face", "speed")
FLITE = ("rms", "slt")
READERS = "LibriSpeech readers"
NATURAL = "natural speech"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        parts: of `PARTS`.
        sentences: Harvard sentences, up to 40, each in so many `voices`.
        people: portraits that say one sentence.
        varied: of the 200 sentences that attention is tested with.
        long_text: characters, up to some 3,000; 0 for none.
        copies: originals of copy synthesis, up to 20.
        natural: sentences of natural speech.
        speakers: real speakers, for comparison and for the classifier of sex.
        portraits, clips: photos that are drawn again, and readers of whom a portrait is drawn.
        pairs: people, where no true pairs are given.
    """

    parts: tuple[str, ...] = PARTS
    sentences: int = 40
    voices: int = 6
    people: int = 120
    varied: int = 200
    long_text: int = 3000
    copies: int = KEPT_OUT
    natural: int = 40
    speakers: int = COMPARED
    portraits: int = 60
    clips: int = 40
    pairs: int = 24
    vocoder: Engine = "wavernn"
    seed: int = 0

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise InputError(f"no part {part!r}: choose from {', '.join(PARTS)}")


QUICK = Settings(
    **{"sentences": 5, "voices": 2, "people": 8, "varied": 10, "long_text": 600, "copies": 3, "natural": 6},
    **{"speakers": 24, "portraits": 12, "clips": 12, "pairs": 6},
)


@dataclasses.dataclass(frozen=True)
class Results:
    """What came out.

    Attributes:
        about: settings, machine, and exactly which people and sentences were used; plain values.
        bundles: bundle -> part -> what was found.
        references: likewise, of what the bundles are compared with.
    """

    about: dict
    bundles: dict[str, dict[str, Section]]
    references: dict[str, dict[str, Section]]


def evaluate(
    bundles: Mapping[str, Face2Voice],
    material: Material,
    settings: Settings = Settings(),
    judge: Judge | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Results:
    """Measures bundles on people and sentences that they were not trained on.

    Args:
        judge: of voices; without one, each bundle's own speech encoder, which flatters it.
        progress: called with the share that is done.

    Raises:
        InputError: a package that a part needs is missing.
        CheckpointError: a bundle lacks a part.
    """
    if {"intelligibility", "attention", "sound"} & set(settings.parts):
        intelligibility.check_installed()
    tick = _Counter(_texts(settings) * len(bundles), progress)
    heard: dict[str, list[RealSpeaker]] = {}  # by judge
    found = {}
    for name, tts in bundles.items():
        subject = Subject(tts, material.people, settings.vocoder, settings.seed, tick)
        measuring = _Measuring(subject, material, settings, judge or _own(tts, settings), heard)
        found[name] = {}
        for part in settings.parts:
            log.info("%s: %s", name, part)
            found[name][part] = getattr(measuring, part)()
    references = _references(material, settings, next(iter(heard.values()), []))
    progress(1.0)
    return Results(_about(bundles, material, settings, judge), found, references)


@dataclasses.dataclass(frozen=True)
class _Measuring:
    """The parts, by their names, of one bundle."""

    subject: Subject
    material: Material
    settings: Settings
    judge: Judge | None
    heard: dict[str, list[RealSpeaker]]

    def intelligibility(self) -> Section:
        return intelligibility.measure(self._harvard)

    def voices(self) -> Section:
        section = voices.measure(self.subject, self.judge, self._real)
        return dataclasses.replace(section, notes=[f"Judge: {self.judge.name}.", *section.notes, *self.subject.notes])

    def pairs(self) -> Section:
        if self.material.pairs:
            speakers = voices.listen(self.material.pairs, self.judge)
            pairs = [(_portrait(speaker.utterance), speaker) for speaker in speakers]
            label = "Real pairs of face and voice"
        else:
            # Only speechocean762 tells ages; its readers join where the faces are young enough.
            aged = voices.listen([u for u in self.material.natural if u.age is not None][:40], self.judge)
            pairs = voices.match_by_sex_and_age(self.subject.first(self.settings.pairs), [*aged, *self._real])
            label = (
                "A STAND-IN, no true pairs were given (--pairs): each face with a speaker of its sex and, where known, "
                "about its age. It tells whether sex and age are heard, not whether the person is"
            )
        section = voices.measure_pairs(self.subject, self.judge, pairs)
        return dataclasses.replace(section, notes=[f"{label}. Judge: {self.judge.name}.", *section.notes])

    def sound(self) -> Section:
        s = self.settings
        figures = sound.measure(self._varied if "attention" in s.parts else self._harvard)
        originals = self.material.originals[: s.copies]
        if not originals:
            return Section(figures, notes=["Copy synthesis: not measured, there is no speech/LibriSpeech in the data."])
        copies = sound.measure_copies(self.subject.copy, originals, self.subject.tick)
        subject, said = self.subject, intelligibility.natural(self.material.natural[: s.copies])
        parts = [copies, sound.measure_copied_words(subject.copy, said, subject.tick)]
        if intelligibility.flite_is_here():
            said = [intelligibility.flite(voice, text) for text in harvard_sentences()[: s.copies] for voice in FLITE]
            copied = sound.measure_copied_words(subject.copy, said, subject.tick)
            notes = [f"flite ({' and '.join(FLITE)}), whose voices a vocoder may have learned: {copied.notes[0]}"]
            renamed = {f"{name}_flite": figure for name, figure in copied.figures.items()}
            parts.append(Section(renamed, copied.rows, notes))
        for part in parts:
            figures |= part.figures
        rows, notes = ([item for part in parts for item in getattr(part, key)] for key in ("rows", "notes"))
        return Section(figures, rows, notes, copies.players)

    def attention(self) -> Section:
        long = None
        if self.settings.long_text:
            long = self.subject.say(_long(self.settings), self.subject.first(1)[0])
        return attention.measure(self._varied, long)

    def speech2face(self) -> Section:
        bundle, material, count = self.subject.tts.bundle, self.material, self.settings
        if not {"voice_encoder", "face_decoder"} <= bundle.parts.keys():
            return Section(notes=["This bundle has no Speech2Face."])
        s2f = Speech2Face(bundle, self.subject.tts.device)
        parts = [speech2face.measure_face_to_face(s2f, [p.photo for p in material.people[: count.portraits]])]
        clips = material.unheard(count.clips)
        judges = speech2face.Judges.learn(s2f, material.others) if material.others else None
        if clips and judges:
            parts.append(speech2face.measure_portraits(s2f, clips, judges))
        notes = ["Real pairs of face and voice were not given (--pairs)."]
        if material.pairs:
            parts.append(speech2face.measure_pairs(s2f, material.pairs, judges))
            notes = parts[-1].notes
        figures = {name: figure for part in parts for name, figure in part.figures.items()}
        return Section(figures, [row for part in parts for row in part.rows], notes)

    def speed(self) -> Section:
        return speed.measure(self._harvard, self.subject.face_seconds)

    @property
    def _harvard(self):
        return self.subject.say_each(harvard_sentences()[: self.settings.sentences], self.settings.voices)

    @property
    def _varied(self):
        return self.subject.say_in_turn(varied_sentences()[: self.settings.varied], self.settings.voices)

    @property
    def _real(self) -> list[RealSpeaker]:
        if self.judge.name not in self.heard:
            self.heard[self.judge.name] = voices.listen(self.material.speakers(self.settings.speakers), self.judge)
        return self.heard[self.judge.name]


class _Counter:
    """Counts what was spoken."""

    def __init__(self, total: int, progress: Callable[[float], None]) -> None:
        self.done, self.total, self.progress = 0, max(1, total), progress

    def __call__(self) -> None:
        self.done += 1
        self.progress(min(1.0, self.done / self.total))


def _texts(s: Settings) -> int:
    """How many texts a bundle will say, copies counted as such."""
    parts = set(s.parts)
    by_all = {"intelligibility", "speed"} & parts or "sound" in parts and "attention" not in parts
    harvard = s.sentences * s.voices * bool(by_all)
    counts = {
        "voices": s.people,
        "pairs": s.pairs,
        "sound": 4 * s.copies,  # of readers, of sentences known, of two flite voices
        "attention": s.varied + bool(s.long_text),
    }
    return harvard + sum(count for part, count in counts.items() if part in s.parts)


def _references(material: Material, s: Settings, real: Sequence[RealSpeaker]) -> dict[str, dict[str, Section]]:
    found: dict[str, dict[str, Section]] = {}
    if "intelligibility" in s.parts:
        if material.natural:
            found[NATURAL] = {"intelligibility": intelligibility.measure_natural(material.natural[: s.natural])}
        if intelligibility.flite_is_here():
            for voice in FLITE:
                texts = harvard_sentences()[: s.sentences]
                found[f"flite {voice}"] = {"intelligibility": intelligibility.measure_flite(voice, texts)}
    readers = {}
    if real and "voices" in s.parts:
        readers["voices"] = voices.measure_real(real)
    if len(real) > 1 and "pairs" in s.parts:
        readers["pairs"] = voices.measure_halves(real)
    if material.originals and "sound" in s.parts:
        readers["sound"] = sound.measure_originals(material.originals[: s.copies])
    return found | ({READERS: readers} if readers else {})


def _about(bundles: Mapping[str, Face2Voice], material: Material, s: Settings, judge: Judge | None) -> dict:
    first = next(iter(bundles.values()))
    clips = material.speakers(s.speakers)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "settings": dataclasses.asdict(s),
        "bundles": {name: _weights(tts) for name, tts in bundles.items()},
        "judge": judge.name if judge else "each bundle's own speech encoder, for want of the published GE2E",
        "recogniser": intelligibility.RECOGNISER,
        "machine": {
            "device": str(first.device),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "intervals": "95 %: bootstrap over people and sentences; Wilson's for shares of people, sentences or pieces",
        "people": [{"photo": p.photo.name, "sex": p.sex, "age": p.age} for p in material.people],
        "portrait_sentence": PORTRAIT_SENTENCE,
        "harvard_sentences": list(harvard_sentences()[: s.sentences]),
        "varied_sentences": list(varied_sentences()[: s.varied]),
        "long_text": _long(s) if s.long_text else "",
        "originals_of_copies": [_named(u) for u in material.originals[: s.copies]],
        "natural_speech": [_named(u) | {"text": u.text} for u in material.natural[: max(s.natural, s.copies)]],
        "real_speakers": [_named(u) for u in clips],
        "pairs": [_named(u) | {"photo": u.faces[0].name} for u in material.pairs],
    }


def _weights(tts: Face2Voice) -> dict:
    sizes = {part: path.stat().st_size for part, path in tts.bundle.parts.items()}
    return {"folder": str(tts.bundle.folder), "mebibytes": round(sum(sizes.values()) / 2**20, 1), "bytes": sizes}


def _long(s: Settings) -> str:
    """The long text, cut at the end of a sentence."""
    text = long_text()
    if len(text) <= s.long_text:
        return text
    return text[: text.rfind(". ", 0, s.long_text) + 1] or text[: s.long_text]


def _named(utterance: Utterance) -> dict:
    return {"speaker": utterance.speaker, "audio": utterance.audio.name, "sex": utterance.sex, "age": utterance.age}


def _portrait(pair: Utterance) -> Portrait:
    return Portrait(pair.faces[0], pair.sex, pair.age, held_out=True)


def _own(tts: Face2Voice, settings: Settings) -> Judge | None:
    return own_judge(tts.bundle) if {"voices", "pairs"} & set(settings.parts) else None
