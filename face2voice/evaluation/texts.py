"""What is said to measure by: for evaluation alone, never to be trained on."""

import functools
from pathlib import Path

_HERE = Path(__file__).parent

PORTRAIT_SENTENCE = "The old clock on the wall was ten minutes slow again."
"""What every portrait says once."""


@functools.cache
def harvard_sentences() -> tuple[str, ...]:
    """Forty Harvard sentences (IEEE, 1969), lists 1 to 4."""
    return _lines("harvard.txt")


@functools.cache
def varied_sentences() -> tuple[str, ...]:
    """Two hundred sentences of 5 to 120 characters, written for this: questions, names, numbers,
    dates, abbreviations, lists, quotes; every run of ten has all lengths."""
    return _lines("varied.txt")


@functools.cache
def long_text() -> str:
    """A story of some 3,000 characters, in paragraphs."""
    return (_HERE / "long.txt").read_text(encoding="utf-8").strip()


def _lines(name: str) -> tuple[str, ...]:
    return tuple((_HERE / name).read_text(encoding="utf-8").splitlines())
