"""A clip and a text to speech."""

import gradio as gr

from face2voice import Face2Voice, Voice
from savedmodels import InputError

from ..form import speech_form
from ..parts import Page
from ..speak import FindVoice
from ..words import in_words


def build(page: Page) -> None:
    """Clip, text, Speak."""
    gr.Markdown("Speak in the kind of voice that a clip has. Use your own voice, or that of a person who agreed.")
    clip = gr.Audio(label="Clip of one person talking, some seconds long", type="filepath", elem_id="clone-clip")

    def find_voice(given: object) -> FindVoice:
        path = page.upload(given, "clip")
        return lambda tts: voice_of_clip(tts, path)

    speech_form(page, "clone", find_voice, (clip,))


def voice_of_clip(tts: Face2Voice, path: object) -> Voice:
    """The voice of an uploaded clip; InputError if it cannot be used."""
    try:
        return Voice(tts.voice_from_speech(str(path)).embedding, "clip")
    except InputError as error:
        raise InputError(in_words(error, {str(path): "the clip"})) from error
