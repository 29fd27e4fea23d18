"""How long a visitor waits."""

import time
from pathlib import Path

from .examples import PARAGRAPH, PORTRAIT
from .speak import Wishes, speak
from .studio import Studio


def first_sound_seconds(
    bundle: str | Path = "default", device: str = "auto", photo: Path = PORTRAIT, text: str = PARAGRAPH
) -> float:
    """Seconds from Speak to the first sentence of a paragraph, on a server that is warm, face included."""
    studio = Studio(bundle, device)
    studio.tts().warm_up()
    list(speak(studio, Wishes("Warm."), lambda tts: tts.voice_from_face(photo)))
    started = time.perf_counter()
    for progress in speak(studio, Wishes(text), lambda tts: tts.voice_from_face(photo)):
        if progress.pieces:
            return time.perf_counter() - started
    raise AssertionError("a text has at least one piece")
