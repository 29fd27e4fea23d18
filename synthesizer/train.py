"""Training a Tacotron: examples into batches, and the loss of a batch."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from savedmodels import InputError

from .audio import MAX_LEVEL
from .model import PAD_ID, Tacotron

_MAX_SHOWN = 400  # frames
_ENVELOPE_BANDS = 8

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


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
        examples: read when needed, so they may lie on the disk.
        frames: of each example, to put those of similar length into a batch; looked up if not given.
        held_out: other examples, for the figures and the plots.
        schedule: (progress, r) pairs: from this share of the training on, r frames a step.
            A large r learns the alignment sooner, a small one speaks more exactly.
        own_frames: chance that a step is told the network's own frame in place of the true one. Told
            true frames alone, it speaks by itself far worse than the loss suggests.
        envelope: weight of the squared error of means over `_ENVELOPE_BANDS` bands, of which formants are made.
            Most of the error of single bands is noise and harmonics, which no text foretells.
    """

    def __init__(
        self,
        module: Tacotron,
        examples: Sequence[Example],
        batch_size: int = 32,
        schedule: Sequence[tuple[float, int]] = ((0.0, 5),),
        guide_width: float = 0.25,
        own_frames: float = 0.0,
        envelope: float = 0.0,
        frames: Sequence[int] | None = None,
        held_out: Sequence[Example] = (),
    ):
        if not len(examples):
            raise InputError("no utterances to learn from; give more data")
        self.module = module
        self.examples = examples
        self.frames = [e.mel.shape[1] for e in examples] if frames is None else frames
        self.held_out = held_out
        self.batch_size = batch_size
        self.schedule = schedule
        self.guide_width = guide_width
        self.own_frames = own_frames
        self.envelope = envelope

    def batches(self, epoch: int, seed: int) -> Iterator[list[int]]:
        """Indices of examples, each once, in an order that depends on seed and epoch alone; a batch
        holds similar lengths."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.examples))
        groups = []
        for start in range(0, len(order), 32 * self.batch_size):
            chunk = sorted(order[start : start + 32 * self.batch_size], key=lambda i: self.frames[i])
            groups += [chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)]
        for i in rng.permutation(len(groups)):
            yield groups[i]

    def collate(self, batch: Sequence[int]) -> Batch:
        return collate([self.examples[i] for i in batch])

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its parts; `progress` is the share of the training that is done, 0 to 1."""
        r = [r for start, r in self.schedule if progress >= start][-1]
        if r != self.module.dims.r:
            self.module.dims = dataclasses.replace(self.module.dims, r=r)
        return self._loss(batch, self.own_frames)

    def _loss(self, batch: Batch, own_frames: float) -> tuple[Tensor, dict[str, Tensor]]:
        r = self.module.dims.r
        symbols, mel, voices, lengths = batch
        mel, lengths = _whole_steps(mel, lengths, r)
        out = self.module(symbols, mel, voices, lengths, own_frames)
        frames = (torch.arange(mel.shape[2], device=mel.device) < lengths[:, None]).float()
        weight = frames[:, None] / (_mean_over_processes(frames.sum()) * mel.shape[1])
        off, post_off = out.mel - mel, out.post_mel - mel
        decoder = (off.square() + off.abs()).mul(weight).sum()
        post = post_off.square().mul(weight).sum()
        stop = _stop_loss(out.stop, lengths, r)
        guide = self._guide(out.alignments, symbols, lengths, r)
        parts = {"mel": decoder, "post": post, "stop": stop, "guide": guide}
        loss = decoder + post + stop + 2.0 * guide
        if self.envelope:
            broad = envelope_error(off) + envelope_error(post_off)
            parts["envelope"] = (broad * frames).sum() / _mean_over_processes(frames.sum())
            loss = loss + self.envelope * parts["envelope"]
        return loss, {k: v.detach() for k, v in parts.items()}

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Of the examples held out, teacher-forced: ``held_out``, the loss, and of it ``held_out_mel``."""
        if not len(self.held_out):
            return {}
        device = self.module.post_proj.weight.device
        figures, counts = [], []
        for start in range(0, len(self.held_out), self.batch_size):
            examples = [self.held_out[i] for i in range(start, min(start + self.batch_size, len(self.held_out)))]
            loss, parts = self._loss(tuple(x.to(device) for x in collate(examples)), own_frames=0.0)
            figures.append((float(loss), float(parts["mel"])))
            counts.append(len(examples))
        loss, mel = np.average(figures, axis=0, weights=counts)
        return {"held_out": float(loss), "held_out_mel": float(mel)}

    @torch.inference_mode()
    def show(self) -> dict[str, np.ndarray]:
        """The first example (held out, if any are) as the network speaks it by itself."""
        example = (self.held_out or self.examples)[0]
        voice = torch.from_numpy(np.asarray(example.voice, np.float32))[None]
        (spoken,) = self.module.generate([[int(i) for i in example.symbols]], voice, seeds=[0], max_frames=_MAX_SHOWN)
        return {
            "alignment": spoken.alignment.T.numpy(),
            "mel": spoken.mel.numpy(),
            "true_mel": np.asarray(example.mel, np.float32),
        }

    def _guide(self, alignments: Tensor, symbols: Tensor, lengths: Tensor, r: int) -> Tensor:
        """Mean attention weight away from the diagonal."""
        steps = (lengths / r).ceil()[:, None, None]
        texts = (symbols != PAD_ID).sum(dim=1)[:, None, None]
        step = torch.arange(alignments.shape[1], device=steps.device)[None, :, None]
        place = torch.arange(alignments.shape[2], device=steps.device)[None, None, :]
        away = 1 - torch.exp(-((step / steps - place / texts) ** 2) / (2 * self.guide_width**2))
        return (alignments * away * (step < steps)).sum() / _mean_over_processes(steps.sum())


def collate(batch: Sequence[Example]) -> Batch:
    """Symbols (B, T), mel (B, 80, frames) padded with silence, voices (B, 256), frames of each (B,)."""
    symbols = [torch.from_numpy(np.asarray(e.symbols, np.int64)) for e in batch]
    lengths = torch.tensor([e.mel.shape[1] for e in batch])
    mel = torch.full((len(batch), batch[0].mel.shape[0], int(lengths.max())), -MAX_LEVEL)
    for i, example in enumerate(batch):
        mel[i, :, : lengths[i]] = torch.from_numpy(np.asarray(example.mel, np.float32))
    voices = torch.from_numpy(np.stack([np.asarray(e.voice, np.float32) for e in batch]))
    return torch.nn.utils.rnn.pad_sequence(symbols, batch_first=True), mel, voices, lengths


def _whole_steps(mel: Tensor, lengths: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Mel and lengths in whole steps of r frames, the last of which holds silence behind every item:
    the stop output needs something to fire on."""
    frames = (mel.shape[2] // r + 1) * r
    return F.pad(mel, (0, frames - mel.shape[2]), value=-MAX_LEVEL), (lengths // r + 1) * r


def envelope_error(off: Tensor) -> Tensor:
    """(B, mels, frames) -> (B, frames): the mean square of means over neighbouring bands."""
    return off.unfold(1, _ENVELOPE_BANDS, _ENVELOPE_BANDS // 2).mean(dim=3).square().mean(dim=1)


def _stop_loss(stop: Tensor, lengths: Tensor, r: int) -> Tensor:
    """Cross entropy over each item's steps; its last step counts as much as five others."""
    probabilities = stop[:, ::r].float()
    steps = (lengths // r)[:, None]
    step = torch.arange(probabilities.shape[1], device=stop.device)
    target = (step >= steps - 1).float()
    weight = (step < steps).float() * (1 + 4 * target)
    with torch.autocast(stop.device.type, enabled=False):  # which refuses this function
        loss = F.binary_cross_entropy(probabilities, target, weight, reduction="sum")
    return loss / _mean_over_processes(weight.sum())


def _mean_over_processes(count: Tensor) -> Tensor:
    """What a process divides its sum by, so that the mean of all processes is the mean over all they have."""
    if not (dist.is_available() and dist.is_initialized()):
        return count
    total = count.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
