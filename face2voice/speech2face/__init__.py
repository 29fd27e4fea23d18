"""The reverse direction: a voice to a face that suits it."""

from .pipeline import Portrait, Speech2Face

__all__ = ["Portrait", "Speech2Face"]
