"""face2voice demo"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from savedmodels import InputError

from .options import BundleName, Device


def demo(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    bundle: BundleName = "default",
    device: Device = "auto",
) -> None:
    """Open the demo page, until Ctrl-C."""
    with _telling_what_is_missing():
        from demo.server import serve
    typer.echo(f"Face2Voice listens on http://{host}:{port} (Ctrl-C ends it)", err=True)
    serve(bundle, device, host, port)


def bench_demo(
    bundle: BundleName = "default",
    device: Device = "auto",
    users: Annotated[int, typer.Option(min=0, help="Visitors at once; 0: only the first sound is timed.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="For how long they go on asking.")] = 120.0,
    idle: Annotated[float, typer.Option(min=0, help="Seconds of rest before memory is measured.")] = 10.0,
) -> None:
    """Time from Speak to the first sound of a paragraph, on a server that is warm; --users: many at once."""
    with _telling_what_is_missing():
        from demo.benchmark import crowd, first_sound_seconds

    typer.echo(f"first sound after {first_sound_seconds(bundle, device):.2f} s")
    if not users:
        return
    typer.echo(f"{users} visitors at once, for {seconds:.0f} s ...", err=True)
    met = crowd(bundle, device, users, seconds, idle)
    table = Table("measured", "figure", title=f"{users} visitors at once, {seconds:.0f} s")
    table.add_row("answers that were right, sample for sample", str(len(met.waits)))
    table.add_row("mixed up or otherwise wrong", str(met.wrong))
    table.add_row("errors", str(len(met.errors)))
    table.add_row("wait in the line and for the answer, median", f"{statistics.median(met.waits or [0]):.1f} s")
    table.add_row("the longest", f"{max(met.waits, default=0):.1f} s")
    for when, size in zip(("before", "at most", "afterwards"), met.resident, strict=True):
        table.add_row(f"server's memory {when}", f"{size:.0f} MiB")
    table.add_row("growth", f"{met.growth:+.0f} MiB")
    Console().print(table)
    for error in sorted(set(met.errors)):
        typer.echo(error, err=True)
    if met.wrong or met.errors:
        raise typer.Exit(1)


@contextmanager
def _telling_what_is_missing() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if error.name not in ("gradio", "gradio_client", "fastapi", "uvicorn", "httpx"):
            raise
        raise InputError("the demo is not installed: pip install 'face2voice[demo]'") from error
