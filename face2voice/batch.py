"""Many texts in many voices, from a table."""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from savedmodels import InputError

from .pipeline import Engine, Face2Voice, check_sound_path
from .voice import Voice


@dataclasses.dataclass(frozen=True)
class Job:
    """One text to speak.

    Attributes:
        text: what to say.
        out: sound file to write.
        kind: whose voice it is by: "face" (photo), "voice" (saved voice) or "speech" (clip).
        source: that file.
    """

    text: str
    out: Path
    kind: str
    source: Path
    seed: int = 0


def read_jobs(table: Path, out: Path) -> list[Job]:
    """Rows of a ``.csv`` file with a head line, or of a ``.jsonl`` file.

    Columns: ``text``; one of ``face``, ``voice``, ``speech``, taken from the table's folder; ``out``
    (default: the row's number, ``.wav``), below the folder `out`; ``seed`` (default 0).

    Raises:
        InputError: no such table, or a row that is no job, named by its number.
    """
    jobs: list[Job] = []
    for number, row in enumerate(_rows(table), start=1):
        where = f"{table}, row {number}"
        kinds = [kind for kind in ("face", "voice", "speech") if row.get(kind)]
        if len(kinds) != 1 or not row.get("text"):
            raise InputError(f"{where}: give text, and one of face, voice and speech")
        path = check_sound_path(out / (row.get("out") or f"{number:04d}.wav"))
        try:
            seed = int(row.get("seed") or 0)
        except ValueError as error:
            raise InputError(f"{where}: the seed is no whole number") from error
        if any(path == job.out for job in jobs):
            raise InputError(f"{where}: {path} is written by another row, too")
        jobs.append(Job(str(row["text"]), path, kinds[0], table.parent / str(row[kinds[0]]), seed))
    if not jobs:
        raise InputError(f"{table}: no jobs in this table")
    return jobs


def run_jobs(
    tts: Face2Voice,
    jobs: Sequence[Job],
    speed: float = 1.0,
    pause: float = 1.0,
    vocoder: Engine = "wavernn",
    progress: Callable[[float], None] | None = None,
) -> list[tuple[Job, str]]:
    """Speaks all jobs whose file is not there yet; those that could not be spoken come back with the reason."""
    voices: dict[tuple[str, Path], Voice] = {}
    find = {"face": tts.voice_from_face, "voice": Voice.load, "speech": tts.voice_from_speech}
    failed = []
    for done, job in enumerate(jobs, start=1):
        try:
            if not job.out.exists():
                key = (job.kind, job.source)
                if key not in voices:
                    voices[key] = find[job.kind](job.source)
                job.out.parent.mkdir(parents=True, exist_ok=True)
                tts.speak(job.text, voices[key], job.seed, speed, pause, vocoder).save(job.out)
        except InputError as error:
            failed.append((job, str(error)))
        if progress:
            progress(done / len(jobs))
    return failed


def _rows(table: Path) -> Iterable[dict[str, object]]:
    if table.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{table}: end the name in .csv or .jsonl")
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
        rows = list(csv.DictReader(lines)) if table.suffix == ".csv" else [json.loads(x) for x in lines if x.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: cannot be read ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{table}: each line must be a record")
    return rows
