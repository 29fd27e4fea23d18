"""``face2voice recipe``: a bundle from data, by its steps."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from savedmodels import InputError

from .options import Seed

recipe = typer.Typer(help="Make a bundle from data.", no_args_is_help=True)

STEPS = (
    "bank",
    "features",
    "portraits",
    "face_encoder",
    "g2p",
    "synthesizer",
    "vocoder",
    "frames",
    "face_decoder",
    "voice_encoder",
    "voice_decoder",
    "speech_encoder",
    "bundle",
    "equalizer",
)


@recipe.command("default")
def recipe_default(
    data: Annotated[Path, typer.Option(help="Folder with faces/voteview and speech/.")],
    work: Annotated[Path, typer.Option(help="Folder for everything in between; a second run goes on from it.")] = Path(
        "runs/default"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("savedmodels/default"),
    minutes: Annotated[float, typer.Option(min=0, help="Time budget of the trainings.")] = 180.0,
    seed: Seed = 0,
    start: Annotated[
        Path | None, typer.Option("--from", help="Bundle whose synthesizer and vocoder learn on, in place of new ones.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs (or CPU processes) of each training.")] = 1,
    only: Annotated[str | None, typer.Option(help="One step: " + ", ".join(STEPS))] = None,
) -> None:
    """Make the default bundle: voice bank, trainings, weights. Resumes."""
    logging.getLogger().setLevel(logging.INFO)
    if only and only not in STEPS:
        raise InputError(f"no step {only!r}: choose one of {', '.join(STEPS)}")
    from ..recipes.default import DefaultRecipe

    steps = DefaultRecipe(
        data.absolute(), work.absolute(), out.absolute(), minutes * 60, seed, start and start.absolute(), devices
    )
    getattr(steps, only)() if only else steps.run()
