"""A preprocessed folder: its files, and reading it again for a training.

settings.json   the model, and what its records were made with
records/ab/     a record each, abcd....npz, named by what it was made of
journal.jsonl   what became of each job, a line as soon as it is done
index.jsonl     a line for each record, in the order of the corpora; written at the end
report.json     how many were made, kept and left out, and why
"""

import dataclasses
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from savedmodels import InputError


def record_path(folder: Path, key: str) -> Path:
    return folder / "records" / key[:2] / f"{key}.npz"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a record without opening it.

    Attributes:
        speaker: CORPUS/NAME.
        sex: "f", "m" or None.
        age: in years, or None.
        split: "train", "dev" or "test".
        length: frames of a mel, samples of a sound, or number of crops, as the model's maker
            measures; 0 where a record has none of it.
    """

    key: str
    speaker: str
    sex: str | None
    age: float | None
    split: str
    length: int


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A preprocessed folder. Records are read from the disk each time: nothing large is kept.

    Attributes:
        model: whose records these are, as on the command line.
        settings: what they were made with.
        entries: in a fixed order.
    """

    folder: Path
    model: str
    settings: dict[str, Any]
    entries: tuple[Entry, ...]

    @classmethod
    def open(cls, folder: Path, model: str | None = None) -> "Prepared":
        """
        Raises:
            InputError: not a preprocessed folder, not finished, of another model, or damaged.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        if settings is None:
            raise InputError(f"{folder}: not a preprocessed folder; make one with face2voice preprocess")
        if model and settings["model"] != model:
            raise InputError(f"{folder}: holds records for the {settings['model']}, not for the {model}")
        index = folder / "index.jsonl"
        if not index.is_file():
            raise InputError(f"{folder}: not finished; run face2voice preprocess again, it goes on from there")
        try:
            with index.open(encoding="utf-8") as file:
                entries = tuple(map(_entry, file))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{index}: damaged; remove it and run face2voice preprocess again") from error
        return cls(folder, settings["model"], settings["options"], entries)

    def __len__(self) -> int:
        return len(self.entries)

    def record(self, i: int, *names: str) -> dict[str, np.ndarray]:
        """The arrays of record i, or those of these names that it has; which they are is told by the model's maker.

        Raises:
            InputError: its file is missing or damaged.
        """
        path = record_path(self.folder, self.entries[i].key)
        try:
            with np.load(path) as file:
                return {name: file[name] for name in names or file.files if name in file}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: missing or damaged; remove it and run face2voice preprocess again") from error

    def speakers(self) -> dict[str, list[int]]:
        """Speaker -> indices of the records, in the order of the entries."""
        indices: dict[str, list[int]] = {}
        for i, entry in enumerate(self.entries):
            indices.setdefault(entry.speaker, []).append(i)
        return indices


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The content of settings.json, None where there is none."""
    path = folder / "settings.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return {"model": settings["model"], "options": settings["options"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged; give another folder, or remove this one") from error


def _entry(line: str) -> Entry:
    values = json.loads(line)
    return Entry(
        values["key"],
        sys.intern(values["speaker"]),
        values.get("sex"),
        values.get("age"),
        sys.intern(values["split"]),
        values["length"],
    )
