"""Text as people type it -> the symbol ids of a checkpoint, in pieces that can be spoken."""

from .clean import clean_characters, normalise
from .frontend import TextFrontEnd
from .g2p import G2PDims, LettersToPhones, default_g2p
from .lexicon import Lexicon, load_lexicon
from .phonemes import pronounce, to_phones
from .split import Pause, Piece, split
from .symbols import CHARACTERS, PHONES, Spelling, SymbolTable

__all__ = [
    "CHARACTERS",
    "G2PDims",
    "LettersToPhones",
    "Lexicon",
    "PHONES",
    "Pause",
    "Piece",
    "Spelling",
    "SymbolTable",
    "TextFrontEnd",
    "clean_characters",
    "default_g2p",
    "load_lexicon",
    "normalise",
    "pronounce",
    "split",
    "to_phones",
]
