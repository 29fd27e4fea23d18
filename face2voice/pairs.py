"""People with photos and clips, to fine-tune the face encoder on."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .corpora import Utterance, read_corpus

YEARS_APART = 10.0  # at most, of a face and a voice that stand in for one person
_FACES = 3  # of each of them, at most
_ONE_PERSON = ("faces", "speech")


def read_people(path: Path) -> list[Utterance]:
    """Photos and clips by speaker.

    Args:
        path: a manifest (JSON lines); a folder that holds one for each person, with photos and clips
            at any depth; or the folder of one person, with ``faces/`` and ``speech/`` in it.

    Raises:
        InputError: no such path, nothing in it, or a line of the manifest is no record.
    """
    path = Path(path).absolute()
    if path.is_file():
        return list(read_corpus("manifest", path))
    people = list(read_corpus("people", path))
    if all((path / name).is_dir() for name in _ONE_PERSON):
        return [dataclasses.replace(one, speaker=path.name) for one in people if one.speaker in _ONE_PERSON]
    return people


def read_corpora(corpora: Iterable[tuple[str, Path]], by_sex_and_age: bool = False, seed: int = 0) -> list[Utterance]:
    """Photos and clips of (name, path) corpora, speakers being told apart by the corpus's name.

    Args:
        by_sex_and_age: the faces are not the speakers': see `match_by_sex_and_age`.
    """
    utterances = [
        dataclasses.replace(utterance, speaker=f"{name}/{utterance.speaker}")
        for name, path in corpora
        for utterance in read_corpus(name, path)
    ]
    return match_by_sex_and_age(utterances, seed) if by_sex_and_age else utterances


def match_by_sex_and_age(utterances: Iterable[Utterance], seed: int = 0) -> list[Utterance]:
    """Gives speakers the faces of people like them: a stand-in for true pairs.

    Speakers take turns in an order that `seed` draws. Each takes, of the faces of the same sex, the
    nearest in age (or one at random if an age is unknown), no further than `YEARS_APART`; a face is
    taken once. Who has a face or a voice of a split other than "train" is of that split, as are all
    the faces he takes. Speakers who get none are left out, and so is who is of unknown sex.
    """
    rng = np.random.default_rng(seed)
    clips, left = defaultdict(list), defaultdict(list)
    for utterance in utterances:
        if utterance.sex and utterance.audio:
            clips[utterance.speaker].append(utterance)
        elif utterance.sex and utterance.faces:
            left[utterance.sex].append(utterance)
    for faces in left.values():
        rng.shuffle(faces)
    taken = defaultdict(list)
    splits = {speaker: heard[0].split for speaker, heard in clips.items() if heard[0].split != "train"}
    for _ in range(_FACES):
        for speaker in rng.permutation(sorted(clips)).tolist():
            like = clips[speaker][0]
            faces = [face for face in left[like.sex] if splits.get(speaker, face.split) == face.split]
            nearest = min(faces, key=lambda face: _years_apart(face, like), default=None)
            if nearest and _years_apart(nearest, like) <= YEARS_APART:
                left[like.sex].remove(nearest)
                taken[speaker].append(nearest)
                splits[speaker] = nearest.split
    return [
        dataclasses.replace(one, speaker=speaker, split=splits[speaker])
        for speaker, faces in taken.items()
        for one in (*faces, *clips[speaker])
    ]


def at_most(utterances: Iterable[Utterance], count: int) -> Iterator[Utterance]:
    """The first `count` clips and the first `count` photos of each speaker."""
    clips, photos = Counter(), Counter()
    for utterance in utterances:
        faces = utterance.faces[: max(0, count - photos[utterance.speaker])]
        photos[utterance.speaker] += len(faces)
        heard = bool(utterance.audio or utterance.video)
        clips[utterance.speaker] += heard
        if heard and clips[utterance.speaker] <= count:
            yield dataclasses.replace(utterance, faces=faces)
        elif faces:
            yield dataclasses.replace(utterance, audio=None, video=None, faces=faces)


def _years_apart(one: Utterance, other: Utterance) -> float:
    return 0.0 if one.age is None or other.age is None else abs(one.age - other.age)
