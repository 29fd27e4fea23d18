"""A photo and a text to speech."""

import dataclasses
import tempfile
from collections.abc import Iterator

import gradio as gr

from ..form import SpeechForm, speech_form
from ..parts import SPEAKING, Page, Updates, bar, listen, note, small_player
from ..photos import Photo, photo_picker
from ..speak import FindVoice, Wishes, speak_whole


def build(page: Page) -> None:
    """Photo, text, Speak; the comparison of two faces is folded away."""
    picker = photo_picker(page, "speak", "Photo of a face")

    def find_voice(photo: Photo | None, face: str | None) -> FindVoice:
        return lambda tts: picker.voice(tts, photo, face)

    form = speech_form(page, "speak", find_voice, (picker.photo, picker.face))
    with gr.Accordion("Compare with another face", open=False, elem_id="speak-compare"):
        _comparison(page, find_voice, (picker.photo, picker.face), form)


def _comparison(page: Page, find_voice, first: tuple[gr.State, gr.Radio], form: SpeechForm) -> None:
    other = photo_picker(page, "compare", "Photo of another face")
    go = gr.Button("Let both say the text", elem_id="compare-go")
    said = gr.HTML(elem_id="compare-status")
    with gr.Row(elem_classes="f2v-side"):
        players = [
            small_player("First face", "compare-first"),
            small_player("Second face", "compare-second"),
        ]

    def work(*values: object) -> Iterator[Updates]:
        asked = Wishes(*values[4:])
        voices = []
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            for number, (photo, face) in enumerate((values[:2], values[2:4])):
                yield {said: bar(number, 2, f"Face {number + 1} of 2 …")}
                find = find_voice(photo, face)
                done = speak_whole(page.studio, asked, find)
                voices.append(dataclasses.replace(done.voice))
                done.speech.save(f"{folder}/{number}.wav")
                yield {players[number]: f"{folder}/{number}.wav"}
            alike = voices[0].similarity(voices[1])
            yield {said: note(f"The two voices are {alike:.2f} alike (cosine; 1 is the same voice).")}

    listen(go.click, work, (*first, other.photo, other.face, *form.wishes), players, said, line=SPEAKING)
