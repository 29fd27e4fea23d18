"""What the readers share: folders in a fixed order, and tables of text."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from savedmodels import InputError

log = logging.getLogger(__name__)

Table = TypeVar("Table")

SOUND = (".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav")
VIDEO = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
PHOTO = (".jpeg", ".jpg", ".png", ".webp")


def folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from `root` down with the sorted names of its files, hidden ones left out."""
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def files(root: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    """The files from `root` down whose names end so, in any case of letters."""
    for folder, names in folders(root):
        yield from (folder / name for name in names if name.lower().endswith(endings))


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is the corpus complete?") from error
    return [line for line in text.splitlines() if line.strip()]


def pairs(path: Path) -> dict[str, str]:
    """First word of each line -> the rest of it; empty where there is no such file."""
    rows = (line.split(maxsplit=1) for line in lines(path)) if path.is_file() else ()
    return {row[0]: row[1].strip() if len(row) > 1 else "" for row in rows}


def table_beside(path: Path, parse: Callable[[list[str]], Table], nothing: Table) -> Table:
    """What `parse` makes of the lines of one clip's table. Where there is none, or, with a warning, where it is not
    as published, `nothing`: one of a million such tables must not end the reading of the others."""
    if not path.is_file():
        return nothing
    try:
        return parse(lines(path))
    except (ValueError, IndexError, InputError) as error:
        log.warning("%s: not as published (%s); its clip goes without", path, error)
        return nothing


def text_beside(path: Path, ending: str = ".txt") -> str | None:
    """What stands in the file of that name with another ending; None where there is none."""
    beside = path.with_suffix(ending)
    return " ".join(lines(beside)) if beside.is_file() else None


def published_split(name: str) -> str:
    """Of a subset's name, such as dev-clean, val or test-other."""
    if name.startswith("test"):
        return "test"
    return "dev" if name.startswith(("dev", "val")) else "train"
