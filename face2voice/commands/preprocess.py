"""``face2voice preprocess``: corpora into the records that a model is trained on."""

import os
from pathlib import Path
from typing import Annotated

import typer

from savedmodels import InputError

from .options import DESCRIBERS, find_checkpoint
from .output import progress, to_user


def preprocess(
    model: Annotated[
        str,
        typer.Argument(help="speech-encoder, face-encoder, synthesizer, vocoder, voice-encoder or face-decoder."),
    ],
    corpus: Annotated[
        list[str],
        typer.Option(help="NAME=PATH; several are joined. A wrong name lists the known ones."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the records; a second run goes on from it.")],
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; as many as there are cores if not given.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for corpora that outgrow one machine.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; a local one is started without it.")] = None,
    speech_encoder: Annotated[
        str, typer.Option(help="Checkpoint that gives the voices, or the bundle to take it from.")
    ] = "default",
    symbols: Annotated[str, typer.Option(help="phones, or characters for the published synthesizer.")] = "phones",
    face_encoder: Annotated[
        str,
        typer.Option(
            help="voice-encoder, face-decoder: checkpoint that describes faces (a face encoder, or VGG-Face "
            "by models import), or the bundle to take it from."
        ),
    ] = "default",
    synthesizer: Annotated[
        Path | None, typer.Option(help="Checkpoint that predicts the vocoder's mels; true ones without it.")
    ] = None,
) -> None:
    """Make the records that a model is trained on, from corpora as they are published. Resumes.

    The voice-encoder takes corpora of people who are both heard and seen; or speech and portraits of
    others, both into one folder: --corpus librispeech=... --corpus voteview=...
    """
    corpora = [name_and_path(value) for value in corpus]
    encoder, describer = find_checkpoint(speech_encoder, "speech_encoder"), find_checkpoint(face_encoder, *DESCRIBERS)
    if synthesizer and not synthesizer.is_file():
        raise InputError(f"{synthesizer}: no such checkpoint of a synthesizer")
    from ..preprocess import find_maker
    from ..preprocess import preprocess as run

    maker = find_maker(model, encoder, symbols, synthesizer and synthesizer.absolute(), describer)
    with progress("reading the corpora", total=None) as advance:
        report = run(
            maker,
            corpora,
            out,
            (os.cpu_count() or 1) if workers is None else workers,
            engine,
            address,
            lambda done, total: advance(done, total, "making records"),
        )
    to_user.print(f"{out}: {report}")


def name_and_path(value: str) -> tuple[str, Path]:
    name, equals, path = value.partition("=")
    if not equals or not path:
        raise InputError(f"--corpus {value}: write NAME=PATH, such as librispeech=/data/LibriSpeech")
    return name, Path(path)
