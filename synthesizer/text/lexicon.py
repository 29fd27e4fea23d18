"""Pronunciations of English words: the CMU Pronouncing Dictionary, with stress.

The data beside this module are the dictionary's first pronunciations (licence in
data/LICENSE.cmudict); `make_lexicon` makes them.
"""

import lzma
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data" / "cmudict.txt.xz"

Phones = tuple[str, ...]

#: How the letters are called.
LETTER_NAMES: dict[str, Phones] = {
    entry[0]: tuple(entry.split()[1:])
    for entry in (
        "a EY1, b B IY1, c S IY1, d D IY1, e IY1, f EH1 F, g JH IY1, h EY1 CH, i AY1, j JH EY1, k K EY1, l EH1 L, "
        "m EH1 M, n EH1 N, o OW1, p P IY1, q K Y UW1, r AA1 R, s EH1 S, t T IY1, u Y UW1, v V IY1, "
        "w D AH1 B AH0 L Y UW0, x EH1 K S, y W AY1, z Z IY1"
    ).split(", ")
}
# Where CMUdict's first pronunciation is the rarer reading of a common word, or the one that
# single words are read out with but sentences are not.
_PREFERRED = {
    "an": "AH0 N",
    "bow": "B OW1",
    "close": "K L OW1 Z",
    "dr": "D AA1 K T ER0",
    "lead": "L IY1 D",
    "live": "L IH1 V",
    "miz": "M IH1 Z",
    "moped": "M OW1 P EH0 D",
    "read": "R IY1 D",
    "separate": "S EH1 P ER0 AH0 T",
    "sow": "S OW1",
    "st": "S EY1 N T",
    "subject": "S AH1 B JH EH0 K T",
    "tear": "T IH1 R",
    "use": "Y UW1 Z",
    "wind": "W IH1 N D",
    "wound": "W UW1 N D",
    "your": "Y AO1 R",
    "you're": "Y AO1 R",
}
_CLITICS = {
    "'d": ("D",),
    "'ll": ("AH0", "L"),
    "'m": ("M",),
    "'re": ("ER0",),
    "'ve": ("V",),
    "n't": ("AH0", "N", "T"),
}
_PREFIXES = {
    "un": ("AH0", "N"),
    "non": ("N", "AA1", "N"),
    "re": ("R", "IY0"),
    "mis": ("M", "IH0", "S"),
    "over": ("OW2", "V", "ER0"),
    "under": ("AH2", "N", "D", "ER0"),
    "super": ("S", "UW2", "P", "ER0"),
}
_SUFFIXES = {
    "ly": ("L", "IY0"),
    "ness": ("N", "AH0", "S"),
    "less": ("L", "AH0", "S"),
    "ful": ("F", "AH0", "L"),
    "ment": ("M", "AH0", "N", "T"),
}
_SIBILANTS = {"S", "Z", "SH", "ZH", "CH", "JH"}
_VOICELESS = {"P", "T", "K", "F", "TH", "S", "SH", "CH"}
# A shorter stem is more likely a coincidence ("re" + "ad") than a word of which this is a form.
_MIN_STEM = 4


class Lexicon(Mapping[str, Phones]):
    """Word (lower case, apostrophes as ') -> phones. As a mapping: the listed words, in file order."""

    def __init__(self, entries: dict[str, str]) -> None:
        self._entries = entries

    def __getitem__(self, word: str) -> Phones:
        return tuple(self._entries[word].split())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, word: object) -> bool:
        return word in self._entries

    def lookup(self, word: str) -> Phones | None:
        """Phones of `word` in any case, or None if neither it nor a word it is a form of is listed.

        Forms are possessives, plurals, contractions, past and -ing forms, hyphenated
        compounds, and a few regular prefixes and suffixes.
        """
        word = word.lower()
        if word in self._entries:
            return self[word]
        stripped = word.strip("'-")
        if stripped != word:
            return self.lookup(stripped) if stripped else None
        if "-" in word:
            parts = [LETTER_NAMES.get(part) or self.lookup(part) for part in word.split("-") if part]
            return sum(parts, ()) if all(parts) else None
        return self._inflected(word) or self._affixed(word)

    def _inflected(self, word: str) -> Phones | None:
        for clitic, phones in _CLITICS.items():
            if word.endswith(clitic) and (stem := self._first(word.removesuffix(clitic))):
                return stem + phones
        if word.endswith("'s") and (stem := self._first(word[:-2]) or self._affixed(word[:-2])):
            return stem + _sibilant_ending(stem)
        if word.endswith("s") and (stem := self._first(*_stems(word, "s"), *_stems(word, "es"))):
            return stem + _sibilant_ending(stem)
        if word.endswith("ed") and (stem := self._first(*_stems(word, "ed"))):
            return stem + _past_ending(stem)
        if word.endswith("ing") and (stem := self._first(*_stems(word, "ing"))):
            return stem + ("IH0", "NG")
        if word.endswith("in") and word + "g" in self:
            return self[word + "g"][:-1] + ("N",)
        return None

    def _affixed(self, word: str) -> Phones | None:
        for suffix, phones in _SUFFIXES.items():
            if word.endswith(suffix) and (stem := self._first(*_stems(word, suffix)[:1])):
                return stem + phones
        for prefix, phones in _PREFIXES.items():
            if word.startswith(prefix) and len(word) - len(prefix) >= _MIN_STEM:
                rest = word.removeprefix(prefix)
                if stem := self._first(rest) or self._inflected(rest):
                    return phones + stem
        return None

    def _first(self, *candidates: str) -> Phones | None:
        return next((self[c] for c in candidates if c in self), None)


def _stems(word: str, ending: str) -> list[str]:
    """Spellings that the stem of `word` may have: walk-ed, dat-ed (date), stop-p-ed, cri-ed (cry)."""
    stem = word.removesuffix(ending)
    if len(stem) < _MIN_STEM - 1:
        return []
    stems = [stem]
    if ending != "s":
        stems.append(stem + "e")
        if stem[-1] == stem[-2]:
            stems.append(stem[:-1])
        if stem[-1] == "i":
            stems.append(stem[:-1] + "y")
    return stems


def _sibilant_ending(stem: Phones) -> Phones:
    if stem[-1] in _SIBILANTS:
        return ("IH0", "Z")
    return ("S",) if stem[-1] in _VOICELESS else ("Z",)


def _past_ending(stem: Phones) -> Phones:
    if stem[-1] in {"T", "D"}:
        return ("IH0", "D")
    return ("T",) if stem[-1] in _VOICELESS else ("D",)


@cache
def load_lexicon() -> Lexicon:
    """The lexicon that ships with the package (126,000 words, about 0.2 s); read once per process."""
    lines = lzma.decompress(DATA.read_bytes()).decode().splitlines()
    return Lexicon(dict(line.split(" ", 1) for line in lines) | _PREFERRED)
