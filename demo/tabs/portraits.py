"""A clip to a portrait, a face to a portrait, and the round trip either way."""

import contextlib
import html
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from PIL import Image

from face2voice.limits import FILES_KEPT
from face2voice.speech2face import Portrait, audio, round_trip
from face2voice.speech2face.round_trip import RoundTrip
from face2voice.speech2face.sheet import MADE_BY
from savedmodels import InputError

from ..parts import SPEAKING, Page, Updates, bar, clip_input, listen, note, problem, small_player
from ..photos import Photo, face_index, photo_picker
from ..pictures import figure, heat, with_points
from ..speak import Wishes, speak_whole
from ..words import calling, in_words

SENTENCE = "This is how the face in this picture may sound."


def build(page: Page) -> None:
    """Either way to a portrait, that portrait's own voice, and there and back."""
    gr.Markdown(
        "Draw the kind of face that a voice suggests. The portrait shows a typical face, not the person who speaks."
    )
    try:
        page.studio.speech2face()
    except InputError as error:
        gr.HTML(problem(in_words(error)), elem_id="faces-missing")
    clip = clip_input("faces-clip")
    from_clip = gr.Button("Draw the face", variant="primary", elem_id="faces-go")
    with gr.Accordion("Start from a face instead", open=False, elem_id="faces-round"):
        picker = photo_picker(page, "faces", "Photo of a face")
        from_face = gr.Button("Draw what the network keeps of this face", elem_id="faces-from-face")
    status = gr.HTML(elem_id="faces-status")
    with gr.Column(visible=False, elem_id="faces-result", elem_classes="f2v-result") as result:
        portrait = gr.Image(
            label="Portrait", interactive=False, buttons=["download"], elem_id="faces-portrait", height=300
        )
        drawn = gr.HTML(elem_id="faces-figures")
        hear = gr.Button("Hear how this portrait sounds", elem_id="faces-hear")
        sound = small_player("Speech", "faces-speech")
    with gr.Accordion("There and back", open=False, elem_id="faces-there"):
        gr.Markdown(
            "How much of a face outlives a voice, and of a voice a face: from the photo or the clip above, "
            "with the similarity at each step."
        )
        with gr.Row():
            face_trip = gr.Button("Face to voice to face", elem_id="faces-face-trip")
            voice_trip = gr.Button("Voice to face to voice", elem_id="faces-voice-trip")
        trip_status = gr.HTML(elem_id="faces-trip-status")
        trip = gr.HTML(elem_id="faces-trip")
    kept = gr.State(None, time_to_live=FILES_KEPT)

    def draw(make, what: str, before: str = "") -> Iterator[Updates]:
        yield {status: bar(-1, 1, f"Drawing from the {what} …")}
        model = page.studio.speech2face()
        with page.studio.turn:
            made = make(model)
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = f"{folder}/portrait.png"
            made.save(path)  # which marks it as AI-generated
            yield {
                status: note("Done."),
                result: gr.Column(visible=True),
                portrait: gr.Image(path, alt_text=f"Portrait drawn from the {what}"),
                drawn: before + parts_of(made),
                kept: made.image,
                sound: None,
            }

    def on_clip(given: object) -> Iterator[Updates]:
        path = page.upload(given, "clip")
        with calling(path, "the clip"):
            heard = spectrogram(path)
            yield from draw(lambda model: model.portrait_from_speech(str(path)), "clip", heard)

    def on_face(photo: Photo | None, face: str | None) -> Iterator[Updates]:
        photo, index = chosen(photo, face)
        with calling(photo.path, "the photo"):
            yield from draw(lambda model: model.portrait_from_face(str(photo.path), index), "photo")

    def on_face_trip(photo: Photo | None, face: str | None) -> Iterator[Updates]:
        photo, index = chosen(photo, face)
        with calling(photo.path, "the photo"), _judging_what_was_made(photo.path):
            yield from travel(lambda *models: round_trip.from_face(*models, str(photo.path), index))

    def on_voice_trip(given: object) -> Iterator[Updates]:
        path = page.upload(given, "clip")
        with calling(path, "the clip"), _judging_what_was_made(path):
            yield from travel(lambda *models: round_trip.from_speech(*models, str(path)))

    def travel(make) -> Iterator[Updates]:
        yield {trip_status: bar(-1, 1, "There and back …")}
        models = page.studio.speech2face(), page.studio.tts()
        with page.studio.turn:
            done = make(*models)
        yield {trip_status: note("Done."), trip: stations_of(done)}

    def on_hear(image: np.ndarray | None) -> Iterator[Updates]:
        if image is None:
            raise InputError("there is no portrait yet: draw one first")
        yield {status: bar(-1, 1, "Speaking …")}
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder, _judging_what_was_made():
            path = Path(folder, "portrait.wav")
            speak_whole(page.studio, Wishes(SENTENCE), lambda tts: tts.voice_from_face(image)).speech.save(path)
            yield {status: note("Done."), sound: str(path)}

    outputs = (result, portrait, drawn, kept, sound)
    listen(from_clip.click, on_clip, [clip], outputs, status, line=SPEAKING)
    listen(from_face.click, on_face, [picker.photo, picker.face], outputs, status, line=SPEAKING)
    listen(face_trip.click, on_face_trip, [picker.photo, picker.face], [trip], trip_status, line=SPEAKING)
    listen(voice_trip.click, on_voice_trip, [clip], [trip], trip_status, line=SPEAKING)
    listen(hear.click, on_hear, [kept], [sound], status, line=SPEAKING)


def chosen(photo: Photo | None, face: str | None) -> tuple[Photo, int]:
    """The photo and the index of the face picked in it; InputError if there is no photo yet."""
    if photo is None:
        raise InputError("there is no photo yet: start from a face, or take the example")
    return photo, face_index(photo, face)


def spectrogram(clip: Path) -> str:
    """HTML with what a portrait is drawn from; InputError as `audio.load_clip`."""
    heard = audio.spectrogram(torch.from_numpy(audio.fill(audio.load_clip(clip))))
    caption = "the six seconds of speech that are listened to, 0 to 8 kHz"
    return figure(heat(np.hypot(*heard.numpy()), (1200, 160)), "Spectrogram", caption)


def parts_of(portrait: Portrait) -> str:
    """Landmarks and texture of a portrait as HTML."""
    points = with_points(portrait.image, portrait.landmarks)
    parts = (
        figure(points, "Landmarks", "where the face's parts lie", MADE_BY),
        figure(Image.fromarray(portrait.texture), "Texture", "its surface on a mean face", MADE_BY),
    )
    return f'<div class="f2v-pair">{"".join(parts)}</div>'


def stations_of(trip: RoundTrip) -> str:
    """A picture of every station of a round trip, and how alike they are, as HTML."""
    tiles = "".join(
        figure(Image.fromarray(tile.image), f"{number}.", tile.caption.splitlines()[0], MADE_BY)
        for number, tile in enumerate(trip.tiles, start=1)
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(step)}</th><td>{cosine:.2f}</td></tr>'
        for step, cosine in trip.similarities.items()
    )
    caption = "How alike they are (cosine; 1 is the same)"
    return f'<div class="f2v-trip">{tiles}</div><table class="f2v-table"><caption>{caption}</caption>{rows}</table>'


@contextlib.contextmanager
def _judging_what_was_made(given: Path | None = None) -> Iterator[None]:
    """Nothing is wrong with what a visitor gave if the portrait or the speech made of it cannot be used."""
    try:
        yield
    except InputError as error:
        if given is None or str(given) not in str(error):
            for start, sentence in _MADE_BADLY.items():
                if start in str(error):
                    raise InputError(sentence) from error
        raise


_UNCLEAR = "the speech came out too unclear to be heard as such: try another clip or photo"
_MADE_BADLY = {
    "no face found": "the portrait came out too vague to be seen as a face: try another clip",
    "no speech was heard": _UNCLEAR,
    "too short": _UNCLEAR,
}
