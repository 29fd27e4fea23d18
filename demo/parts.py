"""What all tabs share: what they are built with, how they listen to events, and what they say."""

import dataclasses
import functools
import html
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gradio as gr

from face2voice.limits import AT_ONCE, UPLOAD_BYTES
from savedmodels import InputError

from .studio import Studio
from .words import in_words

Updates = dict[gr.blocks.Block, object]
FULL = "Too many people are here at this moment. Please try again in a minute."

# The lines that events wait in: none waits behind what takes far longer than itself.
SPEAKING = {"concurrency_id": "speaking", "concurrency_limit": AT_ONCE}
LEARNING = {"concurrency_id": "learning", "concurrency_limit": 1}
BRIEF = {"concurrency_limit": 4}


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """What every tab is built with.

    Attributes:
        voices: state of one visitor, the voices made or loaded so far: list of `Voice`.
        lesson: state of one visitor, the name of the bundle he made, or None.
        uploads: folder that files must lie in to count as uploaded.
    """

    studio: Studio
    voices: gr.State
    lesson: gr.State
    uploads: Path

    def upload(self, value: object, what: str) -> Path:
        """The uploaded file a component holds.

        Raises:
            InputError: nothing was uploaded, it is gone again, or it is too large.
        """
        value = value.model_dump() if hasattr(value, "model_dump") else value
        given = value.get("path") if isinstance(value, dict) else value
        if not isinstance(given, str) or not given:
            raise InputError(f"there is no {what} yet: choose or record one first")
        path = Path(given).resolve()
        if self.uploads.resolve() not in path.parents or not path.is_file():
            raise InputError(f"the {what} is no longer here: choose it again")
        if path.stat().st_size > UPLOAD_BYTES:
            raise InputError(f"the {what} has more than {UPLOAD_BYTES // 10**6} MB: give a smaller one")
        return path


def listen(
    trigger: Callable | Sequence[Callable],
    work: Callable[..., Updates | Iterator[Updates]],
    inputs: Sequence[gr.components.Component],
    outputs: Sequence[gr.blocks.Block],
    status: gr.HTML,
    line: dict[str, object] = BRIEF,
    on_error: Callable[[], Updates] = dict,
    only_last: bool = False,
) -> gr.events.Dependency:
    """Has `work` done when `trigger` happens; an error becomes a sentence in `status`.

    Args:
        work: gets the inputs as the browser sent them (gradio decodes no upload before our own checks),
            and returns or yields updates by component.
        line: in which it waits for its turn.
        on_error: more updates for when it fails.
        only_last: of what happens while it is at work, only the last is done afterwards.
    """

    @functools.wraps(work)
    def handler(*values):
        try:
            steps = work(*values)
            for updates in steps if inspect.isgenerator(steps) else (steps,):
                yield updates or {status: gr.skip()}
        except Exception as error:  # a stack trace is nothing to show visitors; in_words has it logged
            yield {status: problem(in_words(error)), **on_error()}

    register = functools.partial(gr.on, trigger) if isinstance(trigger, Sequence) else trigger
    event = register(
        handler,
        list(inputs),
        [*dict.fromkeys((*outputs, status))],
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last" if only_last else None,
        **line,
    )
    event.failure(  # the visitor cancelled it, or it never began: the line is full, or the server was away
        lambda cancelled: {status: note("Cancelled.") if cancelled else problem(FULL), **on_error()},
        [status],
        [*dict.fromkeys((*outputs, status))],
        js="() => window.face2voice.cancelled()",  # in place of the input; gradio calls that a failure, too
        preprocess=False,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return event


def problem(sentence: str) -> str:
    """HTML that says what to do, and is read out at once."""
    return f'<p class="f2v-problem" role="alert">{html.escape(sentence)}</p>'


def note(sentence: str) -> str:
    """HTML that says what has happened."""
    return f'<p class="f2v-note" role="status">{html.escape(sentence)}</p>'


def bar(done: float, total: float, sentence: str) -> str:
    """HTML of a progress bar; of unknown length while `done` is below 0."""
    value = f'value="{done:g}" max="{total:g}"' if done >= 0 else ""
    sentence = html.escape(sentence)
    return (
        f'<div class="f2v-progress" role="status"><progress {value} aria-label="{sentence}"></progress>{sentence}</div>'
    )


def small_player(label: str, elem_id: str, autoplay: bool = False) -> gr.Audio:
    return gr.Audio(
        label=label,
        autoplay=autoplay,
        interactive=False,
        buttons=[],
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
        elem_id=elem_id,
    )


def clip_input(elem_id: str) -> gr.Audio:
    """A place for a clip, recorded or uploaded; without gradio's button that would send it to another host."""
    return gr.Audio(label="Clip of one person talking", type="filepath", buttons=[], elem_id=elem_id)
