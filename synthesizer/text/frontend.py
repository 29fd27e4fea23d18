"""The one entry to text for a caller that need not know how a checkpoint spells."""

import re
from collections.abc import Sequence

from .clean import clean_characters, normalise
from .g2p import LettersToPhones
from .phonemes import to_phones
from .split import Piece, split
from .symbols import ARPABET, HEARD, WORD_BOUNDARY, Spelling, SymbolTable

# The end of a paragraph without a mark, before quotes and brackets that close there.
_UNCLOSED = re.compile(rf"(?<![{HEARD}\"') ])([\"') ]*)$", re.MULTILINE)


class TextFrontEnd:
    """Turns text into pieces, and pieces into the symbol ids of one checkpoint.

    Args:
        spelling: from the checkpoint's dimensions.
        symbols: likewise.
        g2p: guesses words that the lexicon lacks, when the spelling is phones; without it they
            are spelled out.

    Raises:
        ValueError: the two do not make a symbol table, or a phone that a text may have is not in it.
    """

    def __init__(self, spelling: Spelling, symbols: Sequence[str], g2p: LettersToPhones | None = None) -> None:
        self.table = SymbolTable(tuple(symbols), spelling)
        self.g2p = g2p
        if spelling == "phones":
            self.table.encode([*ARPABET, *(g2p.dims.phones if g2p else ()), WORD_BOUNDARY, *HEARD])

    def pieces(self, text: str) -> list[Piece]:
        """`text` as a reader would say it, in pieces of 25 to 120 characters where it has as many.

        Raises:
            InputError: no text, too long, or nothing in it can be spoken.
        """
        spoken = normalise(text)
        if self.table.spelling == "phones":
            return split(_UNCLOSED.sub(r".\1", spoken))
        # Numbers and abbreviations are words by now, and read better than the published cleaner
        # would have them; it leaves the case and the alphabet that those checkpoints know.
        return [Piece(clean_characters(piece.text), piece.pause) for piece in split(spoken)]

    def encode(self, text: str) -> list[int]:
        """Symbol ids of a piece's text, the end included.

        Phones always end in a mark, as all sentences did that the network learned from: where
        there is none, a comma, or a full stop after one or two words.
        """
        if self.table.spelling == "characters":
            return self.table.encode(text)
        phones = to_phones(text, self.g2p)
        if not phones or phones[-1] not in HEARD:
            phones.append("," if phones.count(WORD_BOUNDARY) > 1 else ".")
        return self.table.encode(phones)
