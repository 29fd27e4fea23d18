"""The plain manifest: JSON lines of `Utterance`s, for every corpus that is not published in a layout of its own."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from savedmodels import InputError, write_atomically

from .record import Utterance

_SPLITS = ("train", "dev", "test")


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Writes JSON lines; files below the manifest's folder are named relative to it."""
    lines = []
    for utterance in utterances:
        record = {k: v for k, v in dataclasses.asdict(utterance).items() if v not in (None, ())}
        for key in ("audio", "video"):
            if key in record:
                record[key] = _relative(record[key], path.parent)
        if utterance.faces:
            record["faces"] = [_relative(face, path.parent) for face in utterance.faces]
        lines.append(json.dumps(record))  # in ASCII, since a file's name need not be UTF-8
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def read_manifest(path: Path) -> list[Utterance]:
    """Reads JSON lines of `Utterance`s; relative paths are taken from the manifest's folder.

    Raises:
        InputError: the file is missing or not UTF-8, or a line is no record; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such manifest")
    utterances = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; a manifest is JSON lines") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            utterances.append(_from_json(json.loads(line), path.parent))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number}: not an utterance record ({error})") from error
    return utterances


def _from_json(record: dict[str, Any], folder: Path) -> Utterance:
    for key in ("audio", "video"):
        if key in record:
            record[key] = folder / record[key]
    record["faces"] = tuple(folder / face for face in record.get("faces", ()))
    for key in ("span", "box"):
        if key in record:
            record[key] = tuple(float(value) for value in record[key])
    record["words"] = tuple((str(word), float(start), float(end)) for word, start, end in record.get("words", ()))
    if record.get("age") is not None:
        record["age"] = float(record["age"])
    utterance = Utterance(**record)
    if utterance.sex not in ("f", "m", None):
        raise ValueError(f"sex is {utterance.sex!r}, not f or m")
    if not utterance.files:
        raise ValueError("neither audio nor video nor faces")
    if utterance.split not in _SPLITS:
        raise ValueError(f"split is {utterance.split!r}, not one of {', '.join(_SPLITS)}")
    if utterance.span and not 0 <= utterance.span[0] < utterance.span[1]:
        raise ValueError("span is not start and end in seconds")
    return utterance


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute())
