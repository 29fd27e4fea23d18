"""How long a visitor waits, and what many visitors at once do to the server."""

import contextlib
import dataclasses
import io
import itertools
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio_client
import httpx
import numpy as np
import soundfile as sf
from PIL import Image, ImageOps

from face2voice import Face2Voice, Voice
from savedmodels import InputError

from .examples import PARAGRAPH, PORTRAIT
from .speak import Wishes, speak
from .studio import Studio

_START_SECONDS = 300  # a server gets to read its models
_ANSWER_SECONDS = 900  # a visitor waits, the whole line before him


def first_sound_seconds(
    bundle: str | Path = "default", device: str = "auto", photo: Path = PORTRAIT, text: str = PARAGRAPH
) -> float:
    """Seconds from Speak to the first sentence of a paragraph, on a server that is warm, face included."""
    studio = Studio(bundle, device)
    studio.tts().warm_up()
    list(speak(studio, Wishes("Warm."), lambda tts: tts.voice_from_face(photo)))
    started = time.perf_counter()
    for progress in speak(studio, Wishes(text), lambda tts: tts.voice_from_face(photo)):
        if progress.pieces:
            return time.perf_counter() - started
    raise AssertionError("a text has at least one piece")


@dataclasses.dataclass(frozen=True)
class Crowd:
    """What visitors met who all came at once.

    Attributes:
        waits: seconds until each right answer.
        wrong: answers that were not, sample for sample, what the pipeline says for that face, text and seed.
        errors: what was answered instead of speech.
        resident: MiB of the server when idle before, at most, and when idle afterwards; NaN where the
            system does not tell.
    """

    waits: tuple[float, ...]
    wrong: int
    errors: tuple[str, ...]
    resident: tuple[float, float, float]

    @property
    def growth(self) -> float:
        """MiB that the server kept."""
        return self.resident[2] - self.resident[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Errand:
    """Something to ask the server for, and the samples (n,) int16 that it has to answer with."""

    ask: Callable[[], bytes]
    expected: np.ndarray

    def is_answered_by(self, content: bytes) -> bool:
        samples, _ = sf.read(io.BytesIO(content), dtype="int16")
        # one apart: a file rounds in its own way
        return samples.shape == self.expected.shape and np.abs(samples.astype(int) - self.expected).max() <= 1


def crowd(
    bundle: str | Path = "default", device: str = "auto", users: int = 8, seconds: float = 120.0, idle: float = 10.0
) -> Crowd:
    """Lets visitors ask a server of its own process for speech, one request after the other each.

    Every visitor has a photo, a known voice, a text and seeds of his own, and comes by gradio's
    endpoint and by that in OpenAI's manner in turn.

    Args:
        seconds: after which no more is asked; what was asked is waited for.
        idle: seconds of rest before the server's memory is measured.

    Raises:
        CheckpointError: no such bundle.
        InputError: the server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="face2voice-bench-") as folder, _server(bundle, device) as (address, pid):
        visitors = _visitors(Face2Voice.load(bundle, device), address, users, Path(folder))
        _visit(visitors, 0.0)  # everything is loaded once
        time.sleep(idle)
        before, _ = _resident(pid)
        waits, wrong, errors = _visit(visitors, seconds)
        time.sleep(idle)
        after, most = _resident(pid)
    return Crowd(tuple(waits), wrong, tuple(errors), (before, most, after))


def _visit(visitors: list[list[_Errand]], seconds: float) -> tuple[list[float], int, list[str]]:
    """All visitors at once, each going through his errands at least once: waits, wrong answers, errors."""
    waits: list[float] = []
    wrong: list[_Errand] = []
    errors: list[str] = []
    deadline = time.monotonic() + seconds

    def visit(errands: list[_Errand]) -> None:
        for number, errand in enumerate(itertools.cycle(errands)):
            if number >= len(errands) and time.monotonic() >= deadline:
                return
            started = time.monotonic()
            try:
                content = errand.ask()
            except Exception as error:  # whatever it is, the visitor got no speech
                errors.append(str(error) or type(error).__name__)
                continue
            if errand.is_answered_by(content):
                waits.append(time.monotonic() - started)
            else:
                wrong.append(errand)

    threads = [threading.Thread(target=visit, args=(errands,)) for errands in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits, len(wrong), errors


def _visitors(tts: Face2Voice, address: str, users: int, folder: Path) -> list[list[_Errand]]:
    """Each visitor's errands, with the samples that the pipeline makes for them here."""
    space = tts.voice_space()
    visitors = []
    for user in range(users):
        place = folder / str(user)
        place.mkdir()
        photo = _portrait(place, user)
        text = f"Visitor number {user + 1} has a sentence of his own."
        name = str(space.names[user % len(space.names)])
        visitors.append(
            [
                _Errand(_by_gradio(address, photo, text, user), _spoken(tts, tts.voice_from_face(photo), text, user)),
                _Errand(
                    _by_post(address, name, text, users + user),
                    _spoken(tts, Voice(space.embeddings[user % len(space.names)]), text, users + user),
                ),
            ]
        )
    return visitors


def _spoken(tts: Face2Voice, voice: Voice, text: str, seed: int) -> np.ndarray:
    return np.round(tts.speak(text, voice, seed).samples * 32767).astype(np.int16)


def _by_gradio(address: str, photo: Path, text: str, seed: int) -> Callable[[], bytes]:
    client = gradio_client.Client(
        address, download_files=photo.parent, verbose=False, httpx_kwargs={"timeout": _ANSWER_SECONDS}
    )

    def ask() -> bytes:
        sound, _ = client.predict(gradio_client.handle_file(str(photo)), text, seed=seed, api_name="/speak")
        return Path(sound).read_bytes()

    return ask


def _by_post(address: str, voice: str, text: str, seed: int) -> Callable[[], bytes]:
    body = {"input": text, "voice": voice, "seed": seed}

    def ask() -> bytes:
        answer = httpx.post(f"{address}/v1/audio/speech", json=body, timeout=_ANSWER_SECONDS)
        if answer.status_code != 200:
            raise InputError(answer.text[:200])
        return answer.content

    return ask


def _portrait(folder: Path, number: int) -> Path:
    """The example portrait as nobody else sends it: mirrored or not, cut a little closer each time."""
    with Image.open(PORTRAIT) as portrait:
        picture = ImageOps.crop(portrait.convert("RGB"), number % 10)
    path = folder / "photo.png"
    (ImageOps.mirror(picture) if number % 2 else picture).save(path)
    return path


@contextlib.contextmanager
def _server(bundle: str | Path, device: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own, for as long as the context lasts: its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"--port": port, "--bundle": bundle, "--device": device}
    command = [sys.executable, "-m", "face2voice", "demo", *map(str, itertools.chain(*options.items()))]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(address, server)
            yield address, server.pid
        finally:
            server.terminate()


def _wait_for(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10):
            return
        time.sleep(0.2)
    raise InputError("the server did not start: face2voice demo with the same options tells why")


def _resident(pid: int) -> tuple[float, float]:
    """MiB of memory that a process holds now, and has held at most; NaN where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan"), float("nan")
    told = dict(line.split(":", 1) for line in lines)
    return tuple(int(told[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
