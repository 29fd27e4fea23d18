"""face2voice demo"""

from typing import Annotated

import typer

from savedmodels import InputError


def demo(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    bundle: Annotated[
        str, typer.Option("--bundle", help="Name of a bundle, or a folder laid out like one.")
    ] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Open the demo page, until Ctrl-C."""
    try:
        from demo.server import serve
    except ImportError as error:
        if error.name not in ("gradio", "fastapi", "uvicorn"):
            raise
        raise InputError("the demo is not installed: pip install 'face2voice[demo]'") from error
    typer.echo(f"Face2Voice listens on http://{host}:{port} (Ctrl-C ends it)", err=True)
    serve(bundle, device, host, port)


def bench_demo(
    bundle: Annotated[
        str, typer.Option("--bundle", help="Name of a bundle, or a folder laid out like one.")
    ] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Time from Speak to the first sound of a paragraph, on a server that is warm."""
    from demo.benchmark import first_sound_seconds

    typer.echo(f"first sound after {first_sound_seconds(bundle, device):.2f} s")
