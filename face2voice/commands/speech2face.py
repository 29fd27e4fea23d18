"""``face2voice speech2face``, ``face2face``, ``face2speech`` and ``round-trip``."""

from pathlib import Path
from typing import Annotated

import typer

from savedmodels import InputError

from .options import BundleName, Device, Seed

Picture = Annotated[Path, typer.Option("--out", "-o", help="Picture to write, .png.")]
FaceIndex = Annotated[int | None, typer.Option("--index", min=0, help="Which face of the photo; 0 is the largest.")]


def speech2face(
    speech: Annotated[list[Path], typer.Option(help="Clip of a person talking; several make a contact sheet.")],
    out: Picture,
    bundle: BundleName = "default",
    device: Device = "auto",
) -> None:
    """Draw a face that is typical for a voice. It identifies nobody."""
    from ..speech2face import Speech2Face
    from ..speech2face.sheet import Tile, check_picture_path, contact_sheet, save_picture

    check_picture_path(out)
    s2f = Speech2Face.load(bundle, device)
    portraits = [s2f.portrait_from_speech(clip) for clip in speech]
    if len(portraits) == 1:
        portraits[0].save(out)
    else:
        tiles = [Tile(portrait.image, clip.stem) for portrait, clip in zip(portraits, speech, strict=True)]
        save_picture(contact_sheet(tiles), out)
    typer.echo(f"{out}: typical for such a voice; it identifies nobody", err=True)


def face2face(
    face: Annotated[Path, typer.Option(help="Photo.")],
    out: Picture,
    index: FaceIndex = None,
    bundle: BundleName = "default",
    device: Device = "auto",
) -> None:
    """Draw the face of a photo from the front and in even light."""
    from ..speech2face import Speech2Face
    from ..speech2face.pipeline import similarity
    from ..speech2face.sheet import check_picture_path

    check_picture_path(out)
    s2f = Speech2Face.load(bundle, device)
    portrait = s2f.portrait_from_face(face, index)
    portrait.save(out)
    kept = similarity(portrait.feature, s2f.describe(portrait.image))
    typer.echo(f"{out}: cosine of the face features of photo and portrait {kept:.3f}", err=True)


def face2speech(
    face: Annotated[Path, typer.Option(help="Photo.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Sound file to write: .wav, .flac or .ogg.")],
    index: FaceIndex = None,
    bundle: BundleName = "default",
    device: Device = "auto",
) -> None:
    """Make six seconds of the sound of a voice that suits a face; for words there is `speak`."""
    from ..pipeline import check_sound_path
    from ..speech2face import Speech2Face

    check_sound_path(out)
    speech = Speech2Face.load(bundle, device).speech_from_face(face, index)
    speech.save(out)
    typer.echo(f"{out}: {speech.duration:.1f} s", err=True)


def round_trip(
    out: Annotated[Path, typer.Option("--out", "-o", help="Contact sheet to write, .png.")],
    face: Annotated[Path | None, typer.Option(help="Photo: face to voice to face.")] = None,
    speech: Annotated[Path | None, typer.Option(help="Clip: speech to face to voice.")] = None,
    index: FaceIndex = None,
    bundle: BundleName = "default",
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Go from a face to a voice and back, or from a voice to a face and back, and compare at every step."""
    if bool(face) == bool(speech):
        raise InputError("give a photo with --face, or a clip with --speech")
    from ..pipeline import Face2Voice
    from ..speech2face import Speech2Face
    from ..speech2face.round_trip import from_face, from_speech
    from ..speech2face.sheet import check_picture_path, save_picture

    check_picture_path(out)
    s2f, tts = Speech2Face.load(bundle, device), Face2Voice.load(bundle, device)
    trip = from_face(s2f, tts, face, index, seed) if face else from_speech(s2f, tts, speech, seed)
    save_picture(trip.sheet(), out)
    for step, cosine in trip.similarities.items():
        typer.echo(f"{step}: {cosine:.3f}")
