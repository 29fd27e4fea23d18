"""Training the speech-speaker encoder from scratch, by the generalised end-to-end loss (GE2E; Wan et
al. 2018, https://arxiv.org/abs/1710.10467).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from savedmodels import InputError

from .audio import PARTIAL_FRAMES
from .distil import equal_error_rate
from .speech_model import SpeechSpeakerEncoder

_SIMILARITY_GRADIENT = 0.01  # scale of the gradient of w and b (section 3)
_EVALUATED = 4  # partial utterances of each utterance held out


class Crop(NamedTuple):
    """A partial utterance to cut.

    Attributes:
        utterance: its index.
        place: where it starts, 0 (at the start) to 1 (as late as possible).
    """

    utterance: int
    place: float


class GE2ETask:
    """Softmax GE2E: each partial utterance is to be nearer to its own speaker's centroid than to others'.

    A batch has `speakers_per_batch` speakers with `utterances_per_speaker` partial utterances of
    160 frames each. Published were 64 by 10, a learning rate of 1e-4 and gradients clipped at 3, for
    more than a million steps; with few speakers 16 by 4 and 1e-3 learn much sooner.

    Args:
        utterances: (frames, 40) mels of any float dtype each, at least a frame long; read when needed,
            so they may lie on the disk.
        speakers: names, one per utterance. Of a single utterance all partial utterances are cut, which
            then share more than the voice; better than to leave its speaker out.
        held_out: another such pair, of other speakers, to measure the equal error rate on.

    Raises:
        InputError: fewer than two speakers.
    """

    def __init__(
        self,
        module: SpeechSpeakerEncoder,
        utterances: Sequence[np.ndarray],
        speakers: Sequence[str],
        held_out: tuple[Sequence[np.ndarray], Sequence[str]] = ((), ()),
        speakers_per_batch: int = 16,
        utterances_per_speaker: int = 4,
    ):
        self.module = module
        self.utterances = utterances
        self.held_out = held_out
        self.speakers_per_batch, self.utterances_per_speaker = speakers_per_batch, utterances_per_speaker
        names, index = np.unique(np.asarray(speakers), return_inverse=True)
        self.by_speaker = [np.flatnonzero(index == i) for i in range(len(names))]
        if len(names) < 2:
            raise InputError("fewer than two speakers; give speech of more people")

    def batches(self, epoch: int, seed: int) -> Iterator[list[list[Crop]]]:
        """Speakers' crops, each speaker as often as it takes to hear his utterances once, while there are
        others to tell him from."""
        rng = np.random.default_rng((seed, epoch))
        turns = np.array([-(-len(mine) // self.utterances_per_speaker) for mine in self.by_speaker])
        size = min(self.speakers_per_batch, len(turns))
        for turn in range(turns.max()):
            order = rng.permutation(np.flatnonzero(turns > turn))
            for start in range(0, len(order) - size + 1, size):
                yield [self._draw(self.by_speaker[i], rng) for i in order[start : start + size]]

    def _draw(self, mine: np.ndarray, rng: np.random.Generator) -> list[Crop]:
        drawn = np.resize(rng.permutation(mine), self.utterances_per_speaker)
        crops = []
        for i in np.unique(drawn):
            times = np.count_nonzero(drawn == i)  # crops of one utterance are spread over it
            crops += [Crop(int(i), (k + place) / times) for k, place in enumerate(rng.random(times))]
        return crops

    def collate(self, batch: Sequence[Sequence[Crop]]) -> Tensor:
        """(speakers, utterances, 160, 40)."""
        mels = [[_cut(self.utterances[crop.utterance], crop.place) for crop in crops] for crops in batch]
        return torch.from_numpy(np.stack([np.stack(row) for row in mels]))

    def loss(self, batch: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over the speakers of all processes, the same in each."""
        module = self.module
        embeddings = gather(module(batch.flatten(0, 1)).float().unflatten(0, batch.shape[:2]))
        weight, bias = (_slowed(p, _SIMILARITY_GRADIENT) for p in (module.similarity_weight, module.similarity_bias))
        loss, right = ge2e_loss(embeddings, weight, bias)
        return loss, {"ge2e": loss.detach(), "right": right}

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """``eer``: equal error rate over all pairs of utterances of the speakers held out, 0 to 0.5."""
        utterances, speakers = self.held_out
        if not len(utterances):
            return {}
        device = self.module.linear.weight.device
        places = np.linspace(0, 1, _EVALUATED)
        embeddings = []
        for i in range(len(utterances)):
            mels = np.stack([_cut(utterances[i], place) for place in places])
            embeddings.append(F.normalize(self.module(torch.from_numpy(mels).to(device)).float().sum(0), dim=0))
        return {"eer": equal_error_rate(torch.stack(embeddings).cpu().numpy(), np.asarray(speakers))}


def ge2e_loss(embeddings: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 5, 6, 8 and 9 of Wan et al.

    Args:
        embeddings: (speakers, utterances, embedding), unit length; at least 2 by 2.
        weight, bias: (1,), of the similarities.

    Returns:
        mean loss of an embedding, and the share of them that is nearest to its own speaker.
    """
    speakers, utterances, _ = embeddings.shape
    sums = embeddings.sum(dim=1)
    centroids = F.normalize(sums, dim=1)
    # An utterance in its own centroid would pull it towards itself.
    others = F.normalize(sums[:, None] - embeddings, dim=2)
    own = (embeddings * others).sum(dim=2)  # (speakers, utterances)
    cosines = embeddings @ centroids.T  # (speakers, utterances, speakers)
    mine = torch.eye(speakers, dtype=torch.bool, device=embeddings.device)[:, None]
    similarities = torch.where(mine, own[..., None], cosines).flatten(0, 1) * weight.clamp(min=1e-6) + bias
    target = torch.arange(speakers, device=embeddings.device).repeat_interleave(utterances)
    right = (similarities.argmax(dim=1) == target).float().mean()
    return F.cross_entropy(similarities, target), right


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, with gradient; x itself if there is one process.

    For losses that every process computes over all rows alike: the mean over the processes of its
    parameters' gradients is then that of one process with all rows.
    """
    return _Gather.apply(x) if dist.is_available() and dist.is_initialized() else x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def _slowed(x: Tensor, scale: float) -> Tensor:
    """x, with a gradient scaled down."""
    return x * scale + x.detach() * (1 - scale)


def _cut(mel: np.ndarray, place: float) -> np.ndarray:
    """(160, 40) float32; a short utterance is followed by silence, as when embedding."""
    start = round(place * max(0, len(mel) - PARTIAL_FRAMES))
    cut = mel[start : start + PARTIAL_FRAMES].astype(np.float32)
    return np.pad(cut, ((0, PARTIAL_FRAMES - len(cut)), (0, 0)))
