"""Speak any sentence in a voice that suits a face."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline import Face2Voice, Speech
    from .voice import Voice

__all__ = ["Face2Voice", "Speech", "Voice"]

_HOMES = {"Face2Voice": "pipeline", "Speech": "pipeline", "Voice": "voice"}


def __getattr__(name: str) -> object:
    """Imports what is asked for only then: ``face2voice --help`` and all commands pass through here."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
