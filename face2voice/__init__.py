"""Speak any sentence in a voice that suits a face."""

from .pipeline import Face2Voice, Speech
from .voice import Voice

__all__ = ["Face2Voice", "Speech", "Voice"]
