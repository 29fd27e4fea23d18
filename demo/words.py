"""What visitors are told when something cannot be done."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from savedmodels import Face2VoiceError, InputError

log = logging.getLogger(__name__)

_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:]+[/\\])+")
_HINTS = (
    ("no face found", "No face found: try a photo where the face is larger and looks at the camera."),
    ("no such file", "The file is no longer here: choose it again."),
    ("no speech was heard", "No speech was heard: give a clip of one person talking, a few seconds long."),
)


def in_words(error: Exception) -> str:
    """An error as a sentence for visitors, without paths of this machine.

    Args:
        error: what was raised. Anything but a `Face2VoiceError` is a mistake of ours: it goes to the log.
    """
    if not isinstance(error, Face2VoiceError):
        log.error("a request failed", exc_info=error)
        return "Something went wrong on our side. Please try again; if it stays, tell whoever runs this page."
    message = " ".join(str(error).split())
    for start, hint in _HINTS:
        if start in message.lower():
            return hint
    message = _FOLDERS.sub("", message)
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "!", "?")) else ".")


@contextlib.contextmanager
def calling(path: Path, name: str) -> Iterator[None]:
    """Has errors about a file call it what the visitor knows it as."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from error
