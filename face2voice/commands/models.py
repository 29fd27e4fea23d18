"""``face2voice models list``, ``verify`` and ``import``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from savedmodels import InputError, find_bundle, list_bundles

models = typer.Typer(help="The bundles of weights on this machine.", no_args_is_help=True)


@models.command("list")
def list_models() -> None:
    """Show the bundles and their parts."""
    table = Table("bundle", "part", "file", "MiB")
    for bundle in list_bundles():
        for part, path in bundle.parts.items():
            table.add_row(bundle.name, part, str(path), f"{path.stat().st_size / 2**20:.1f}")
    Console().print(table)


@models.command()
def verify(bundle: Annotated[str, typer.Argument(help="Name or folder.")] = "default") -> None:
    """Check every file of a bundle against its recorded SHA-256."""
    results = find_bundle(bundle).verify()
    for path, good in results.items():
        verdict = {True: "good", False: "damaged or missing", None: "no SHA-256 recorded"}[good]
        print(f"{path}: {verdict}")
    bad = [str(path) for path, good in results.items() if good is False]
    if bad:
        raise InputError(f"{', '.join(bad)}: not what was published; fetch it again")


@models.command("import")
def import_weights(
    source: Annotated[
        Path, typer.Argument(help="vgg_face_weights.h5 (deepface) or rcmalli_vggface_tf_vgg16.h5 (keras-vggface).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, .safetensors.")],
    preprocessing: Annotated[
        str,
        typer.Option(help="unit: RGB in [0, 1], as published Speech2Face weights expect; mean: as VGG-Face itself."),
    ] = "unit",
) -> None:
    """Turn published VGG-Face weights into ours; TensorFlow is not needed."""
    if preprocessing not in ("unit", "mean"):
        raise InputError(f"no preprocessing {preprocessing!r}: choose unit or mean")
    from ..speech2face.vggface import import_keras

    dims = import_keras(source, out, preprocessing)
    typer.echo(f"{out}: VGG-Face, fc7 {dims.hidden}, fc8 {dims.classes}, {dims.side} x {dims.side} pixels", err=True)
