"""A map of voices: to listen, to keep, to mix."""

import html
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import numpy as np

from face2voice import Voice
from face2voice.limits import FILES_KEPT
from face2voice.voicespace import VoiceSpace
from savedmodels import InputError

from ..form import kept_with, speech_form
from ..parts import SPEAKING, Page, Updates, bar, listen, note, small_player
from ..speak import FindVoice, Wishes, load_voice, number, speak_whole

SAMPLE = "Hello, this is how I sound."
_WIDTH, _HEIGHT, _MARGIN = 640, 380, 28  # of the map, in its own units


def build(page: Page) -> None:
    """The map, a form to hear a voice with, and what can be done with voices."""
    gr.Markdown(
        "Every dot is a voice; near means alike. Press one, or move to it with Tab and press Enter, "
        "to choose and hear it. Your own voices appear as they are made."
    )
    space = page.studio.voice_space()
    chart = gr.HTML(draw_map(space, [], names(space, [])[0]), js_on_load=_MAP_JS, elem_id="explore-map")
    sample = small_player("How it sounds", "explore-sample", autoplay=True)
    voice = gr.Dropdown(names(space, []), value=names(space, [])[0], label="Voice", elem_id="explore-voice")
    picked = gr.State(names(space, [])[0], time_to_live=FILES_KEPT)  # the browser may tell of it late
    said = gr.HTML(elem_id="explore-note")

    def find_voice(kept: list[Voice], name: object) -> FindVoice:
        chosen = find(space, kept, name)
        return lambda _: chosen

    speech_form(page, "explore", find_voice, (page.voices, voice), is_new=False)

    with gr.Accordion("Keep and mix voices", open=False, elem_id="explore-keep"):
        with gr.Row():
            save = gr.DownloadButton(
                "Save the chosen voice (.npz)", size="md", interactive=False, elem_id="explore-save"
            )
            load = gr.UploadButton("Load a voice (.npz)", file_types=[".npz"], size="md", elem_id="explore-load")
        several = gr.Dropdown(
            names(space, []),
            value=[],
            multiselect=True,
            max_choices=5,
            label="Voices to mix",
            elem_id="explore-several",
        )
        share = gr.Slider(0, 100, 50, step=5, label="Share of the first, %", elem_id="explore-share")
        with gr.Row():
            average = gr.Button("Average", elem_id="explore-average")
            mix = gr.Button("Mix by share", elem_id="explore-mix")

    def choose(kept: list[Voice], name: object) -> Iterator[Updates]:
        chosen, choices = find(space, kept, name), names(space, kept)
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = Path(folder, "voice.npz")
            chosen.save(path)
            yield {
                chart: draw_map(space, kept, name),
                voice: gr.Dropdown(choices, value=name),
                picked: name,
                several: gr.Dropdown(choices),
                save: gr.DownloadButton(value=str(path), interactive=True),
            }

    def on_press(kept: list[Voice], event: gr.EventData) -> Iterator[Updates]:
        yield from choose(kept, getattr(event, "voice", None))

    def hear(kept: list[Voice], event: gr.EventData) -> Iterator[Updates]:
        one = find(space, kept, getattr(event, "voice", None))
        yield {said: bar(-1, 1, f"{one.source} …")}
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = f"{folder}/sample.wav"
            speak_whole(page.studio, Wishes(SAMPLE), lambda _: one).speech.save(path)
            yield {said: note(f"You hear {one.source}."), sample: path}

    def on_new(kept: list[Voice], name: object) -> Updates:
        # made in another tab; the chosen voice stays, so only what it is chosen from is renewed
        choices = gr.Dropdown(names(space, kept))
        return {chart: draw_map(space, kept, name), voice: choices, several: choices}

    def with_new(kept: list[Voice], made: Voice) -> Iterator[Updates]:
        kept = kept_with(kept, made)
        for updates in choose(kept, names(space, kept)[0]):
            yield {page.voices: kept, said: note(f"Made: {made.source}. It is chosen now."), **updates}

    def on_load(kept: list[Voice], given: object) -> Iterator[Updates]:
        loaded = load_voice(page.upload(given, "voice file"))
        yield from with_new(kept, Voice(loaded.embedding, loaded.source[:60] or "loaded voice"))

    def mixing(weights: Callable) -> Callable[..., Iterator[Updates]]:
        def work(kept: list[Voice], chosen: object, share: object) -> Iterator[Updates]:
            if not isinstance(chosen, list) or len(chosen) < 2:
                raise InputError("choose two or more voices to mix")
            voices = [find(space, kept, name) for name in chosen]
            mixed = Voice.mix(voices, weights(len(voices), share))
            yield from with_new(kept, Voice(mixed.embedding, " + ".join(chosen)[:80]))

        return work

    def by_share(count: int, share: object) -> list[float]:
        first = number(share, 0, 100, "the share")
        return [first, *[(100 - first) / (count - 1)] * (count - 1)]

    outputs = (chart, voice, several, save, picked)
    listen(page.voices.change, on_new, [page.voices, picked], (chart, voice, several), said)
    listen(chart.click, on_press, [page.voices], outputs, said)
    listen(chart.click, hear, [page.voices], [sample], said, line=SPEAKING, only_last=True)
    listen(voice.input, choose, [page.voices, voice], outputs, said)
    listen(load.upload, on_load, [page.voices, load], (page.voices, *outputs), said)
    listen(average.click, mixing(lambda *_: None), [page.voices, several, share], (page.voices, *outputs), said)
    listen(mix.click, mixing(by_share), [page.voices, several, share], (page.voices, *outputs), said)


def names(space: VoiceSpace, kept: list[Voice]) -> list[str]:
    """What voices are called in lists, the visitor's own first, the latest on top."""
    own = [f"Yours {place}: {voice.source}"[:90] for place, voice in enumerate(kept, start=1)]
    return own[::-1] + [str(name) for name in space.names]


def find(space: VoiceSpace, kept: list[Voice], name: object) -> Voice:
    """A voice by its name in the lists; InputError if there is none."""
    known = dict(zip(names(space, kept), [*kept[::-1], *space.embeddings], strict=True))
    if not isinstance(name, str) or name not in known:
        raise InputError("there is no such voice: choose one from the list")
    return known[name] if isinstance(known[name], Voice) else Voice(known[name], name)


def plane(space: VoiceSpace, kept: list[Voice]) -> np.ndarray:
    """Where voices lie on the map: (known + kept, 2) in 0 to 1, by the known voices' principal components."""
    centre = space.embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(space.embeddings - centre, full_matrices=False)
    points = np.array([*space.embeddings, *(voice.embedding for voice in kept)]) - centre
    places = points @ axes[:2].T
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-9)


def draw_map(space: VoiceSpace, kept: list[Voice], chosen: str | None = None) -> str:
    """The map as SVG: each voice can be pressed or reached with Tab, shapes tell sexes apart."""
    titles = [
        f"{name}: {'woman' if sex == 'f' else 'man'}, {age:.0f} years, {f0:.0f} Hz"
        for name, sex, age, f0 in zip(space.names, space.sexes, space.ages, space.f0, strict=True)
    ]
    own = names(space, kept)[: len(kept)][::-1]
    kinds = [*("woman" if sex == "f" else "man" for sex in space.sexes), *["yours"] * len(kept)]
    marks = []
    places = plane(space, kept)
    for (x, y), kind, name, title in zip(places, kinds, [*map(str, space.names), *own], [*titles, *own], strict=True):
        x, y = _MARGIN + x * (_WIDTH - 2 * _MARGIN), _MARGIN + (1 - y) * (_HEIGHT - 2 * _MARGIN)
        shape = {
            "woman": f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7"/>',
            "man": f'<rect x="{x - 6.5:.0f}" y="{y - 6.5:.0f}" width="13" height="13" rx="2"/>',
            "yours": f'<path d="M{x:.0f} {y - 11:.0f} l9.5 17 h-19 z"/>',
        }[kind]
        pressed = str(name == chosen).lower()
        marks.append(
            f'<g class="f2v-dot {kind}" role="button" tabindex="0" aria-pressed="{pressed}" '
            f'aria-label="{html.escape(title)}" data-voice="{html.escape(name)}"><title>{html.escape(title)}</title>'
            f'<circle class="f2v-reach" cx="{x:.0f}" cy="{y:.0f}" r="16"/>{shape}</g>'
        )
    legend = (
        '<p class="f2v-legend"><span class="woman">● woman</span><span class="man">■ man</span>'
        '<span class="yours">▲ yours</span></p>'
    )
    return (
        f'<svg class="f2v-map" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="Map of voices">'
        f"{''.join(marks)}</svg>{legend}"
    )


_MAP_JS = """
const choose = event => {
    const dot = event.target.closest('[data-voice]');
    if (dot) trigger('click', {voice: dot.dataset.voice});
};
element.addEventListener('click', choose);
element.addEventListener('keydown', event => {
    if (event.key === 'Enter' || event.key === ' ') { choose(event); event.preventDefault(); }
});
"""
