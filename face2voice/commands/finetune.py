"""``face2voice finetune``: a bundle of one's own; ``face2voice calibrate``: the published face encoder put right."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from savedmodels import InputError

from .options import Device, Seed, seconds_of
from .output import progress, to_user
from .preprocess import name_and_path

if TYPE_CHECKING:
    from ..finetune import Preparing, Progress
    from ..likeness import Result

finetune = typer.Typer(help="Teach a bundle your own people or voice: a new bundle.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle, for --bundle.")]
Start = Annotated[str, typer.Option("--from", help="Bundle or checkpoint to begin with.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Ends the training.")]
MaxTime = Annotated[str | None, typer.Option(help="HH:MM:SS; ends the training.")]
LearningRate = Annotated[float | None, typer.Option(min=0, help="The highest.")]
BatchSize = Annotated[int | None, typer.Option(min=2, help="Items a step; people, without a frozen backbone.")]
Corpora = Annotated[list[str] | None, typer.Option("--corpus", help="NAME=PATH, see preprocess; several are joined.")]
Work = Annotated[Path | None, typer.Option(help="Folder for everything in between, kept; OUT-work if not given.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that look at photos and listen to clips; 0: this one.")]
PerPerson = Annotated[int, typer.Option(min=1, help="Photos, and clips, of one person that are used, at most.")]


@finetune.command("face-encoder")
def face_encoder(
    out: Out,
    pairs: Annotated[
        Path | None, typer.Option(help="Folder with one folder of photos and clips per person, or a manifest.")
    ] = None,
    corpus: Corpora = None,
    pair_by: Annotated[
        str, typer.Option(help="person; or sex-age, for a --corpus of faces and one of strangers' speech.")
    ] = "person",
    start: Start = "default",
    freeze: Annotated[str, typer.Option(help="backbone: quick, for few people; none: for thousands.")] = "backbone",
    steps: Steps = None,
    max_time: MaxTime = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    per_person: PerPerson = 20,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 1,
    work: Work = None,
) -> None:
    """Teach the face encoder how people sound, from photos and clips of them."""
    if bool(pairs) == bool(corpus):
        raise InputError("give the people's photos and clips with --pairs or --corpus, one of them")
    if pair_by not in ("person", "sex-age"):
        raise InputError(f"no --pair-by {pair_by}: choose person or sex-age")
    if pairs and pair_by != "person":
        raise InputError("--pair-by sex-age is for --corpus: in --pairs faces and voices are of the same people")
    seconds = seconds_of(max_time)
    from ..finetune import Plan, finetune_face_encoder
    from ..pairs import at_most, read_corpora, read_people

    if pairs:
        utterances = read_people(pairs)
    else:
        utterances = read_corpora(map(name_and_path, corpus), pair_by == "sex-age", seed)
    plan = Plan(steps, seconds, learning_rate, batch_size, seed, device, workers, work)
    with _told("face-encoder") as tell:
        result = finetune_face_encoder(list(at_most(utterances, per_person)), out, start, freeze, plan, *tell)
    _show(result)


def _speech(stage: str, what: str) -> Callable[..., None]:
    """The command that fine-tunes a stage to one speaker."""

    def command(
        out: Out,
        corpus: Corpora = None,
        data: Annotated[Path | None, typer.Option(help=f"Folder made by face2voice preprocess {stage}.")] = None,
        start: Start = "default",
        steps: Steps = None,
        max_time: MaxTime = None,
        learning_rate: LearningRate = None,
        batch_size: BatchSize = None,
        seed: Seed = 0,
        device: Device = "auto",
        workers: Workers = 1,
        work: Work = None,
    ) -> None:
        seconds = seconds_of(max_time)
        from ..finetune import Plan, finetune_speech

        plan = Plan(steps, seconds, learning_rate, batch_size, seed, device, workers, work)
        corpora = [name_and_path(value) for value in corpus or ()]
        with _told(stage) as tell:
            result = finetune_speech(stage, out, corpora, data, start, plan, *tell)
        _show(result)

    command.__doc__ = what
    return command


finetune.command("synthesizer")(_speech("synthesizer", "Teach the synthesizer to speak as one person does."))
finetune.command("vocoder")(_speech("vocoder", "Teach the vocoder how one person sounds."))


def calibrate(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or a folder laid out like one.")],
    corpus: Corpora = None,
    clips: Annotated[Path | None, typer.Option(help="Folder with one folder of clips per speaker.")] = None,
    per_person: PerPerson = 10,
    legacy_targets: Annotated[
        bool, typer.Option(help="The face encoder was trained with this option; it is no published file.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Put right what Lip2Speech's face encoder answers: another mel spectrogram had shifted its voices."""
    if bool(clips) == bool(corpus):
        raise InputError("give clips with --corpus or --clips, one of them")
    from ..calibrate import calibrate as run
    from ..pairs import at_most, read_corpora

    utterances = read_corpora([("people", clips)] if clips else map(name_and_path, corpus))
    utterances = list(at_most((one for one in utterances if one.audio), per_person))
    with progress("listening", len(utterances)) as advance:
        result = run(bundle, utterances, legacy_targets, seed, advance)
    _show(result)


def _show(result: "Result") -> None:
    """Notes on stderr, the table on stdout."""
    for note in result.notes:
        to_user.print(note, markup=False)
    if result.before:
        table = Table("figure", "before", "after", "chance", title=result.held_out)
        for name, before in result.before.items():
            by_chance = result.chance.get(name)
            told = "" if by_chance is None else f"{by_chance:.3f}"
            table.add_row(name, f"{before:.3f}", f"{result.after[name]:.3f}", told)
        Console().print(table)
    else:
        to_user.print("nothing could be held out to measure by; give more people, or more photos and clips of each")
    to_user.print(f"{result.bundle}: the bundle; speak with --bundle {result.bundle}", markup=False)


@contextmanager
def _told(stage: str) -> Iterator[tuple["Progress", "Preparing"]]:
    """One bar for the photos and clips, then for the training with its loss."""
    with progress(stage) as advance:
        yield (
            lambda share, loss: advance(share, 1.0, f"{stage}, loss {loss:.3f}"),
            lambda done, total: advance(done, total, "looking and listening"),
        )
