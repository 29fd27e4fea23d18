"""Pronunciations of words that no lexicon lists, guessed from their letters by a small network."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_lowercase

import torch
from torch import Tensor, nn

import savedmodels
from savedmodels import read_checkpoint

from .symbols import ARPABET

BLANK = 0
_NETWORK = "LettersToPhones"
_DEFAULT = Path(savedmodels.__file__).parent / "default" / "g2p.safetensors"


@dataclass(frozen=True)
class G2PDims:
    """Dimensions of `LettersToPhones`.

    Attributes:
        letters: the input alphabet.
        phones: the output alphabet, without the blank.
        embedding: numbers a letter is embedded in.
        hidden: units of one direction of a recurrent layer.
        layers: recurrent layers.
        slots: phones or blanks that one letter gives; "x" needs 2, and 3 leave room between equal phones.
    """

    letters: str = ascii_lowercase
    phones: tuple[str, ...] = ARPABET
    embedding: int = 64
    hidden: int = 96
    layers: int = 2
    slots: int = 3


class LettersToPhones(nn.Module):
    """Bidirectional GRU over letters with a connectionist temporal classification (CTC) output."""

    def __init__(self, dims: G2PDims) -> None:
        super().__init__()
        self.dims = dims
        self.embedding = nn.Embedding(len(dims.letters), dims.embedding)
        self.gru = nn.GRU(dims.embedding, dims.hidden, dims.layers, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * dims.hidden, dims.slots * (1 + len(dims.phones)))

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "LettersToPhones":
        """The network a file holds, ready for use. Raises CheckpointError."""
        checkpoint = read_checkpoint(path)
        return checkpoint.build(cls, checkpoint.dims_as(G2PDims, _NETWORK))

    def forward(self, letters: Tensor) -> Tensor:
        """Letter ids (B, length), all words of one length -> logits (B, length * slots, 1 + phones)."""
        hidden, _ = self.gru(self.embedding(letters))
        return self.output(hidden).unflatten(-1, (self.dims.slots, -1)).flatten(1, 2)

    def letter_ids(self, word: str) -> list[int]:
        """Ids of the letters of `word` in any case; what is not in the alphabet is left out."""
        return [i for letter in word.lower() if (i := self.dims.letters.find(letter)) >= 0]

    def decode(self, logits: Tensor) -> tuple[str, ...]:
        """The likeliest phones of one word: logits (length * slots, 1 + phones) -> phones."""
        best = torch.unique_consecutive(logits.argmax(-1)).tolist()
        return tuple(self.dims.phones[i - 1] for i in best if i != BLANK)

    @torch.inference_mode()
    def pronounce(self, word: str) -> tuple[str, ...]:
        """Phones of `word`; none if it has no letter of the alphabet."""
        letters = self.letter_ids(word)
        if not letters:
            return ()
        device = self.embedding.weight.device
        return self.decode(self(torch.tensor([letters], device=device))[0])


@cache
def default_g2p() -> LettersToPhones:
    """The network of the default bundle, read once per process. Raises CheckpointError."""
    return LettersToPhones.from_checkpoint(_DEFAULT)
