"""``face2voice evaluate``: measure bundles, side by side."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from savedmodels import InputError, write_atomically

from .output import progress, to_user

# Part -> the setting that tells how many people it takes.
_SIZES = {"voices": "people", "pairs": "pairs", "speech2face": "portraits"}


def evaluate(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for report.json and report.html; or a .json file, .html beside it."),
    ] = Path("report"),
    bundle: Annotated[
        list[str] | None,
        typer.Option("--bundle", help="Name of a bundle, or a folder laid out like one; several side by side."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with faces/voteview and speech/.")] = None,
    faces: Annotated[
        Path | None, typer.Option(help="Folder of the voteview portraits, in place of faces/voteview.")
    ] = None,
    natural: Annotated[
        Path | None, typer.Option(help="Folder of speechocean762, in place of speech/speechocean762.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Manifest of real pairs, JSON lines: audio, speaker, faces.")
    ] = None,
    ge2e: Annotated[
        Path | None, typer.Option(help="The published GE2E encoder; fetched from its package if not given.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Part: intelligibility, voices, pairs, sound, attention, speech2face or speed; several."),
    ] = None,
    sentences: Annotated[int | None, typer.Option(min=1, max=40, help="Harvard sentences per voice. [40]")] = None,
    voices: Annotated[int | None, typer.Option(min=1, help="People who say them. [6]")] = None,
    people: Annotated[int | None, typer.Option(min=2, help="People who say one sentence. [120]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few of everything: does it run, roughly how good.")] = False,
    vocoder: Annotated[str, typer.Option("--vocoder", help="wavernn or griffin-lim.")] = "wavernn",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same samples on the same device.")] = 0,
) -> None:
    """Measure bundles on people and sentences kept out of training: a report to read and one to compute with."""
    as_file = out.suffix == ".json"
    if out.is_dir() if as_file else out.exists() and not out.is_dir():
        raise InputError(f"{out}: give a folder, or a .json file, to write the report to")
    from ..evaluation import QUICK, Settings, find_judge, find_material, report
    from ..evaluation import evaluate as run
    from ..pipeline import Face2Voice

    chosen = {"sentences": sentences, "voices": voices, "people": people, "parts": tuple(only) if only else None}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    settings = dataclasses.replace(QUICK if quick else Settings(), **chosen, vocoder=vocoder, seed=seed)
    bundles = {name: Face2Voice.load(name, device) for name in bundle or ["default"]}
    wanted = [settings.voices, *(getattr(settings, size) for part, size in _SIZES.items() if part in settings.parts)]
    if pairs and settings.parts == ("pairs",):
        wanted = [0]  # the manifest has its own photos
    material = find_material(data, max(wanted), faces, pairs, natural)
    judge = find_judge(ge2e) if {"voices", "pairs"} & set(settings.parts) else None
    as_json = out if as_file else out / "report.json"
    as_json.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(as_json.parent, os.W_OK):
        raise InputError(f"{as_json.parent}: cannot be written to; choose another folder for the report")
    with progress("evaluating") as advance:
        results = run(bundles, material, settings, judge, advance)
    write_atomically(as_json, report.to_json(results).encode())
    write_atomically(as_json.with_suffix(".html"), report.to_html(results).encode())
    table = Table("part", "figure", "bundle", "value", "95 %", "chance")
    for row in report.summary(results):
        table.add_row(*row)
    Console().print(table)
    to_user.print(f"{as_json.with_suffix('.html')}: the report; {as_json}: every observation")
