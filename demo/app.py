"""The page."""

import os
from pathlib import Path

import gradio as gr

from face2voice.limits import AT_ONCE, FILES_KEPT, SWEPT_EVERY, WAITING

from . import api
from .parts import Page
from .studio import Studio
from .tabs import about, clone, explore, lessons, portraits, speak

TITLE = "Face2Voice"
_HEAD = f"""
<header class="f2v-head">
  <h1>{TITLE}</h1>
  <p>Give a photo of a face, write a sentence, and hear it in a voice that suits the face.</p>
</header>
"""


def build(studio: Studio, uploads: Path, files_kept: float = FILES_KEPT, swept_every: float = SWEPT_EVERY) -> gr.Blocks:
    """All tabs and endpoints.

    Args:
        uploads: folder that gradio puts files in; its environment variable is set to it.
        files_kept: seconds until a file is removed from it.
        swept_every: seconds between two looks for such files.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # gradio knows no other way to be told
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(swept_every, files_kept)) as blocks:
        page = Page(studio, gr.State([], time_to_live=files_kept), gr.State(None, time_to_live=files_kept), uploads)
        gr.HTML(_HEAD)
        with gr.Tabs():
            for title, tab in (
                ("Speak", speak),
                ("Clone", clone),
                ("Speech to face", portraits),
                ("Explore", explore),
                ("Fine-tune", lessons),
                ("About", about),
            ):
                with gr.Tab(title, id=title):
                    tab.build(page)
        api.build(page)
    return blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
