"""What the models know, what is asked of visitors, and how programs use the server."""

import re

import gradio as gr

from ..parts import Page

CONSENT = """
### Before you use it

- Use photos and voices of people **who agreed**, or your own. Do not pass the speech off as a real person's.
- The voice is a guess from what a face shows: sex and age, and what usually goes with them. It says nothing about
  who somebody is, how they really sound, or what they are like. Do not decide anything about anybody by it.
- Every sound, portrait and voice file made here carries **"AI-generated"** in its metadata. Leave it there, and
  say so when you share it.
- Photos, clips and results stay on this server for at most an hour, and only you see them. Nothing is sent elsewhere.
"""

PROGRAMS = """
### For programs

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
wav, report = client.predict(handle_file("photo.jpg"), "Good morning.", seed=3, api_name="/speak")
wav, report = client.predict(handle_file("clip.wav"), "Good morning.", api_name="/clone")
portrait = client.predict(handle_file("clip.wav"), api_name="/speech2face")
```

In the manner of OpenAI's speech endpoint; `voice` is a name from the map, or the id of a file sent beforehand:

```sh
curl http://127.0.0.1:7860/v1/audio/speech -H 'Content-Type: application/json' -o hello.wav \\
     -d '{"input": "Good morning.", "voice": "NAME", "response_format": "wav", "speed": 1.0}'
curl http://127.0.0.1:7860/v1/audio/voices -F file=@photo.jpg     # or a clip, or a saved voice; gives an id
```
"""

_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")


def build(page: Page) -> None:
    """Consent first, then the cards."""
    gr.Markdown(CONSENT, elem_id="about-consent")
    gr.Markdown(PROGRAMS.replace("NAME", str(page.studio.voice_space().names[0])))
    folder = page.studio.folder()
    gr.Markdown(f"### Model cards\n\nOf the bundle **{page.studio.bundles[0]}**:", elem_id="about-cards")
    cards = sorted(folder.glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    for path in cards:
        lines = _LINK.sub(r"\1", path.read_text(encoding="utf-8")).strip().splitlines()
        with gr.Accordion(lines[0].lstrip("# "), open=False):
            gr.Markdown("\n".join(lines[1:]))
    if not cards:
        gr.Markdown("It has none.")
