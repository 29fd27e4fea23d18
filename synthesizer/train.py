"""Training a Tacotron: examples into batches, and the loss of a batch."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .audio import MAX_LEVEL
from .model import PAD_ID, Tacotron


@dataclasses.dataclass(frozen=True)
class Example:
    """One utterance to learn from.

    Attributes:
        symbols: ids, ending in the end symbol.
        mel: (80, frames) in [-4, 4], any float dtype.
        voice: (256,) unit length.
    """

    symbols: Sequence[int]
    mel: np.ndarray
    voice: np.ndarray


class TacotronTask:
    """The published loss (mean squared and absolute error of the decoder's mel, squared error of
    the post-net's, cross entropy of the stop output) plus guided attention (Tachibana et al.,
    2018, section 4.1), which finds the alignment in hundreds of steps rather than thousands.

    Args:
        schedule: (progress, r) pairs: from this share of the training on, r frames a step.
            A large r learns the alignment sooner, a small one speaks more exactly.
        own_frames: chance that a step is told the network's own frame in place of the true one. Told
            true frames alone, it speaks by itself far worse than the loss suggests. All its own
            frames come from one pass beforehand (Duckworth et al., 2019, Parallel Scheduled Sampling).
    """

    def __init__(
        self,
        module: Tacotron,
        examples: Sequence[Example],
        batch_size: int = 32,
        schedule: Sequence[tuple[float, int]] = ((0.0, 5),),
        guide_width: float = 0.25,
        own_frames: float = 0.0,
    ):
        self.module = module
        self.examples = examples
        self.batch_size = batch_size
        self.schedule = schedule
        self.guide_width = guide_width
        self.own_frames = own_frames

    def batches(self, epoch: int, seed: int) -> Iterator[list[Example]]:
        """One pass in an order that depends on seed and epoch alone; a batch holds similar lengths."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.examples))
        groups = []
        for start in range(0, len(order), 32 * self.batch_size):
            chunk = sorted(order[start : start + 32 * self.batch_size], key=lambda i: self.examples[i].mel.shape[1])
            groups += [chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)]
        for i in rng.permutation(len(groups)):
            yield [self.examples[j] for j in groups[i]]

    def loss(self, batch: list[Example], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its parts; `progress` is the share of the training that is done, 0 to 1."""
        r = [r for start, r in self.schedule if progress >= start][-1]
        if r != self.module.dims.r:
            self.module.dims = dataclasses.replace(self.module.dims, r=r)
        device = self.module.post_proj.weight.device
        symbols, mel, voices, lengths = (x.to(device) for x in collate(batch, r))
        told = mel
        if self.own_frames:
            with torch.no_grad():
                own, _, _ = self.module.decode(symbols, mel, voices)
            told = torch.where(torch.rand(mel.shape[0], 1, mel.shape[2], device=device) < self.own_frames, own, mel)
        out = self.module(symbols, told, voices, lengths)
        frames = (torch.arange(mel.shape[2], device=device) < lengths[:, None]).float()
        weight = frames[:, None] / (frames.sum() * mel.shape[1])
        decoder = ((out.mel - mel).square() + (out.mel - mel).abs()).mul(weight).sum()
        post = (out.post_mel - mel).square().mul(weight).sum()
        stop = _stop_loss(out.stop, lengths, r)
        guide = self._guide(out.alignments, symbols, lengths, r)
        parts = {"mel": decoder, "post": post, "stop": stop, "guide": guide}
        return decoder + post + stop + 2.0 * guide, {k: v.detach() for k, v in parts.items()}

    def _guide(self, alignments: Tensor, symbols: Tensor, lengths: Tensor, r: int) -> Tensor:
        """Mean attention weight away from the diagonal."""
        steps = (lengths / r).ceil()[:, None, None]
        texts = (symbols != PAD_ID).sum(dim=1)[:, None, None]
        step = torch.arange(alignments.shape[1], device=steps.device)[None, :, None]
        place = torch.arange(alignments.shape[2], device=steps.device)[None, None, :]
        away = 1 - torch.exp(-((step / steps - place / texts) ** 2) / (2 * self.guide_width**2))
        return (alignments * away * (step < steps)).sum() / steps.sum()


def collate(batch: Sequence[Example], r: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Symbols (B, T), mel (B, 80, frames) padded with silence to a multiple of r, voices (B, 256), lengths (B,)."""
    symbols = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.symbols) for e in batch], batch_first=True)
    lengths = torch.tensor([e.mel.shape[1] for e in batch])
    # one step of silence behind every item gives the stop output something to fire on
    frames = (int(lengths.max()) // r + 1) * r
    mel = torch.full((len(batch), batch[0].mel.shape[0], frames), -MAX_LEVEL)
    for i, example in enumerate(batch):
        mel[i, :, : lengths[i]] = torch.from_numpy(np.asarray(example.mel, np.float32))
    lengths = (lengths // r + 1) * r
    return symbols, mel, torch.from_numpy(np.stack([e.voice for e in batch])).float(), lengths


def _stop_loss(stop: Tensor, lengths: Tensor, r: int) -> Tensor:
    """Cross entropy over each item's steps; its last step counts as much as five others."""
    probabilities = stop[:, ::r]
    steps = (lengths // r)[:, None]
    step = torch.arange(probabilities.shape[1], device=stop.device)
    target = (step >= steps - 1).float()
    weight = (step < steps).float() * (1 + 4 * target)
    return F.binary_cross_entropy(probabilities, target, weight, reduction="sum") / weight.sum()
