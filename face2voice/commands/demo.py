"""face2voice demo"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

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
) -> None:
    """Time from Speak to the first sound of a paragraph, on a server that is warm."""
    with _telling_what_is_missing():
        from demo.benchmark import first_sound_seconds

    typer.echo(f"first sound after {first_sound_seconds(bundle, device):.2f} s")


@contextmanager
def _telling_what_is_missing() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if error.name not in ("gradio", "fastapi", "uvicorn"):
            raise
        raise InputError("the demo is not installed: pip install 'face2voice[demo]'") from error
