"""The form for speaking: a text, the one button, what is folded under More, and the result."""

import dataclasses
import functools
import html
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gradio as gr
import numpy as np

from face2voice import Face2Voice, Voice
from face2voice.limits import CANDIDATES, FILES_KEPT, TEXT_CHARACTERS, VOICES_KEPT
from face2voice.voicespace import MAX_SEMITONES, MAX_YEARS
from savedmodels import InputError

from .examples import SENTENCES
from .parts import SPEAKING, Page, Updates, bar, listen, note, small_player
from .pictures import figures
from .speak import MAX_SEED, FindVoice, Progress, Wishes, speak, speak_whole


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """A voice a visitor preferred to the one it was drawn from."""

    instead_of: Voice
    voice: Voice

    def in_place_of(self, voice: Voice) -> Voice:
        """The preferred voice, as long as photo or clip are still the same."""
        return self.voice if np.array_equal(self.instead_of.embedding, voice.embedding) else voice


@dataclasses.dataclass(frozen=True, eq=False)
class SpeechForm:
    """The components of one form for speaking that others read.

    Attributes:
        wishes: what `Wishes` takes, in its order.
    """

    text: gr.Textbox
    wishes: tuple[gr.components.Component, ...]


def speech_form(
    page: Page,
    name: str,
    find_voice: Callable[..., FindVoice],
    inputs: Sequence[gr.components.Component],
    is_new: bool = True,
) -> SpeechForm:
    """Text, the one button, what is folded under More, and the result.

    Args:
        name: starts the ids of the components.
        find_voice: gets the values of `inputs` and answers with what finds the voice.
        is_new: the voice is one that the map of voices does not have yet; others like it are offered.
    """
    text = gr.Textbox(
        label="Text",
        placeholder="What should be said?",
        lines=3,
        max_lines=8,
        max_length=TEXT_CHARACTERS,
        elem_id=f"{name}-text",
    )
    with gr.Row(elem_classes="f2v-chips"):
        for title, sentence in SENTENCES.items():
            gr.Button(title, size="sm").click(None, None, text, js=f"() => {sentence!r}", api_visibility="private")
        count = gr.HTML(_count(0), elem_id=f"{name}-count", elem_classes="f2v-count")
    text.change(None, text, count, js=_COUNT_JS, api_visibility="private")

    with gr.Row(elem_classes="f2v-go"):
        go = gr.Button("Speak", variant="primary", elem_id=f"{name}-go", scale=3)
        cancel = gr.Button("Cancel", visible=False, elem_id=f"{name}-cancel", elem_classes="f2v-cancel", scale=1)
    status = gr.HTML(elem_id=f"{name}-status")
    pieces = gr.File(file_count="multiple", visible="hidden", elem_id=f"{name}-pieces")
    chosen = gr.State(None, time_to_live=FILES_KEPT)

    with gr.Accordion("More", open=False, elem_id=f"{name}-more"):
        wishes = (text, *_sliders(page, name))

    with gr.Column(visible=False, elem_id=f"{name}-result", elem_classes="f2v-result") as result:
        player = small_player("Speech", f"{name}-speech")
        facts = gr.HTML(elem_id=f"{name}-facts")
        with gr.Row():
            wav = gr.DownloadButton("Save the sound (.wav)", elem_id=f"{name}-wav", size="md")
            voice_file = gr.DownloadButton("Save the voice (.npz)", elem_id=f"{name}-voice", size="md")
        drawn = gr.HTML(elem_id=f"{name}-figures")
        if is_new:
            _candidates(page, name, find_voice, inputs, wishes, chosen, status)

    def begin() -> Updates:
        return {go: gr.Button(interactive=False), cancel: gr.Button(visible=True), status: bar(-1, 1, "In line …")}

    def at_rest() -> Updates:
        return {go: gr.Button(interactive=True), cancel: gr.Button(visible=False)}

    def work(kept: list[Voice], preferred: Chosen | None, *values: object) -> Iterator[Updates]:
        given, asked = values[: len(inputs)], Wishes(*values[len(inputs) :])
        own = find_voice(*given)

        def find(tts: Face2Voice) -> Voice:
            return preferred.in_place_of(own(tts)) if preferred else own(tts)

        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            paths = []
            for progress in speak(page.studio, asked, find):
                if progress.pieces:
                    paths.append(f"{folder}/piece-{len(paths) + 1}.wav")
                    progress.pieces[-1].save(paths[-1])
                words = f"Sentence {min(len(paths) + 1, progress.total)} of {progress.total} …"
                yield {status: bar(len(paths), progress.total, words), pieces: list(paths)}
            spoken, sound, voice = progress.speech, Path(folder, "speech.wav"), Path(folder, "voice.npz")
            spoken.save(sound)
            progress.voice.save(voice)
            yield {
                **at_rest(),
                status: note("Done." + (" A part was cut off: another seed may help." if spoken.truncated else "")),
                result: gr.Column(visible=True),
                player: str(sound),
                wav: gr.DownloadButton(value=str(sound)),
                voice_file: gr.DownloadButton(value=str(voice)),
                facts: report(progress),
                drawn: figures(spoken),
                page.voices: kept_with(kept, progress.voice) if is_new else kept,
            }

    outputs = (go, cancel, pieces, result, player, wav, voice_file, facts, drawn, page.voices)
    triggers = [go.click, text.submit]
    gr.on(triggers, None, None, None, js="() => window.face2voice.begin()", api_visibility="private")
    begun = gr.on(
        triggers, begin, None, [go, cancel, status], queue=False, show_progress="hidden", api_visibility="private"
    )
    event = listen(
        begun.then, work, (page.voices, chosen, *inputs, *wishes), outputs, status, line=SPEAKING, on_error=at_rest
    )
    pieces.change(None, pieces, None, js="files => window.face2voice.play(files)", api_visibility="private")
    cancel.click(  # it is `listen` that says when this is done: what the server sent before may still come in
        lambda: {cancel: gr.Button(visible=False), status: bar(-1, 1, "Cancelling …")},
        None,
        [cancel, status],
        cancels=[event],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return SpeechForm(text, wishes)


def report(progress: Progress) -> str:
    """HTML with how long the speech is and how fast it was made."""
    speech = progress.speech
    stages = ", ".join(f"{stage} {seconds / speech.duration:.2f}" for stage, seconds in speech.seconds.items())
    said = " / ".join(speech.texts)
    return (
        f'<p class="f2v-note"><b>{speech.duration:.1f} s of speech</b>, real-time factor '
        f"<b>{progress.seconds / speech.duration:.2f}</b> ({stages}). Voice: {html.escape(progress.voice.source)}. "
        f"The file is marked as AI-generated.</p><details><summary>What was read</summary>{html.escape(said)}</details>"
    )


def kept_with(voices: list[Voice], *new: Voice) -> list[Voice]:
    """A visitor's voices with new ones, each once; the oldest of many are dropped."""
    kept = list(voices)
    for voice in new:
        kept = [old for old in kept if not np.array_equal(old.embedding, voice.embedding)] + [voice]
    return kept[-VOICES_KEPT:]


_COUNT_JS = f"t => `<span aria-live='polite'>${{(t || '').length}} of {TEXT_CHARACTERS}</span>`"


def _count(characters: int) -> str:
    return f"<span aria-live='polite'>{characters} of {TEXT_CHARACTERS}</span>"


def _sliders(page: Page, name: str) -> tuple[gr.components.Component, ...]:
    """Seed, speed, pause, pitch, age, bundle, device: what `Wishes` takes behind the text."""
    studio = page.studio
    with gr.Row():
        speed = gr.Slider(0.5, 2, 1, step=0.05, label="Speed", info="1 is as trained", elem_id=f"{name}-speed")
        pause = gr.Slider(0, 5, 1, step=0.1, label="Pauses", info="between sentences", elem_id=f"{name}-pause")
    with gr.Row():
        pitch = gr.Slider(
            -MAX_SEMITONES, MAX_SEMITONES, 0, step=0.5, label="Pitch", info="semitones", elem_id=f"{name}-pitch"
        )
        older = gr.Slider(
            -MAX_YEARS, MAX_YEARS, 0, step=1, label="Age", info="years older or younger", elem_id=f"{name}-age"
        )
    seed = gr.Number(
        0,
        label="Seed",
        info="the same seed gives the same sound",
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        elem_id=f"{name}-seed",
    )
    with gr.Row():
        bundle = gr.Dropdown(
            list(studio.bundles),
            value=studio.bundles[0],
            label="Bundle",
            info="of trained networks",
            elem_id=f"{name}-bundle",
        )
        device = gr.Dropdown(
            list(studio.devices),
            value=studio.device,
            label="Device",
            info="auto: the GPU if there is one",
            elem_id=f"{name}-device",
        )
    page.lesson.change(
        lambda made: gr.Dropdown(
            [*studio.bundles, made] if made else list(studio.bundles), value=made or studio.bundles[0]
        ),
        page.lesson,
        bundle,
        api_visibility="private",
    )
    return seed, speed, pause, pitch, older, bundle, device


def _candidates(
    page: Page,
    name: str,
    find_voice: Callable[..., FindVoice],
    inputs: Sequence[gr.components.Component],
    wishes: Sequence[gr.components.Component],
    chosen: gr.State,
    status: gr.HTML,
) -> None:
    """Other voices that would suit, side by side, each saying the first sentence, and the known voices nearest to
    the first of them; one can be taken."""
    offered = gr.State(None, time_to_live=FILES_KEPT)
    with gr.Accordion("Other voices that would suit", open=False, elem_id=f"{name}-candidates"):
        offer = gr.Button(f"Let {CANDIDATES} voices say the first sentence", elem_id=f"{name}-offer")
        said = gr.HTML(elem_id=f"{name}-offered")
        players, takes = [], []
        with gr.Row(elem_classes="f2v-side"):
            for number in range(1, CANDIDATES + 1):
                with gr.Column(min_width=240):
                    label = "Voice 1, the first choice" if number == 1 else f"Voice {number}"
                    players.append(small_player(label, f"{name}-candidate-{number}"))
                    takes.append(gr.Button(f"Take voice {number}", size="sm", interactive=False))
        known = gr.Radio([], label="Or take one of the nearest known voices", visible=False, elem_id=f"{name}-known")

    def work(*values: object) -> Iterator[Updates]:
        given, asked = values[: len(inputs)], Wishes(*values[len(inputs) :])
        own, space = find_voice(*given), page.studio.voice_space()
        tts = page.studio.tts(asked.bundle, asked.device)
        with page.studio.turn:
            first = tts.pieces(asked.text)[0].text
            voice = own(tts)
            voices = space.candidates(voice, CANDIDATES, asked.seed)
        asked = dataclasses.replace(asked, text=first)
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            for number, one in enumerate(voices):
                path = f"{folder}/voice-{number + 1}.wav"
                yield {said: bar(number, len(voices), f"Voice {number + 1} of {len(voices)} …")}
                speak_whole(page.studio, asked, lambda _, one=one: one).speech.save(path)
                yield {players[number]: path, takes[number]: gr.Button(interactive=True)}
            near = space.nearest(voice)
            choices = [(f"{one.source}, {cosine:.2f} alike", one.source) for one, cosine in near]
            named = {f"voice {number}": one for number, one in enumerate(voices, start=1)}
            yield {
                said: note("Take the one that fits; Speak then uses it."),
                known: gr.Radio(choices, value=None, visible=True),
                offered: (voice, named | {one.source: one for one, _ in near}),
            }

    def take(given: tuple[Voice, dict[str, Voice]] | None, called: object) -> Updates:
        if given is None:
            raise InputError("these voices are no longer here: have them speak again")
        if not isinstance(called, str) or called not in given[1]:
            raise InputError("there is no such voice: choose one of those offered")
        return {chosen: Chosen(given[0], given[1][called]), status: note(f"Speak now uses {called}.")}

    listen(offer.click, work, (*inputs, *wishes), (offered, known, *players, *takes), said, line=SPEAKING)
    listen(known.input, take, [offered, known], [chosen], status)
    for number, button in enumerate(takes, start=1):
        listen(button.click, functools.partial(take, called=f"voice {number}"), [offered], [chosen], status)
