"""Cuts normalised text into pieces that are spoken one at a time."""

import re
from dataclasses import dataclass
from typing import Literal

#: Characters of a piece. Attention fails on very short input, and loses its place in very long.
MIN_CHARACTERS = 25
MAX_CHARACTERS = 120

Pause = Literal["none", "clause", "sentence", "paragraph"]

_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')])\s+")
# Where a sentence that is too long is cut, the most natural places first.
_CUTS = (
    re.compile(r"(?<=[;:])\s+"),
    re.compile(r"(?<=[,)])\s+|\s+(?=\()"),
    re.compile(r"\s+(?=(?:and|or|but|so|because|which|that|when|while|if|although|who|where)\b)"),
    re.compile(r"\s+"),
)


@dataclass(frozen=True)
class Piece:
    """A part of a text.

    Attributes:
        text: normalised, with its closing punctuation; 1 to `MAX_CHARACTERS` characters.
        pause: what ends with it, and so how long a silence follows. "none": it was cut in a phrase.
    """

    text: str
    pause: Pause


def split(text: str) -> list[Piece]:
    """Pieces of `text`, in order, of 25 to 120 characters.

    A piece is shorter only if its paragraph is, or beside a word of more than about 50 letters.
    Pieces joined by spaces are the text again, but for whitespace, within words of more than 120
    letters, and where there is no letter at all.

    Args:
        text: as `normalise` gives it: single spaces, a newline between paragraphs.
    """
    pieces = []
    for paragraph in text.split("\n"):
        texts: list[str] = []
        for sentence in _SENTENCE_ENDS.split(paragraph.strip()):
            for part in _shorten(sentence, _CUTS):
                texts[-1:] = _with_neighbour(texts[-1], part) if texts else [part]
        texts = [text for text in texts if any(c.isalpha() for c in text)]
        pieces += [Piece(text, _pause_after(text)) for text in texts[:-1]]
        pieces += [Piece(text, "paragraph") for text in texts[-1:]]
    return pieces


def _pause_after(text: str) -> Pause:
    closing = text.rstrip("\"')")[-1:]
    if closing and closing in ".!?":
        return "sentence"
    return "clause" if text[-1] in ",;:)" else "none"


def _shorten(text: str, cuts: tuple[re.Pattern[str], ...]) -> list[str]:
    """`text` cut at the places of the first of `cuts`, and what is still too long at those of the next."""
    if len(text) <= MAX_CHARACTERS:
        return [text]
    if not cuts:
        return _chop(text)
    return _pack([short for part in cuts[0].split(text) for short in _shorten(part, cuts[1:])])


def _chop(word: str) -> list[str]:
    """A giant word in equal parts, so that none is a mere remainder."""
    count = -(-len(word) // MAX_CHARACTERS)
    edges = [len(word) * i // count for i in range(count + 1)]
    return [word[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def _pack(parts: list[str]) -> list[str]:
    """Neighbours joined into pieces of about equal length, as few as may be."""
    packed: list[str] = []
    remaining = sum(len(part) + 1 for part in parts)
    target = 0.0
    for part in parts:
        joined = f"{packed[-1]} {part}" if packed else ""
        # Joined as long as that comes nearer to the length that all the rest could have alike.
        if packed and len(joined) <= MAX_CHARACTERS and len(packed[-1]) + len(joined) <= 2 * target:
            packed[-1] = joined
            continue
        remaining -= len(packed[-1]) + 1 if packed else 0
        target = remaining / -(-remaining // (MAX_CHARACTERS + 1))
        packed.append(part)
    return packed


def _with_neighbour(before: str, part: str) -> list[str]:
    """Two neighbours as they are, or, if one is too short to be spoken alone, shared out anew."""
    if min(len(before), len(part)) >= MIN_CHARACTERS:
        return [before, part]
    joined = f"{before} {part}"
    for level in range(len(_CUTS)):
        shared = _shorten(joined, _CUTS[level:])
        if min(map(len, shared)) >= MIN_CHARACTERS:
            break
    return shared
