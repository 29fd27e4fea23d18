"""The record every corpus is read into, and the plain manifest that carries it between steps."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from savedmodels import InputError, write_atomically


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One spoken sentence.

    Attributes:
        audio: file with the sound, absolute once read.
        text: what is said, None where the corpus does not tell.
        speaker: name unique within the corpus.
        sex: "f" or "m", None if unknown.
        age: in years, None if unknown.
        faces: photos of the speaker.
        split: "train" or "test".
    """

    audio: Path
    text: str | None = None
    speaker: str = ""
    sex: str | None = None
    age: float | None = None
    faces: tuple[Path, ...] = ()
    split: str = "train"


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Writes JSON lines; audio below the manifest's folder is named relative to it."""
    lines = []
    for utterance in utterances:
        record = {k: v for k, v in dataclasses.asdict(utterance).items() if v not in (None, ())}
        record["audio"] = _relative(utterance.audio, path.parent)
        if utterance.faces:
            record["faces"] = [_relative(face, path.parent) for face in utterance.faces]
        lines.append(json.dumps(record, ensure_ascii=False))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def read_manifest(path: Path) -> list[Utterance]:
    """Reads JSON lines of `Utterance`s; relative paths are taken from the manifest's folder.

    Raises:
        InputError: the file is missing, or a line is no record; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such manifest")
    utterances = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            record["audio"] = path.parent / record["audio"]
            record["faces"] = tuple(path.parent / face for face in record.get("faces", ()))
            utterances.append(Utterance(**record))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number}: not an utterance record ({error})") from error
    return utterances


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute())
