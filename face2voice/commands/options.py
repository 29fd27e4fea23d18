"""Options that several commands have."""

from typing import Annotated

import typer

BundleName = Annotated[str, typer.Option("--bundle", help="Name of a bundle, or a folder laid out like one.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result on the same device.")]
