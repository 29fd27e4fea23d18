"""Options that several commands have."""

import math
from pathlib import Path
from typing import Annotated

import typer

from savedmodels import CheckpointError, InputError, find_bundle

BundleName = Annotated[str, typer.Option("--bundle", help="Name of a bundle, or a folder laid out like one.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result on the same device.")]


DESCRIBERS = ("vgg_face", "face_encoder")
"""Parts of a bundle that describe faces to Speech2Face, the first one found being taken."""


def find_checkpoint(given: str, *parts: str) -> Path:
    """A checkpoint given by its path, or by the bundle to take the first of these parts from.

    Raises:
        CheckpointError: no such file or bundle, or the bundle has none of the parts.
    """
    path = Path(given)
    if path.is_file():
        return path.absolute()
    if path.suffix and not path.is_dir():
        raise CheckpointError(f"{path}: no such weights file")
    bundle = find_bundle(given)
    found = (bundle.find(part) for part in parts)
    return (next(filter(None, found), None) or bundle.path(parts[-1])).absolute()


def seconds_of(max_time: str | None) -> float:
    """Of HH:MM:SS, with the hours or more left out if need be; without end if None."""
    if max_time is None:
        return math.inf
    parts = max_time.split(":")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--max-time {max_time}: write hours, minutes and seconds as HH:MM:SS")
    return float(sum(int(part) * 60**i for i, part in enumerate(reversed(parts))))
