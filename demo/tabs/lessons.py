"""Fine-tuning to one person, who agreed."""

import queue
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw

from face2voice.limits import LESSON_FILES, LESSON_STEPS
from savedmodels import InputError

from ..parts import LEARNING, Page, Updates, bar, listen, note
from ..pictures import ACCENT, figure
from ..speak import number

PHOTOS, CLIPS = (".jpg", ".jpeg", ".png", ".webp"), (".wav", ".flac", ".ogg", ".mp3")


def build(page: Page) -> None:
    """Photos and clips of one person, consent, a loss curve, and the new bundle under More."""
    gr.Markdown(
        "Teach the face encoder how one person sounds. The result is another bundle, which only you see: "
        "it is chosen under More in the other tabs, for as long as this page is open."
    )
    files = gr.File(
        label=f"Photos and clips of one person, up to {LESSON_FILES}",
        file_count="multiple",
        file_types=[*PHOTOS, *CLIPS],
        elem_id="lessons-files",
    )
    steps = gr.Slider(20, LESSON_STEPS, 100, step=20, label="Steps", elem_id="lessons-steps")
    consent = gr.Checkbox(False, label="The person shown and heard agreed to this", elem_id="lessons-consent")
    go = gr.Button("Fine-tune", variant="primary", elem_id="lessons-go")
    status = gr.HTML(elem_id="lessons-status")
    curve = gr.HTML(elem_id="lessons-curve")

    def work(given: object, wanted: object, agreed: object) -> Iterator[Updates]:
        if agreed is not True:
            raise InputError("tick that the person agreed: without consent there is no fine-tuning")
        count = int(number(wanted, 20, LESSON_STEPS, "steps"))
        sources = [page.upload(one, "file") for one in (given if isinstance(given, list) else [])]
        if not sources or len(sources) > LESSON_FILES:
            raise InputError(f"give 1 to {LESSON_FILES} photos and clips, of both at least one")
        yield {status: bar(0, count, "Looking at the photos and clips …")}
        losses: list[float] = []
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            sort_in(sources, Path(folder))
            out = Path(tempfile.mkdtemp(prefix="lesson-", dir=page.uploads))
            result = yield from _followed(Path(folder), out, count, losses)
        nearer = ""
        if result.before:
            before, after = result.before["cosine"], result.after["cosine"]
            nearer = f" On {result.held_out} it comes to {after:.2f} of the true voice, from {before:.2f} before."
        yield {
            status: note(f"Done: it is the bundle under More now. Go to Speak and try a photo of that person.{nearer}"),
            page.lesson: page.studio.adopt(out),
        }

    def _followed(pairs: Path, out: Path, count: int, losses: list[float]) -> Generator[Updates, None, Any]:
        """Runs the fine-tuning in a thread, so that each step can be shown while it goes on; returns its result."""
        events: queue.Queue = queue.Queue()

        def run() -> None:
            try:
                from face2voice.finetune import Plan, finetune_face_encoder  # heavy, and an extra of the package

                # without the studio's turn: it reads networks of its own, and others want to speak meanwhile
                start = page.studio.folder()
                plan = Plan(count, device=page.studio.device, work=pairs / "work")
                events.put(finetune_face_encoder(pairs, out, start, plan=plan, progress=lambda *at: events.put(at)))
            except Exception as error:  # raised again where the visitor can be told
                events.put(error)

        threading.Thread(target=run, daemon=True).start()
        while True:
            event = events.get()
            if isinstance(event, Exception):
                shutil.rmtree(out, ignore_errors=True)
                raise event
            if not isinstance(event, tuple):
                return event
            losses.append(event[1])
            words = f"Step {len(losses)} of {count}, loss {losses[-1]:.3f}"
            yield {status: bar(len(losses), count, words), curve: draw_curve(losses)}

    listen(go.click, work, [files, steps, consent], [curve, page.lesson], status, line=LEARNING)


def sort_in(files: list[Path], folder: Path) -> None:
    """Copies photos to `folder`/faces and clips to `folder`/speech; InputError unless there are both."""
    for name, endings in (("faces", PHOTOS), ("speech", CLIPS)):
        (folder / name).mkdir()
        chosen = [path for path in files if path.suffix.lower() in endings]
        if not chosen:
            raise InputError("give photos (.jpg, .png) and clips (.wav, .flac, .mp3), of both at least one")
        for place, path in enumerate(chosen):
            shutil.copyfile(path, folder / name / f"{place:02d}{path.suffix.lower()}")


def draw_curve(losses: list[float]) -> str:
    """Loss by step as HTML."""
    image = Image.new("RGBA", (1200, 240))
    low, high = min(losses), max(losses)
    x = np.linspace(4, 1196, max(2, len(losses)))
    y = 230 - 220 * (np.array(losses) - low) / max(high - low, 1e-9)
    if len(losses) > 1:
        ImageDraw.Draw(image).line(list(zip(x, y, strict=True)), fill=ACCENT, width=5, joint="curve")
    return figure(image, "Loss", f"from {losses[0]:.3f} to {losses[-1]:.3f} after {len(losses)} steps")
