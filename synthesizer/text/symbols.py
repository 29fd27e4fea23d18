"""Symbol tables: what a Tacotron's input ids stand for.

A table is plain data (a tuple of strings and the name of a spelling), so that it can travel in
a checkpoint's dimensions. Two are defined here: `CHARACTERS`, that of the published
checkpoints, and `PHONES`, that of our own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from string import ascii_lowercase, ascii_uppercase
from typing import Literal, get_args

Spelling = Literal["characters", "phones"]

PAD, EOS = "_", "~"
WORD_BOUNDARY = " "
PUNCTUATION = "!'\"(),-.:;?"
#: The marks that stand among phones.
HEARD = "!,.:;?"

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()

#: The 69 ARPAbet phones of CMUdict. Vowels carry their stress: 0 none, 1 primary, 2 secondary.
ARPABET: tuple[str, ...] = tuple(sorted(_CONSONANTS + [v + stress for v in _VOWELS for stress in "012"]))


@dataclass(frozen=True)
class SymbolTable:
    """The symbols of one checkpoint; a symbol's id is its place in the table.

    Attributes:
        symbols: unique, padding (id 0) and end of sequence (id 1) first.
        spelling: what text is turned into before it is looked up here.

    Raises:
        ValueError: symbols repeat, do not begin with padding and end, or the spelling is unknown.
    """

    symbols: tuple[str, ...]
    spelling: Spelling

    def __post_init__(self) -> None:
        if self.spelling not in get_args(Spelling):
            raise ValueError(f"spelling is {self.spelling!r}, not one of {', '.join(get_args(Spelling))}")
        if self.symbols[:2] != (PAD, EOS):
            raise ValueError(f"a symbol table begins with {PAD!r} and {EOS!r}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("a symbol stands twice in the table")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols) if symbol not in (PAD, EOS)}

    def encode(self, items: Iterable[str]) -> list[int]:
        """Ids of `items` (a string's characters, or phones), then that of the end.

        Characters that are not in the table are dropped, as the published checkpoints were
        trained. Phones come from our own lexicon, so one that is missing means a wrong table.

        Raises:
            ValueError: a phone that is not in the table.
        """
        ids = [(item, self._ids.get(item)) for item in items]
        if self.spelling == "phones":
            unknown = sorted({item for item, i in ids if i is None})
            if unknown:
                raise ValueError(f"not in the symbol table: {', '.join(map(repr, unknown))}")
        return [i for _, i in ids if i is not None] + [self.symbols.index(EOS)]


CHARACTERS = SymbolTable((PAD, EOS, *ascii_uppercase, *ascii_lowercase, *PUNCTUATION, WORD_BOUNDARY), "characters")
PHONES = SymbolTable((PAD, EOS, *ARPABET, WORD_BOUNDARY, *PUNCTUATION), "phones")
