"""Training the network of `g2p` on the lexicon: words into batches, the loss of a batch, and how good it became."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .g2p import G2PDims, LettersToPhones
from .lexicon import Phones, load_lexicon

HELD_OUT = 20  # one word in so many
LONGEST = 24  # letters; longer entries are few and oddities


class G2PTask:
    """Letters to phones, by connectionist temporal classification (CTC).

    The default network was trained for 12 minutes on one core, at a learning rate of 4e-3.

    Args:
        lexicon: word -> phones; the one in this package if not given.

    Attributes:
        words: to train on.
        held_out: told from the former by their hash, so the same in every run.
    """

    def __init__(
        self, module: LettersToPhones, lexicon: Mapping[str, Phones] | None = None, batch_size: int = 256
    ) -> None:
        self.module = module
        self.lexicon = load_lexicon() if lexicon is None else lexicon
        self.batch_size = batch_size
        usable = [w for w, phones in self.lexicon.items() if _fits(w, phones, module.dims)]
        self.held_out = [w for w in usable if zlib.crc32(w.encode()) % HELD_OUT == 0]
        self.words = sorted(set(usable) - set(self.held_out))
        self._phone_ids = {phone: i + 1 for i, phone in enumerate(module.dims.phones)}

    def batches(self, epoch: int, seed: int) -> Iterator[list[str]]:
        """All words in an order that depends on seed and epoch alone; those of a batch are equally long."""
        order = np.random.default_rng((seed, epoch))
        shuffled = sorted(order.permutation(np.array(self.words)).tolist(), key=len)
        groups = []
        for _, same_length in groupby(shuffled, key=len):
            group = list(same_length)
            groups += [group[i : i + self.batch_size] for i in range(0, len(group), self.batch_size)]
        for i in order.permutation(len(groups)):
            yield groups[i]

    def loss(self, batch: list[str], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean CTC loss, in nats per phone, and the same to log."""
        device = self.module.embedding.weight.device
        logits = self.module(torch.tensor([self.module.letter_ids(word) for word in batch], device=device))
        targets = [[self._phone_ids[phone] for phone in self.lexicon[word]] for word in batch]
        loss = F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.tensor(sum(targets, []), device=device),
            torch.full((len(batch),), logits.shape[1]),
            torch.tensor([len(target) for target in targets]),
        )
        return loss, {"ctc": loss.detach()}


def _fits(word: str, phones: Sequence[str], dims: G2PDims) -> bool:
    # CTC needs a blank between equal neighbours.
    needed = len(phones) + sum(a == b for a, b in zip(phones, phones[1:], strict=False))
    return 2 <= len(word) <= LONGEST and set(word) <= set(dims.letters) and needed <= dims.slots * len(word)


@dataclass(frozen=True)
class Report:
    """Error rates over held-out words, 0 to 1 (phones: edits per true phone)."""

    words: int
    phone_error: float
    word_error: float
    phone_error_without_stress: float
    word_error_without_stress: float


def evaluate(model: LettersToPhones, words: Sequence[str], lexicon: Mapping[str, Phones]) -> Report:
    """Error rates of `model` on `words`; needs the package jiwer (extra "eval")."""
    guesses = [" ".join(model.pronounce(word)) for word in words]
    truths = [" ".join(lexicon[word]) for word in words]
    stressless = str.maketrans("", "", "012")
    return Report(
        len(words),
        *_error_rates(guesses, truths),
        *_error_rates([g.translate(stressless) for g in guesses], [t.translate(stressless) for t in truths]),
    )


def _error_rates(guesses: list[str], truths: list[str]) -> tuple[float, float]:
    import jiwer  # only who measures has it

    wrong = sum(guess != truth for guess, truth in zip(guesses, truths, strict=True))
    return jiwer.wer(truths, guesses), wrong / len(truths)
