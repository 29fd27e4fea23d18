"""Normalised text -> phones, word boundaries and punctuation."""

import re

from .g2p import LettersToPhones
from .lexicon import LETTER_NAMES, Phones, load_lexicon
from .symbols import WORD_BOUNDARY

_TOKEN = re.compile(r"[A-Za-z](?:[A-Za-z'-]*[A-Za-z'])?|[!,.:;?()]")
# Brackets are heard as a pause, quotation marks not at all.
_HEARD_AS = {"(": ",", ")": ","}
_VOWEL_LETTERS = frozenset("aeiouy")


def to_phones(text: str, g2p: LettersToPhones | None = None) -> list[str]:
    """What a reader of `text` utters: ARPAbet phones, " " between words, and ``! , . : ; ?``.

    Args:
        text: as `normalise` gives it.
        g2p: guesses the words that the lexicon lacks; without it they are spelled out.
    """
    tokens = _TOKEN.findall(text)
    items: list[str] = []
    for i, token in enumerate(tokens):
        if not token[0].isalpha():
            if items and items[-1] == ",":
                items.pop()  # a bracket's, before a mark that says more
            if items and items[-1].isalnum():
                items.append(_HEARD_AS.get(token, token))
            continue
        if items:
            items.append(WORD_BOUNDARY)
        before = tokens[i - 1] if i else "."
        after = tokens[i + 1] if i + 1 < len(tokens) else "."
        items += _in_context(token, before, after, g2p)
    return items


def _in_context(word: str, before: str, after: str, g2p: LettersToPhones | None) -> Phones:
    if word.lower() == "a" and _is_article(word, before, after):
        return ("AH0",)
    if word.lower() == "the" and after[0].isalpha():
        # Vowels are the phones with a stress digit.
        return ("DH", "IY0") if pronounce(after, g2p)[0][-1].isdigit() else ("DH", "AH0")
    return pronounce(word, g2p)


def _is_article(word: str, before: str, after: str) -> bool:
    """Whether "a" is a word: "A dog", but not "plan A" or "A B C"."""
    is_initial = len(after) == 1 and after.isupper()
    return word == "a" or (before in ".!?:" and after[0].isalpha() and not is_initial)


def pronounce(word: str, g2p: LettersToPhones | None = None) -> Phones:
    """Phones of one word, at least one: from the lexicon, else from its letters.

    A single letter, and a word that has no vowel letter, is spelled out.

    Args:
        word: letters, apostrophes and hyphens, with at least one letter.
        g2p: as for `to_phones`.
    """
    letters = [c for c in word.lower() if c in LETTER_NAMES]
    if len(letters) > 1:
        if listed := load_lexicon().lookup(word):
            return listed
        parts = [part for part in word.split("-") if any(c.isalpha() for c in part)]
        if len(parts) > 1:
            return sum((pronounce(part, g2p) for part in parts), ())
        if g2p and _VOWEL_LETTERS & set(letters) and (guessed := g2p.pronounce(word)):
            return guessed
    return sum((LETTER_NAMES[letter] for letter in letters), ())
