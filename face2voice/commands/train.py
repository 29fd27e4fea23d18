"""``face2voice train``: a network on the records that ``face2voice preprocess`` made; ``face2voice bench train``."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from savedmodels import InputError, find_bundle, write_atomically

from .options import DESCRIBERS, find_checkpoint, seconds_of
from .output import progress, to_user

OPTIONS_FILE = "options.json"


def train(
    stage: Annotated[
        str,
        typer.Argument(help="speech-encoder, face-encoder, synthesizer, vocoder, face-decoder or voice-encoder."),
    ],
    data: Annotated[Path, typer.Option(help="Folder of records, made by face2voice preprocess.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; a second run goes on from it.")],
    start: Annotated[
        str | None, typer.Option("--from", help="Checkpoint to go on from, or the bundle to take it from.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Ends the training.")] = None,
    max_time: Annotated[str | None, typer.Option(help="HH:MM:SS; ends the training, all runs together.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="Of all devices together: utterances, segments or people.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="The highest; with --from a fifth of the usual if not given.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs (or CPU processes) of each node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines, each started with this command.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of all that is drawn.")] = 0,
    legacy_targets: Annotated[
        bool, typer.Option(help="face-encoder: voices as Lip2Speech's training had them.")
    ] = False,
    size: Annotated[
        str,
        typer.Option(
            help="default, published or tiny; vocoder: also published-mol; voice-encoder: also ast. "
            "Not used with --from."
        ),
    ] = "default",
    face_encoder: Annotated[
        str, typer.Option(help="face-decoder, voice-encoder: what described the faces in preprocess.")
    ] = "default",
    decoder: Annotated[
        str | None,
        typer.Option(
            help="voice-encoder: face decoder, or bundle with one, in whose first layers faces and voices are "
            "compared; if not given, that of --face-encoder's bundle, and none if it has none."
        ),
    ] = None,
    pairing: Annotated[
        str | None,
        typer.Option(
            help="voice-encoder: one-to-one, all-to-one or all-to-all of a person's clips and photos, or sex-and-age "
            "of different people; all-to-all if not given and there are people with both."
        ),
    ] = None,
    patience: Annotated[int, typer.Option(min=0, help="Evaluations without a better figure that end it; 0: none.")] = 0,
    save_every: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 120.0,
) -> None:
    """Train a network. Resumes; tensorboard --logdir OUT shows how it goes."""
    logging.getLogger().setLevel(logging.INFO)
    seconds = seconds_of(max_time)
    if steps is None and max_time is None:
        raise InputError("say when the training ends: --steps N, --max-time HH:MM:SS or both")
    from ..stages import Options, build_task, find_stage
    from ..training import BEST_FILE, Hardware, Schedule, fit

    chosen = find_stage(stage)
    hardware = Hardware(accelerator, devices, nodes, precision)
    usual = chosen.learning_rate / 5 if start else chosen.learning_rate
    rate = usual if learning_rate is None else learning_rate
    schedule = Schedule(
        seconds,
        rate,
        clip=chosen.clip,
        save_seconds=save_every,
        steps=math.inf if steps is None else steps,
        patience=patience,
        optimizer=chosen.optimizer,
    )
    options = Options(
        start and find_checkpoint(start, stage.replace("-", "_")),
        size,
        batch_size,
        legacy_targets,
        seed,
        find_checkpoint(face_encoder, *DESCRIBERS),
        find_checkpoint(decoder, "face_decoder") if decoder else _beside(face_encoder),
        pairing,
    )
    task = build_task(stage, data, options)
    settled = {"from": start, "size": size, "batch-size": batch_size, "learning-rate": learning_rate, "seed": seed}
    _keep_to(out, settled | {"legacy-targets": legacy_targets, "decoder": decoder, "pairing": pairing})
    with progress(stage, lines=False) as advance:  # its log tells
        path = fit(task, out, schedule, seed, hardware, lambda share, loss: advance(share))
    if not {os.environ.get("LOCAL_RANK", "0"), os.environ.get("NODE_RANK", "0")} - {"0"}:
        to_user.print(f"{path}: trained; the best by its figures is {path.with_name(BEST_FILE)}", markup=False)


def bench_train(
    stages: Annotated[list[str] | None, typer.Argument(help="synthesizer, vocoder; both if not given.")] = None,
    size: Annotated[str, typer.Option(help="default, published or tiny; published with CUDA if not given.")] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Items a step.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each variant.")] = 5,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write.")] = None,
) -> None:
    """Measure training: steps per second, and as a ratio to plain loops over time."""
    from ..benchmarks import measure_training
    from ..training import Hardware

    device = "cuda" if Hardware(accelerator).cuda else "cpu"
    size = size or ("published" if device == "cuda" else "default")
    measured = measure_training(stages or ["synthesizer", "vocoder"], size, device, batch_size, steps)
    table = Table("stage", "variant", "steps/s", "ratio to plain", title=f"{size}, batches of {batch_size}, {device}")
    for row in measured:
        table.add_row(row.stage, row.variant, f"{row.steps_per_second:.2f}", f"{row.ratio:.2f}")
    Console().print(table)
    if out:
        settings = {"size": size, "batch_size": batch_size, "device": device}
        write_atomically(out, json.dumps({**settings, "rows": [vars(row) for row in measured]}, indent=2).encode())


def _keep_to(run: Path, options: dict[str, Any]) -> None:
    """Has a run that has got anywhere go on with the options it began with; InputError if others are given now."""
    from ..training import MODEL_FILE

    path = run / OPTIONS_FILE
    if not (path.is_file() and (run / MODEL_FILE).is_file()):
        write_atomically(path, json.dumps(options, indent=2).encode())
    for name, begun in json.loads(path.read_text()).items():
        if options[name] != begun:
            left_out = begun is None or begun is False
            value = "" if left_out or begun is True else f" {begun}"
            raise InputError(
                f"{run}: its run was begun {'without' if left_out else 'with'} --{name}{value}; "
                "give the same again, or another folder"
            )


def _beside(face_encoder: str) -> Path | None:
    """The face decoder of a bundle, if it is one and has one."""
    return None if Path(face_encoder).is_file() else find_bundle(face_encoder).find("face_decoder")
