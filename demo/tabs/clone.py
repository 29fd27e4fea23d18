"""A clip and a text to speech."""

from pathlib import Path

import gradio as gr

from face2voice import Face2Voice, Voice

from ..form import speech_form
from ..parts import Page, clip_input
from ..speak import FindVoice
from ..words import calling


def build(page: Page) -> None:
    """Clip, text, Speak."""
    gr.Markdown("Speak in the kind of voice that a clip has. Use your own voice, or that of a person who agreed.")
    clip = clip_input("clone-clip")

    def find_voice(given: object) -> FindVoice:
        path = page.upload(given, "clip")
        return lambda tts: voice_of_clip(tts, path)

    speech_form(page, "clone", find_voice, (clip,))


def voice_of_clip(tts: Face2Voice, path: Path) -> Voice:
    """The voice of an uploaded clip; InputError if it cannot be used."""
    with calling(path, "the clip"):
        return Voice(tts.voice_from_speech(str(path)).embedding, "clip")
