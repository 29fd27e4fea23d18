"""Where records are made: the same work on this machine's processes or as a Ray Data stage."""

import dataclasses
import io
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from face2voice.corpora import Utterance
from face2voice.interrupts import interrupts_later
from savedmodels import CheckpointError, InputError, write_atomically

from .makers import Maker
from .media import Unusable
from .store import record_path

log = logging.getLogger(__name__)

_AHEAD = 4  # jobs waiting for each worker
_RAY_BATCH = 10_000  # jobs handed to Ray at once


@dataclasses.dataclass(frozen=True)
class Job:
    """One record to make; the key is its name."""

    key: str
    corpus: str
    utterance: Utterance


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job; a row of plain values.

    Attributes:
        entry: the record's line in the index, empty if none was made.
        reason: why it was left out, in a word or two.
        file: the clip or photo at fault.
        error: the whole message.
        fatal: whether the other jobs would fail of it too.
    """

    key: str
    entry: str = ""
    reason: str = ""
    file: str = ""
    error: str = ""
    fatal: bool = False

    @classmethod
    def left_out(cls, job: Job, reason: str, file: Path | None = None, error: str = "") -> "Outcome":
        return cls(job.key, "", reason, str(file or job.utterance.files[0]), error)


@dataclasses.dataclass(frozen=True)
class Work:
    """Makes a job's record and writes it; raises nothing."""

    maker: Maker
    out: Path

    def __call__(self, job: Job) -> Outcome:
        try:
            arrays = self.maker.make(job.utterance, int(job.key[:8], 16))
        except Unusable as unusable:
            return Outcome.left_out(job, unusable.reason, unusable.file, str(unusable))
        except (CheckpointError, ImportError) as error:  # PyAV, which a corpus without videos does not want
            hint = "; pip install 'face2voice[train]'" if isinstance(error, ImportError) else ""
            return Outcome(job.key, error=f"{error}{hint}", fatal=True)
        except Exception as error:  # one odd clip in a million must not stop the others
            return Outcome.left_out(job, "error", error=f"{type(error).__name__}: {error}")
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        try:
            write_atomically(record_path(self.out, job.key), buffer.getvalue())
        except OSError as error:
            problem = f"{self.out}: cannot be written ({error.strerror}); make room and run again, it goes on from here"
            return Outcome(job.key, error=problem, fatal=True)
        name, axis = self.maker.measured
        return Outcome(job.key, _entry(job, arrays[name].shape[axis], buffer.tell()))


def _entry(job: Job, length: int, size: int) -> str:
    utterance = job.utterance
    values: dict[str, Any] = {
        "key": job.key,
        "speaker": f"{job.corpus}/{utterance.speaker}",
        "sex": utterance.sex,
        "age": utterance.age,
        "split": utterance.split,
        "length": length,
        "bytes": size,
        "text": utterance.text,
        "source": str(utterance.files[0]),
        "span": utterance.span,
    }
    # In ASCII, since a file's name need not be UTF-8.
    return json.dumps({name: value for name, value in values.items() if value is not None})


def run_local(work: Work, jobs: Iterable[Job], workers: int) -> Iterator[Outcome]:
    """Outcomes in any order, from so many processes; 0 for this process, for debugging.

    A job that ends its process (decoders can) is left out, with "crash" as the reason.
    """
    if workers == 0:
        for job in jobs:
            with interrupts_later():
                outcome = work(job)
            yield outcome
        return
    jobs = iter(jobs)
    while lost := (yield from _until_crash(work, jobs, workers, workers * _AHEAD)):
        suspects = iter(lost)
        while culprit := (yield from _until_crash(work, suspects, 1, 1)):
            yield Outcome.left_out(culprit[0], "crash", error="the process that read it ended")


def _until_crash(work: Work, jobs: Iterator[Job], workers: int, at_once: int) -> Generator[Outcome, None, list[Job]]:
    """Returns the jobs that were under way when a process ended; none if all are done."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    under_way: dict[str, Job] = {}
    pending: set[Future[Outcome]] = set()
    try:
        while True:
            for job in itertools.islice(jobs, at_once - len(pending)):
                under_way[job.key] = job
                with interrupts_later():
                    pending.add(pool.submit(work, job))
            if not pending:
                return []
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                del under_way[outcome.key]
                yield outcome
    except BrokenProcessPool:
        return list(under_way.values())
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def run_ray(work: Work, jobs: Iterable[Job], address: str | None = None) -> Iterator[Outcome]:
    """Outcomes in any order, from a Ray cluster whose machines share the corpora's and the output's folders.

    After a job has ended one of Ray's processes, the others of its batch are done in processes of their own,
    so that it is left out as `run_local` does.

    Args:
        address: of the cluster; a local one is started without it.

    Raises:
        InputError: Ray is not installed, or there is no cluster at that address.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("ray is not installed: pip install 'ray[data]', or use --engine local") from error
    started = not ray.is_initialized()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if started:
        try:
            ray.init(address or "local", include_dashboard=False if not address else None, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"{address or 'ray'}: no Ray cluster answers there ({error})") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    jobs = iter(jobs)
    try:
        while batch := {job.key: job for job in itertools.islice(jobs, _RAY_BATCH)}:
            try:
                # of itself Ray Data would begin a job that ends its process again for ever
                for row in _rows(batch).map(_ray_row, fn_args=(work,), max_retries=0).iter_rows():
                    del batch[row["key"]]
                    yield Outcome(**row)
            except ray.exceptions.RayError as error:
                log.info("going on with %d jobs apart: %s", len(batch), error)
                for row in _rows(batch).map_batches(_ray_block, batch_size=None, fn_args=(work,)).iter_rows():
                    yield Outcome(**row)
    finally:
        if started:
            ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray leaves its own behind


def _rows(batch: dict[str, Job]) -> Any:
    import ray

    return ray.data.from_items([{"job": pickle.dumps(job)} for job in batch.values()])


def _ray_row(row: dict[str, bytes], work: Work) -> dict[str, Any]:
    return dataclasses.asdict(work(pickle.loads(row["job"])))


def _ray_block(block: dict[str, np.ndarray], work: Work) -> dict[str, list]:
    outcomes = list(run_local(work, map(pickle.loads, block["job"]), 1))
    return {field.name: [getattr(one, field.name) for one in outcomes] for field in dataclasses.fields(Outcome)}
