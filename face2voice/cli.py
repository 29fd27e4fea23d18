"""The command line: which commands there are, and what becomes of their errors.

Heavy imports stand inside the commands, so that ``--help`` and a wrong option answer at once.
"""

import logging
import sys

import typer

from savedmodels import Face2VoiceError

from .commands.demo import bench_demo, demo
from .commands.evaluate import evaluate
from .commands.finetune import calibrate, finetune
from .commands.models import models
from .commands.output import to_user
from .commands.preprocess import preprocess
from .commands.recipe import recipe
from .commands.speak import batch, clone, embed, speak
from .commands.speech2face import face2face, face2speech, round_trip, speech2face
from .commands.train import bench_train, train

app = typer.Typer(
    help="Speak any sentence in a voice that suits a face.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
bench = typer.Typer(help="Measure speed, as ratios within one run.", no_args_is_help=True)

app.add_typer(models, name="models")
app.add_typer(bench, name="bench")
app.add_typer(recipe, name="recipe")
app.add_typer(finetune, name="finetune")
for command in (speak, clone, embed, batch, demo, evaluate, preprocess, train, calibrate):
    app.command()(command)
for command in (speech2face, face2face, face2speech):
    app.command()(command)
app.command("round-trip")(round_trip)
bench.command("train")(bench_train)
bench.command("demo")(bench_demo)


def main() -> None:
    """Runs the command; what the user can mend is one line on stderr and status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        status = _fail(error.format_message())
    except Face2VoiceError as error:
        status = _fail(str(error))
    except OSError as error:
        if not error.filename:
            raise
        status = _fail(f"{error.filename}: {error.strerror}")
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status)


def _fail(message: str) -> int:
    to_user.print("face2voice:", " ".join(message.split()), markup=False)
    return 2
