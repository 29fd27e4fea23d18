"""Named endpoints for gradio_client: /speak, /clone, /speech2face."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from .parts import SPEAKING, Page
from .photos import find_photo
from .speak import FindVoice, Wishes, number, speak_whole
from .tabs.clone import voice_of_clip
from .words import calling, in_words


def build(page: Page) -> None:
    """Adds the endpoints to the page; nothing of them is seen."""
    with gr.Column(visible=False):
        photo = gr.File(label="photo")
        clip = gr.File(label="clip")
        text = gr.Textbox(label="text")
        face = gr.Number(0, label="face", precision=0)
        numbers = [
            gr.Number(value, label=label)
            for label, value in (("seed", 0), ("speed", 1), ("pause", 1), ("pitch", 0), ("older", 0))
        ]
        sound = gr.File(label="speech")
        told = gr.JSON(label="report")
        picture = gr.File(label="portrait")

    def speak(
        photo: object, text: str, face=0, seed=0, speed=1.0, pause=1.0, pitch=0.0, older=0.0
    ) -> Iterator[tuple[str, dict]]:
        found, _ = find_photo(page.studio, page.upload(photo, "photo"))
        index = int(number(face, 0, 99, "face"))
        yield from answer(Wishes(text, seed, speed, pause, pitch, older), lambda tts: found.voice(tts, index))

    def clone(
        clip: object, text: str, seed=0, speed=1.0, pause=1.0, pitch=0.0, older=0.0
    ) -> Iterator[tuple[str, dict]]:
        path = page.upload(clip, "clip")
        yield from answer(Wishes(text, seed, speed, pause, pitch, older), lambda tts: voice_of_clip(tts, path))

    def answer(wishes: Wishes, find_voice: FindVoice) -> Iterator[tuple[str, dict]]:
        done = speak_whole(page.studio, wishes, find_voice)
        speech = done.speech
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = Path(folder, "speech.wav")
            speech.save(path)
            told = {
                "seconds": speech.duration,
                "real_time_factor": done.seconds / speech.duration,
                "texts": speech.texts,
            }
            yield str(path), {**told, "truncated": speech.truncated}

    def speech2face(clip: object) -> Iterator[str]:
        path = page.upload(clip, "clip")
        with page.studio.turn:
            portraitist = page.studio.speech2face()
            with calling(path, "the clip"):
                portrait = portraitist.portrait_from_speech(str(path))
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = Path(folder, "portrait.png")
            portrait.save(path)
            yield str(path)

    for work, inputs, outputs in (
        (speak, [photo, text, face, *numbers], [sound, told]),
        (clone, [clip, text, *numbers], [sound, told]),
        (speech2face, [clip], [picture]),
    ):
        gr.Button(visible=False).click(
            _answering(work),
            inputs,
            outputs,
            api_name=work.__name__,
            preprocess=False,
            show_progress="hidden",
            **SPEAKING,
        )


def _answering(work):
    @functools.wraps(work)
    def handler(*values):
        try:
            yield from work(*values)
        except Exception as error:  # what a program gets is a sentence, too
            raise gr.Error(in_words(error), print_exception=False) from error

    return handler
