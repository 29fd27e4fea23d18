"""A photo and the choice among its faces."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np

from encoder.face import Face, find_faces, load_photo
from face2voice import Face2Voice, Voice
from face2voice.limits import FACES_SHOWN, FILES_KEPT
from savedmodels import InputError

from .examples import PORTRAIT
from .parts import Page, Updates, listen, note
from .pictures import marked, stored
from .studio import FoundFaces, Studio
from .words import calling


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A visitor's photo and the faces in it, the largest first."""

    path: Path
    faces: tuple[Face, ...]

    def voice(self, tts: Face2Voice, face: int = 0) -> Voice:
        """The voice that suits one of the faces; InputError if there is no such face."""
        with calling(self.path, "the photo"):
            voice = tts.voice_from_face(str(self.path), face, FoundFaces(list(self.faces)))
        return Voice(voice.embedding, "photo" if len(self.faces) == 1 else f"photo, face {face + 1}")


def find_photo(studio: Studio, path: Path) -> tuple[Photo, np.ndarray]:
    """A photo with the faces in it, and its pixels; InputError if it cannot be read or shows none."""
    with calling(path, "the photo"):
        pixels = load_photo(path)
    with studio.turn:
        faces = tuple(find_faces(pixels, studio.detector()))[:FACES_SHOWN]
    if not faces:
        raise InputError("no face found")
    return Photo(path, faces), pixels


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoPicker:
    """Components that hold a chosen face: `photo` (state: `Photo` or None) and `face` ("1", "2", ...)."""

    photo: gr.State
    face: gr.Radio

    def voice(self, tts: Face2Voice, photo: Photo | None, face: str | None) -> Voice:
        """The voice of the chosen face; InputError if there is none yet."""
        if photo is None:
            raise InputError("there is no photo yet: choose one, or take the example")
        return photo.voice(tts, face_index(photo, face))


def photo_picker(page: Page, name: str, label: str) -> PhotoPicker:
    """A place for a photo; once it is there, its faces are framed and numbered, and one can be picked."""
    photo = gr.State(None, time_to_live=FILES_KEPT)
    upload = gr.Image(
        label=label,
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        image_mode=None,
        height=260,
        elem_id=f"{name}-photo",
        placeholder="Drop a photo here, or press to choose one",
    )
    shown = gr.Image(
        label="Faces found", interactive=False, visible=False, buttons=[], elem_id=f"{name}-faces", height=340
    )
    face = gr.Radio([], label="Which face?", visible=False, elem_id=f"{name}-face")
    with gr.Row(elem_classes="f2v-chips"):
        example = gr.Button("Use the example portrait", size="sm", elem_id=f"{name}-example")
        again = gr.Button("Choose another photo", size="sm", visible=False, elem_id=f"{name}-again")
    said = gr.HTML(elem_id=f"{name}-photo-note")

    def show(path: Path) -> Iterator[Updates]:
        found, pixels = find_photo(page.studio, path)
        count = len(found.faces)
        picture, _ = marked(pixels, found.faces)
        numbers = [str(number + 1) for number in range(count)]
        words = "One face found." if count == 1 else f"{count} faces found: press one, or pick its number."
        with stored(picture) as file:
            yield {
                photo: found,
                upload: gr.Image(visible=False),
                shown: gr.Image(file, visible=True, alt_text=f"Your photo; {words}"),
                face: gr.Radio(numbers, value="1", visible=count > 1),
                example: gr.Button(visible=False),
                again: gr.Button(visible=True),
                said: note(words),
            }

    def on_upload(value: object) -> Iterator[Updates] | Updates:
        return show(page.upload(value, "photo")) if value else {}

    def on_example() -> Iterator[Updates]:
        return show(PORTRAIT)

    def on_again() -> Updates:
        return {
            photo: None,
            upload: gr.Image(None, visible=True),
            shown: gr.Image(None, visible=False),
            face: gr.Radio([], value=None, visible=False),
            example: gr.Button(visible=True),
            again: gr.Button(visible=False),
            said: "",
        }

    def on_pick(chosen: Photo | None, value: str | None) -> Iterator[Updates]:
        if chosen is not None:
            picture, _ = marked(load_photo(chosen.path), chosen.faces, face_index(chosen, value))
            with stored(picture) as file:
                yield {shown: file}

    def on_press(chosen: Photo | None, event: gr.SelectData) -> Updates:
        if chosen is None or not isinstance(event.index, list | tuple):
            return {}
        _, scale = marked(load_photo(chosen.path), chosen.faces)
        x, y = (float(place) / scale for place in event.index)
        for number, one in enumerate(chosen.faces):
            left, top, right, bottom = one.box
            if left <= x <= right and top <= y <= bottom:
                return {face: str(number + 1)}
        return {}

    outputs = (photo, upload, shown, face, example, again)
    # a photo that cannot be used makes room for the next one
    listen(upload.change, on_upload, [upload], outputs, said, on_error=lambda: {upload: None})
    listen(example.click, on_example, [], outputs, said)
    listen(again.click, on_again, [], outputs, said)
    listen(face.change, on_pick, [photo, face], [shown], said)
    listen(shown.select, on_press, [photo], [face], said)
    return PhotoPicker(photo, face)


def face_index(photo: Photo, value: str | None) -> int:
    """Which face a number that was picked, "1" and up, stands for; the largest if none was."""
    numbers = [str(number + 1) for number in range(len(photo.faces))]
    if value is not None and value not in numbers:
        raise InputError(f"there is no such face: choose 1 to {len(numbers)}")
    return numbers.index(value) if value else 0
