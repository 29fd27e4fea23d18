"""What the evaluation is done on: people held out, real speech, and pairs of the two."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from encoder.audio import MAX_SECONDS
from face2voice.corpora import Utterance, read_manifest
from face2voice.corpora.speech import librispeech, speechocean762
from face2voice.preprocess.media import read_sound
from face2voice.recipes.sources import Portrait, is_speaker_held_out, read_voteview
from savedmodels import InputError

log = logging.getLogger(__name__)

Item = TypeVar("Item", Utterance, Portrait)

_ADULT = 18  # years
_FEWEST_WORDS = 5  # of a sentence that is recognised
COMPARED = 100  # readers that voices are compared with, half of them women; the recipes fit no voice to them
KEPT_OUT = 20  # readers of LibriSpeech that the recipes train no vocoder on: the first, by path


@dataclasses.dataclass(frozen=True)
class Material:
    """People and recordings; what is missing is empty, and the parts that need it say so.

    Attributes:
        people: portraits held out of training.
        others: portraits that were trained on; a judge of sex may learn from them.
        readers: LibriSpeech, one clip of each reader, in the order of paths.
        natural: adults of whom it is known what they say, one sentence each.
        pairs: clips of people with photos, one for each person.
    """

    people: Sequence[Portrait]
    others: Sequence[Portrait] = ()
    readers: Sequence[Utterance] = ()
    natural: Sequence[Utterance] = ()
    pairs: Sequence[Utterance] = ()

    @property
    def originals(self) -> Sequence[Utterance]:
        """Real speakers whom the vocoder has not heard."""
        return self.readers[:KEPT_OUT]

    def speakers(self, count: int) -> list[Utterance]:
        """Readers, half of them women, as many as there are up to `count`."""
        return _in_turn(self.readers)[:count]

    def unheard(self, count: int) -> list[Utterance]:
        """Likewise, of the readers whom Speech2Face did not hear in training."""
        return _in_turn([reader for reader in self.readers if is_speaker_held_out(reader.speaker)])[:count]


def read_clip(utterance: Utterance, seconds: float = MAX_SECONDS) -> np.ndarray | None:
    """The first seconds of what it says: float32 (n,), 16 kHz, whatever kind of file. None, and a warning, if that
    cannot be read: one clip of many must not end an evaluation."""
    start, end = utterance.span or (0.0, np.inf)
    try:
        return read_sound(utterance.audio, (start, min(end, start + seconds)))
    except InputError as error:
        log.warning("%s", error)
        return None


def find_material(
    data: Path | None, people: int, faces: Path | None = None, pairs: Path | None = None, natural: Path | None = None
) -> Material:
    """What lies in the folder of data: ``faces/voteview``, ``speech/LibriSpeech``, ``speech/speechocean762``.

    Args:
        people: how many portraits are wanted; of none there need be no folder.
        faces, natural: folders in place of ``faces/voteview`` and, for what is natural, of what is in ``speech``.
        pairs: manifest of `Utterance`s with faces.

    Raises:
        InputError: no portraits, too few of them, or a manifest that is none.
    """
    if people and not (data or faces):
        raise InputError("give the folder of data with --data, or that of the portraits with --faces")
    if data and not data.is_dir():
        raise InputError(f"{data}: no such folder; give one with faces/voteview and speech/")
    folder = faces or (data / "faces" / "voteview" if data else None)
    if people and not (folder / "members.csv").is_file():
        raise InputError(f"{folder / 'members.csv'}: no such file; give the folder that holds members.csv and images/")
    readers = natural_speech = ()
    if data and (data / "speech" / "LibriSpeech").is_dir():
        readers = _one_each(sorted(librispeech(data / "speech" / "LibriSpeech"), key=lambda u: u.audio))
    spoken = natural or (data / "speech" / "speechocean762" if data else None)
    if spoken and spoken.is_dir():
        natural_speech = _one_each(u for u in speechocean762(spoken) if u.split == "test" and _is_sentence(u))
    if not natural:
        natural_speech = [reader for reader in readers if reader.text] or natural_speech
    return Material(
        people=held_out(folder, people) if people else (),
        others=_in_turn([portrait for portrait in read_voteview(folder) if not portrait.held_out]) if people else (),
        readers=readers,
        natural=natural_speech,
        pairs=_pairs(read_manifest(pairs), pairs) if pairs else (),
    )


def held_out(faces: Path, people: int) -> list[Portrait]:
    """`people` portraits kept out of training, in the order of the table: women and men in turn while
    both last, then whoever is left.

    Raises:
        InputError: there are fewer.
    """
    portraits = [p for p in read_voteview(faces) if p.held_out]
    women, men = ([p for p in portraits if p.sex == sex] for sex in "fm")
    if len(women) + len(men) < people:
        raise InputError(f"{faces}: {len(women)} women and {len(men)} men are held out; {people} people are asked for")
    both = min(len(women), len(men))
    return (_in_turn(women + men) + women[both:] + men[both:])[:people]


def _in_turn(people: Iterable[Item]) -> list[Item]:
    """Women and men in turn, while both last."""
    people = list(people)
    by_sex = [[person for person in people if person.sex == sex] for sex in "fm"]
    return [person for pair in zip(*by_sex, strict=False) for person in pair]


def _is_sentence(utterance: Utterance) -> bool:
    adult = utterance.age is None or utterance.age >= _ADULT
    return adult and len((utterance.text or "").split()) >= _FEWEST_WORDS


def _one_each(utterances: Iterable[Utterance]) -> list[Utterance]:
    first: dict[str, Utterance] = {}
    for utterance in utterances:
        first.setdefault(utterance.speaker, utterance)
    return list(first.values())


def _pairs(utterances: Sequence[Utterance], manifest: Path) -> list[Utterance]:
    """A record for each person, with a clip and photos, which may come from different records."""
    people: dict[str, Utterance] = {}
    for utterance in utterances:
        known = people.setdefault(utterance.speaker, utterance)
        people[utterance.speaker] = dataclasses.replace(
            known,
            audio=known.audio or utterance.audio,
            span=known.span if known.audio else utterance.span,
            faces=tuple(dict.fromkeys((*known.faces, *utterance.faces))),
            sex=known.sex or utterance.sex,
            age=utterance.age if known.age is None else known.age,
        )
    complete = [person for person in people.values() if person.audio and person.faces]
    if len(complete) < 2:
        raise InputError(f"{manifest}: {len(complete)} people have both a clip and a photo; at least 2 are needed")
    return complete
