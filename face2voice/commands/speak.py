"""``face2voice speak``, ``clone``, ``embed`` and ``batch``: faces and clips to voices, voices to speech."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from savedmodels import InputError

from .options import BundleName, Device, Seed
from .output import progress, to_user

if TYPE_CHECKING:
    from ..pipeline import Face2Voice
    from ..voice import Voice

Out = Annotated[Path, typer.Option("--out", "-o", help="Sound file to write: .wav, .flac or .ogg.")]
Text = Annotated[str | None, typer.Option(help="What to say.")]
TextFile = Annotated[Path | None, typer.Option(help="File with what to say, UTF-8.")]
Faces = Annotated[
    list[str] | None,
    typer.Option(
        "--face",
        help="Photo; several are averaged. A number besides chooses among its faces, 0 being the largest.",
    ),
]
Speed = Annotated[float, typer.Option(help="Factor on the tempo, 0.5 to 2.")]
Pause = Annotated[float, typer.Option(help="Factor on the silences between sentences, 0 to 5.")]
Pitch = Annotated[float, typer.Option(help="Semitones that the voice is moved by, -12 to 12.")]
Older = Annotated[float, typer.Option(help="Years that the voice is aged by, -40 to 40.")]
Candidates = Annotated[int, typer.Option(min=1, max=20, help="Voices that would suit, each to a file of its own.")]
VocoderName = Annotated[str, typer.Option("--vocoder", help="wavernn or griffin-lim.")]
LegacyApp = Annotated[bool, typer.Option(help="Feed the face as the first Face2Voice web app did (BGR, 0 to 1).")]


def speak(
    out: Out,
    text: Text = None,
    text_file: TextFile = None,
    face: Faces = None,
    voice: Annotated[list[Path] | None, typer.Option(help="Saved voice; several are mixed.")] = None,
    bundle: BundleName = "default",
    device: Device = "auto",
    seed: Seed = 0,
    speed: Speed = 1.0,
    pause: Pause = 1.0,
    pitch: Pitch = 0.0,
    older: Older = 0.0,
    candidates: Candidates = 1,
    vocoder: VocoderName = "wavernn",
    legacy_app: LegacyApp = False,
) -> None:
    """Say a text in the voice that suits a face."""
    if bool(face) == bool(voice):
        raise InputError("give a photo with --face, or a saved voice with --voice")
    from ..voice import Voice

    def find_voice(tts: "Face2Voice") -> "Voice":
        if voice:
            return Voice.mix([Voice.load(path) for path in voice])
        return _voice_from_faces(tts, face, legacy_app)

    _say(find_voice, text, text_file, out, bundle, device, seed, speed, pause, pitch, older, candidates, vocoder)


def clone(
    out: Out,
    speech: Annotated[Path, typer.Option(help="Clip of the person, some seconds long.")],
    text: Text = None,
    text_file: TextFile = None,
    bundle: BundleName = "default",
    device: Device = "auto",
    seed: Seed = 0,
    speed: Speed = 1.0,
    pause: Pause = 1.0,
    pitch: Pitch = 0.0,
    older: Older = 0.0,
    candidates: Candidates = 1,
    vocoder: VocoderName = "wavernn",
) -> None:
    """Say a text in the voice of a speech clip."""
    _say(
        lambda tts: tts.voice_from_speech(speech),
        *(text, text_file, out, bundle, device, seed, speed, pause, pitch, older, candidates, vocoder),
    )


def embed(
    out: Annotated[Path, typer.Option("--out", "-o", help="Voice file to write, .npz.")],
    face: Faces = None,
    speech: Annotated[Path | None, typer.Option(help="Clip of the person, some seconds long.")] = None,
    bundle: BundleName = "default",
    device: Device = "auto",
    legacy_app: LegacyApp = False,
) -> None:
    """Save the voice of a face or of a speech clip, for `speak --voice`."""
    if bool(face) == bool(speech):
        raise InputError("give a photo with --face, or a clip with --speech")
    if out.suffix != ".npz":
        raise InputError(f"{out}: end the name in .npz")
    from ..pipeline import Face2Voice

    tts = Face2Voice.load(bundle, device)
    voice = _voice_from_faces(tts, face, legacy_app) if face else tts.voice_from_speech(speech)
    voice.save(out)
    near = ", ".join(f"{known.source} ({cosine:.2f})" for known, cosine in tts.voice_space().nearest(voice))
    to_user.print(f"{out}: the voice of {voice.source}; of the known voices the nearest are {near}", markup=False)


def batch(
    jobs: Annotated[Path, typer.Argument(help="Table (.csv, .jsonl): text; face, voice or speech; out, seed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the sound files.")],
    bundle: BundleName = "default",
    device: Device = "auto",
    speed: Speed = 1.0,
    pause: Pause = 1.0,
    vocoder: VocoderName = "wavernn",
) -> None:
    """Say many texts, each in its own voice; what is there already is left as it is."""
    from ..batch import read_jobs, run_jobs
    from ..pipeline import Face2Voice

    todo = read_jobs(jobs, out)
    with progress("speaking") as advance:
        failed = run_jobs(Face2Voice.load(bundle, device), todo, speed, pause, vocoder, advance)
    for job, reason in failed:
        to_user.print(f"{job.out}: {reason}", markup=False)
    to_user.print(f"{out}: {len(todo) - len(failed)} of {len(todo)} spoken")
    if failed:
        raise InputError(f"{jobs}: {len(failed)} of {len(todo)} jobs failed; mend them and run again")


def _say(
    find_voice: Callable[["Face2Voice"], "Voice"],
    text: str | None,
    text_file: Path | None,
    out: Path,
    bundle: str,
    device: str,
    seed: int,
    speed: float,
    pause: float,
    pitch: float,
    older: float,
    candidates: int,
    vocoder: str,
) -> None:
    text = _read_text(text, text_file)
    from ..pipeline import Face2Voice, check_sound_path

    check_sound_path(out)
    tts = Face2Voice.load(bundle, device)
    tts.pieces(text)  # a text that cannot be spoken is told before any work on the voice
    voice = find_voice(tts)
    if pitch or older:
        voice = tts.voice_space().shifted(voice, pitch, older)
    voices = [voice] if candidates == 1 else tts.voice_space().candidates(voice, candidates, seed)
    tts.warm_up(vocoder)
    for number, voice in enumerate(voices, start=1):
        path = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        started = time.perf_counter()
        with progress("speaking") as advance:
            speech = tts.speak(text, voice, seed, speed, pause, vocoder, advance)
        elapsed = time.perf_counter() - started
        speech.save(path)
        if speech.truncated:
            to_user.print("warning: a part of the text was cut off; try another --seed")
        stages = ", ".join(f"{stage} {seconds / speech.duration:.2f}" for stage, seconds in speech.seconds.items())
        to_user.print(
            f"{path}: {speech.duration:.1f} s of speech, real-time factor {elapsed / speech.duration:.2f} ({stages})"
        )


def _voice_from_faces(tts: "Face2Voice", values: list[str], legacy_app: bool) -> "Voice":
    """Photos and at most one index from the values of ``--face``."""
    indices = [value for value in values if value.isdigit() and not os.path.exists(value)]
    photos = [value for value in values if value not in indices]
    if not photos or len(indices) > 1:
        raise InputError("give --face a photo, and besides at most one number")
    return tts.voice_from_face(photos, int(indices[0]) if indices else None, legacy_app=legacy_app)


def _read_text(text: str | None, text_file: Path | None) -> str:
    if (text is None) == (text_file is None):
        raise InputError("give what to say with --text or --text-file, one of them")
    if text is not None:
        return text
    try:
        return text_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{text_file}: cannot be read as UTF-8 text ({error})") from error
