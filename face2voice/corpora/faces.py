"""Readers of the corpora that show faces."""

import csv
import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from .files import PHOTO, SOUND, VIDEO, files, folders, lines, published_split, table_beside, text_beside
from .record import Utterance

log = logging.getLogger(__name__)

_VOXCELEB_ID = re.compile(r"id\d{5}")
_VOXCELEB1_TEST = ("id10270", "id10309")  # the verification test's first and last speaker
_VOXCELEB_FACES = ("unzippedFaces", "origin_faces", "masked_faces")  # VoxCeleb1's own; HQ-VoxCeleb's two
_GRID_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvwxyz"},
    dict(zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
_GRID_UNITS = 25_000  # of the alignments, in a second


@dataclasses.dataclass(frozen=True)
class _Person:
    speaker: str
    sex: str | None = None
    split: str | None = None


def voxceleb(root: Path) -> Iterator[Utterance]:
    """VoxCeleb 1 and 2 (Nagrani et al., 2017; Chung et al., 2018), and HQ-VoxCeleb's photos of them.

    Sound is .../idNNNNN/VIDEO/*.wav or, as published for the second, aac/.../*.m4a, with the
    face-cropped video in mp4/... under the same name. Photos are unzippedFaces/NAME/1.6/VIDEO/*.jpg,
    or HQ-VoxCeleb's origin_faces/NAME/*.jpg or masked_faces/NAME/*.jpg; the tables *meta.csv tell
    whose they are. Each folder of photos is a record without sound.
    """
    people = _voxceleb_people(root)
    for folder, names in folders(root):
        place = (root.name, *folder.relative_to(root).parts)  # what lies above it may have any name
        name = next((part for part in reversed(place) if _VOXCELEB_ID.fullmatch(part)), None)
        name = name or _voxceleb_name(folder)
        if name is None:
            continue
        person = people.get(name, _Person(name))
        known = {"speaker": person.speaker, "sex": person.sex, "split": person.split or _voxceleb_split(place, name)}
        photos = tuple(folder / name for name in names if name.lower().endswith(PHOTO))
        if photos:
            yield Utterance(faces=photos, **known)
        for clip in (folder / name for name in names if name.lower().endswith(SOUND + VIDEO)):
            if clip.suffix not in VIDEO:
                yield Utterance(clip, video=_twin(clip, "mp4", ".mp4"), **known)
            elif not _twin(clip, "aac", ".m4a", ".wav"):
                yield Utterance(clip, video=clip, **known)


def avspeech(root: Path) -> Iterator[Utterance]:
    """avspeech_train.csv, avspeech_test.csv: YouTube id, start, end, x and y of the face (Ephrat et
    al., 2018), over what was downloaded of them: ID_START_END.mp4 or ID_START-END.mp4 with the
    seconds as in the table, ID_START.mp4, or a whole video ID.mp4, in any folder."""
    clips = {clip.stem: clip for clip in files(root, VIDEO)}
    for split in ("train", "test"):
        table = root / f"avspeech_{split}.csv"
        for number, row in enumerate(csv.reader(lines(table)) if table.is_file() else ()):
            try:
                name, start, end, x, y = *row[:3], *map(float, row[3:5])
            except ValueError:
                if not number:  # another table altogether
                    raise
                log.warning("%s: a row is not as published: %s", table, ",".join(row))
                continue
            names = (f"{name}_{start}_{end}", f"{name}_{start}-{end}", f"{name}_{start}")
            clip = next((clips[n] for n in names if n in clips), None)
            span = None
            if clip is None and (clip := clips.get(name)):
                span = (float(start), float(end))
            if clip:  # of millions of rows few are downloaded: the others are no one's mistake
                yield Utterance(clip, speaker=name, split=split, span=span, video=clip, box=(x, y, x, y))


def lrw(root: Path) -> Iterator[Utterance]:
    """WORD/train|val|test/WORD_NNNNN.mp4 (Chung & Zisserman, 2016); nobody is named."""
    for clip in files(root, (".mp4",)):
        if clip.parent.name in ("train", "val", "test"):
            word = clip.parent.parent.name
            yield Utterance(clip, word, clip.stem, split=published_split(clip.parent.name), video=clip)


def grid(root: Path) -> Iterator[Utterance]:
    """Talkers s1 to s34 (Cooke et al., 2006): videos sN/.../NAME.mpg or .mp4, sound NAME.wav below
    another sN, word timings NAME.align below a third; NAME spells the sentence, as bbaf2n."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in files(root, (".mpg", ".mp4", ".wav", ".align")):
        talker = next((part for part in reversed(path.parts) if re.fullmatch(r"s\d+", part)), None)
        if talker and _grid_text(path.stem):
            kind = path.suffix if path.suffix in (".wav", ".align") else "video"
            found.setdefault((talker, path.stem), {})[kind] = path
    for (talker, name), paths in sorted(found.items()):
        video = paths.get("video")
        if audio := paths.get(".wav", video):
            words = table_beside(paths[".align"], _grid_words, ()) if ".align" in paths else ()
            yield Utterance(audio, _grid_text(name), talker, video=video, words=words)


def lrs3(root: Path) -> Iterator[Utterance]:
    """pretrain|trainval|test/VIDEO/NNNNN.mp4 and .txt with text and word timings (Afouras et al., 2018)."""
    for clip in files(root, (".mp4",)):
        text, words = table_beside(clip.with_suffix(".txt"), _lrs_text, (None, ()))
        split = published_split(clip.parent.parent.name)
        yield Utterance(clip, text, clip.parent.name, split=split, video=clip, words=words)


def voteview(root: Path) -> Iterator[Utterance]:
    """Portraits of voteview's members.csv; no split is published, so one person in five is kept
    for tests, by a hash of the id."""
    for row in csv.DictReader(lines(root / "members.csv")):
        held_out = hashlib.sha256(row["icpsr"].encode()).digest()[0] % 5 == 0
        yield Utterance(
            speaker=row["icpsr"],
            sex=row["sex"].lower(),
            age=float(row["photo_year_approx"]) - float(row["birth_year"]),
            faces=(root / row["image"],),
            split="test" if held_out else "train",
        )


def people(root: Path) -> Iterator[Utterance]:
    """A folder for each person with clips, photos or both, the text of a clip in *.txt beside it if it is known."""
    for folder, names in folders(root):
        if folder != root:
            speaker = folder.relative_to(root).parts[0]
            if photos := tuple(folder / name for name in names if name.lower().endswith(PHOTO)):
                yield Utterance(speaker=speaker, faces=photos)
            for clip in (folder / name for name in names if name.lower().endswith(SOUND + VIDEO)):
                video = clip if clip.suffix.lower() in VIDEO else None
                yield Utterance(clip, text_beside(clip), speaker, video=video)


def _voxceleb_people(root: Path) -> dict[str, _Person]:
    """Id, and name in the folders of photos, -> person."""
    splits = {}
    if (root / "split.json").is_file():  # HQ-VoxCeleb's own
        for part in json.loads((root / "split.json").read_text()).values():
            splits |= {name: published_split(split) for split, names in part.items() for name in names}
    people = {}
    for table in sorted({*root.glob("*meta.csv"), *root.glob("*/*meta.csv"), *root.parent.glob("*meta.csv")}):
        for line in lines(table):
            row = [value.strip() for value in re.split(r"[\t,]", line)]
            if not _VOXCELEB_ID.fullmatch(row[0]):
                continue
            sex = next((value for value in row[1:] if value in ("f", "m")), None)
            official = published_split(row[-1]) if row[-1] == "test" else "train"  # "dev" is what one trains on
            names = [name for value in row[1:] if len(value) > 3 for name in (value, value.rstrip("."))]
            split = next((splits[name] for name in (row[0], *names) if name in splits), official)
            people |= {name: _Person(row[0], sex, split) for name in (row[0], *names)}
    return people


def _voxceleb_name(folder: Path) -> str | None:
    """Whose photos a folder without an id holds; None for those without background if there are better."""
    for kind in _VOXCELEB_FACES:
        if kind in folder.parts[:-1]:
            place = folder.parts.index(kind)
            better = Path(*folder.parts[:place], "origin_faces")
            return None if kind == "masked_faces" and better.is_dir() else folder.parts[place + 1]
    return None


def _voxceleb_split(place: tuple[str, ...], name: str) -> str:
    in_test = not {"test", "vox1_test_wav"}.isdisjoint(place)
    return "test" if in_test or _VOXCELEB1_TEST[0] <= name <= _VOXCELEB1_TEST[1] else "train"


def _twin(clip: Path, kind: str, *endings: str) -> Path | None:
    """VoxCeleb2's file of the same clip in the tree aac/ or mp4/."""
    *_, speaker, video = clip.parent.parts
    twins = (clip.parents[3] / kind / speaker / video / (clip.stem + ending) for ending in endings)
    return next((twin for twin in twins if twin.is_file()), None)


def _grid_text(name: str) -> str | None:
    words = [words.get(letter) for words, letter in zip(_GRID_WORDS, name, strict=False)]
    return " ".join(words) if len(name) == 6 and None not in words else None


def _grid_words(table: list[str]) -> tuple[tuple[str, float, float], ...]:
    rows = [line.split() for line in table]
    return tuple(
        (word, int(start) / _GRID_UNITS, int(end) / _GRID_UNITS)
        for start, end, word in rows
        if word not in ("sil", "sp")
    )


def _lrs_text(table: list[str]) -> tuple[str | None, tuple[tuple[str, float, float], ...]]:
    """What stands behind "Text:", and the rows below "WORD START END ASDSCORE" if there are any."""
    text, words, timed = None, [], False
    for line in table:
        row = line.split()
        if timed:
            words.append((row[0], float(row[1]), float(row[2])))
        elif row[0] == "Text:":
            text = " ".join(row[1:])
        timed = timed or row[:3] == ["WORD", "START", "END"]
    return text, tuple(words)
