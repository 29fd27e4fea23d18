"""Corpora -> a folder of records for one model: in parallel, and again from where it was cut short."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from face2voice.corpora import Utterance, read_corpus
from savedmodels import InputError, write_atomically
from savedmodels.bundles import sha256

from .engine import Job, Outcome, Work, run_local, run_ray
from .makers import Maker
from .store import read_settings, record_path

Corpora = Sequence[tuple[str, Path]]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run did; also in report.json.

    Attributes:
        made: records made by this run.
        kept: records that were there before.
        skipped: reason -> files left out for it, by this run or before.
    """

    made: int
    kept: int
    skipped: dict[str, list[str]]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {len(files)}" for reason, files in sorted(self.skipped.items()))
        skipped = sum(map(len, self.skipped.values()))
        return f"{self.made} made, {self.kept} kept, {skipped} skipped" + (f" ({reasons})" if reasons else "")


def preprocess(
    maker: Maker,
    corpora: Corpora,
    out: Path,
    workers: int = 1,
    engine: str = "local",
    address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Makes the records that are missing in a folder, then its index and report.

    A run may be killed at any moment: records appear whole or not at all, a job counts as done
    once it stands in the journal, and the next run goes on from there.

    Args:
        corpora: (name, path) pairs, see `read_corpus`; speakers of one name are told apart by the
            corpus's.
        workers: processes; for the engine "ray" the cluster decides.
        engine: "local" or "ray".
        address: of a Ray cluster.
        progress: called with the number of jobs done and of all.

    Raises:
        InputError: a corpus cannot be read, the folder holds other records or is at work already,
            the disk is full, or not a single record could be made.
    """
    if engine not in ("local", "ray"):
        raise InputError(f"no engine {engine!r}: choose local or ray")
    out = Path(out).absolute()
    wanted = dict.fromkeys(job.key for job in _jobs(maker, corpora))
    with _alone_in(out):
        _check_settings(out, maker)
        with Journal(out, wanted) as journal:
            progress(len(journal.kept), len(wanted))
            missing = wanted.keys() - journal.places.keys()
            jobs = (job for job in _jobs(maker, corpora) if job.key in missing)
            work = Work(maker, out)
            outcomes = run_ray(work, jobs, address) if engine == "ray" else run_local(work, jobs, workers)
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    if outcome.fatal:
                        raise InputError(outcome.error)
                    journal.add(outcome)
                    progress(len(journal.places), len(wanted))
            return _finish(out, maker, journal)


class Journal:
    """What became of each job, on the disk as soon as it is known.

    Attributes:
        places: key -> where its line begins, of the jobs that are wanted and done.
        kept: those of them that were done when the journal was opened.
    """

    def __init__(self, out: Path, wanted: Collection[str]) -> None:
        self.path = out / "journal.jsonl"
        self.wanted = wanted
        self.places: dict[str, int] = {}
        with _writing(self.path):
            self._file = self.path.open("a+b")
        end = 0
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break  # the run was killed while it wrote this one
            place, end = end, end + len(line)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                if row["key"] in wanted and _is_there(out, row):
                    self.places[row["key"]] = place
        self._file.truncate(end)
        self.kept = frozenset(self.places)

    def add(self, outcome: Outcome) -> None:
        left_out = {name: getattr(outcome, name) for name in ("key", "reason", "file", "error")}
        line = outcome.entry or json.dumps(left_out)
        with _writing(self.path):
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        self.places[outcome.key] = place

    def lines(self) -> Iterator[bytes]:
        """A line for each job that is wanted and done, in the order in which they are wanted."""
        for key in self.wanted:
            if key in self.places:  # or its file has changed since: the next run will see to it
                self._file.seek(self.places[key])
                yield self._file.readline()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # of a full disk it has been told already
            self._file.close()


def _is_there(out: Path, row: dict[str, Any]) -> bool:
    if "reason" in row:
        return True
    path = record_path(out, row["key"])
    return path.is_file() and path.stat().st_size == row["bytes"]


def _finish(out: Path, maker: Maker, journal: Journal) -> Report:
    """Writes index and report."""
    index, skipped, kept = [], {}, 0
    for line in journal.lines():
        row = json.loads(line)
        if "reason" in row:
            skipped.setdefault(row["reason"], []).append(row["file"])
        else:
            index.append(line)
            kept += row["key"] in journal.kept
    report = Report(len(index) - kept, kept, skipped)
    figures = {
        "model": maker.model,
        "made": report.made,
        "kept": report.kept,
        "skipped": {reason: {"count": len(files), "files": files} for reason, files in sorted(skipped.items())},
    }
    with _writing(out):
        write_atomically(out / "report.json", json.dumps(figures, indent=2).encode())
        if index:
            write_atomically(out / "index.jsonl", b"".join(index))
    if not index:
        raise InputError(f"{out}: no record could be made: {report}; its report.json names the files")
    return report


def _jobs(maker: Maker, corpora: Corpora) -> Iterator[Job]:
    """Every job once, in the corpora's order."""
    seen = set()
    for name, path in corpora:
        for utterance in read_corpus(name, path):
            for part in maker.jobs(utterance):
                key = _key(name, part)
                if key not in seen:
                    seen.add(key)
                    yield Job(key, name, part)


def _key(corpus: str, utterance: Utterance) -> str:
    """Of all that a record depends on; a file that is replaced or comes later makes another key."""
    files = [(str(path), *_stamp(path)) for path in utterance.files]
    return hashlib.blake2b(repr((corpus, utterance, files)).encode(), digest_size=16).hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


def _check_settings(out: Path, maker: Maker) -> None:
    """Writes what the records are made with; InputError if the folder's were made otherwise."""
    options = {
        field.name: sha256(value) if isinstance(value := getattr(maker, field.name), Path) else value
        for field in dataclasses.fields(maker)
    }
    settings = {"model": maker.model, "options": options}
    stored = read_settings(out)
    if stored is None:
        with _writing(out):
            write_atomically(out / "settings.json", json.dumps(settings, indent=2).encode())
    elif stored != settings:
        raise InputError(f"{out}: holds records made with other settings (settings.json); give another folder")


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """The folder, locked against a second run and rid of what a killed one left half written."""
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system, however the run ends
        except OSError as error:
            raise InputError(f"{out}: another run is at work in it; wait for it or give another folder") from error
        for partial in (*out.glob(".*.json*.*"), *out.glob("records/*/.*")):
            partial.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{path}: cannot be written ({error.strerror}); mend that and run again, it goes on from here"
        raise InputError(problem) from error
