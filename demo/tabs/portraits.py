"""A clip to a portrait, a face to a portrait, and back to speech."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from encoder.audio import load_speech, mel_spectrogram
from face2voice.speech2face import round_trip
from savedmodels import InputError

from ..parts import Page, Updates, bar, listen, note, problem, small_player
from ..photos import Photo, face_index, photo_picker
from ..pictures import figure, heat, with_points
from ..speak import Wishes, speak_whole
from ..words import in_words

SENTENCE = "This is how the face in this picture may sound."


def build(page: Page) -> None:
    """Either way to a portrait, then that portrait's own voice."""
    gr.Markdown(
        "Draw the kind of face that a voice suggests. The portrait shows a typical face, not the person who speaks."
    )
    try:
        page.studio.speech2face()
    except InputError as error:
        gr.HTML(problem(in_words(error)), elem_id="faces-missing")
    clip = gr.Audio(label="Clip of one person talking", type="filepath", elem_id="faces-clip")
    from_clip = gr.Button("Draw the face", variant="primary", elem_id="faces-go")
    with gr.Accordion("Start from a face instead", open=False, elem_id="faces-round"):
        picker = photo_picker(page, "faces", "Photo of a face")
        from_face = gr.Button("Draw what the network keeps of this face", elem_id="faces-from-face")
    with gr.Accordion("There and back", open=False, elem_id="faces-there"):
        gr.Markdown("Face to voice to face if there is a photo above, else voice to face to voice of the clip.")
        around = gr.Button("Make the round trip", elem_id="faces-around")
        sheet = gr.HTML(elem_id="faces-sheet")
    status = gr.HTML(elem_id="faces-status")
    with gr.Column(visible=False, elem_id="faces-result") as result:
        portrait = gr.Image(
            label="Portrait", interactive=False, buttons=["download"], elem_id="faces-portrait", height=300
        )
        drawn = gr.HTML(elem_id="faces-figures")
        hear = gr.Button("Hear how this portrait sounds", elem_id="faces-hear")
        sound = small_player("Speech", "faces-speech")
    kept = gr.State(None)

    def draw(make, what: str, before: str = "") -> Iterator[Updates]:
        yield {status: bar(-1, 1, f"Drawing from the {what} …")}
        with page.studio.turn:
            made = make(page.studio.speech2face())
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
        try:
            samples = load_speech(path)
        except InputError as error:
            raise InputError(in_words(error, {path: "the clip"})) from error
        mel = np.log(mel_spectrogram(samples).T + 1e-6)
        before = figure(heat(mel, (1200, 160)), "Spectrogram", f"of your clip, 0 to {len(samples) / 16_000:.1f} s")
        yield {status: bar(-1, 1, "In line …"), result: gr.Column(visible=True), drawn: before, portrait: None}
        yield from draw(lambda model: model.portrait_from_speech(str(path)), "clip", before)

    def on_face(photo: Photo | None, face: str | None) -> Iterator[Updates]:
        if photo is None:
            raise InputError("there is no photo yet: choose one, or take the example")
        index = face_index(photo, face)
        yield from draw(lambda model: model.portrait_from_face(str(photo.path), index), "photo")

    def on_round(photo: Photo | None, face: str | None, given: object) -> Iterator[Updates]:
        model, tts = page.studio.speech2face(), page.studio.tts()
        if photo is not None:
            index = face_index(photo, face)
            trip = functools.partial(round_trip.from_face, model, tts, str(photo.path), index)
        else:
            trip = functools.partial(round_trip.from_speech, model, tts, str(page.upload(given, "clip or photo")))
        yield {status: bar(-1, 1, "There and back …")}
        with page.studio.turn:
            done = trip()
        kept_of = "; ".join(f"{step} {cosine:.2f}" for step, cosine in done.similarities.items())
        yield {status: note("Done."), sheet: figure(Image.fromarray(done.sheet()), "Round trip", f"alike: {kept_of}")}

    def on_hear(image: np.ndarray | None) -> Iterator[Updates]:
        if image is None:
            raise InputError("there is no portrait yet: draw one first")
        yield {status: bar(-1, 1, "Speaking …")}
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = Path(folder, "portrait.wav")
            speak_whole(page.studio, Wishes(SENTENCE), lambda tts: tts.voice_from_face(image)).speech.save(path)
            yield {status: note("Done."), sound: str(path)}

    outputs = (result, portrait, drawn, kept, sound)
    listen(from_clip.click, on_clip, [clip], outputs, status, heavy=True)
    listen(from_face.click, on_face, [picker.photo, picker.face], outputs, status, heavy=True)
    listen(around.click, on_round, [picker.photo, picker.face, clip], [sheet], status, heavy=True)
    listen(hear.click, on_hear, [kept], [sound], status, heavy=True)


def parts_of(portrait) -> str:
    """Landmarks and texture of a portrait as HTML."""
    drawn = figure(
        with_points(portrait.image, portrait.landmarks), "Landmarks", "where the network sees the face's parts"
    )
    texture = getattr(portrait, "texture", None)
    if texture is not None:
        drawn += figure(Image.fromarray(np.asarray(texture)), "Texture", "the face's surface before it is put in shape")
    return f'<div class="f2v-pair">{drawn}</div>'
