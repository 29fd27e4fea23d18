"""Training the face decoder, the voice encoder and the voice decoder, in this order."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import audio
from .decoder import FaceDecoder, PatchDiscriminator
from .face2speech import VoiceDecoder
from .frame import SIDE, FrameDescriptor
from .judges import Score
from .landmarks import mirror_order
from .portraits import Portraits
from .voice_encoder import AstVoiceEncoder, VoiceEncoder

Table = np.ndarray | scipy.sparse.csr_array
"""(clips, faces), how often each face is shown with each clip; see `pairing`."""


# ---- the face decoder


@dataclasses.dataclass(frozen=True)
class FaceDecoderLoss:
    """How much each part of the loss counts.

    A descriptor is easily pleased by blotches that no face has. With much weight on likeness, or
    with any from the start, a decoder finds those sooner than it finds faces; so the texture
    counts most, and likeness late.

    Attributes:
        landmarks: mean squared error, pixels squared.
        texture: mean absolute error, of values in [0, 1].
        identity: one minus the cosine of the portrait's feature and the wanted one.
        distinction: the same after the mean of all faces is taken out of both; the plain cosine
            mostly measures what all faces share.
        onset: share of the training, 0 to below 1, from which on identity and distinction count;
            they grow evenly to their full weight at its end. 0 gives full weight throughout.
        adversarial: the discriminator's doubts (least squares, Mao et al., 2017); 0 trains without.
    """

    landmarks: float = 0.01
    texture: float = 4.0
    identity: float = 0.25
    distinction: float = 0.25
    onset: float = 0.3
    adversarial: float = 0.0

    def likeness(self, progress: float) -> float:
        """The share of their weight that identity and distinction have."""
        return 1.0 if self.onset == 0 else max(0.0, progress - self.onset) / (1 - self.onset)


PUBLISHED_LOSS = FaceDecoderLoss(landmarks=1.0, texture=100.0, identity=100.0, distinction=0.0, onset=0.0)
"""For VGG-Face features and tens of thousands of portraits; there without a gradient in the last part."""


class Draw(NamedTuple):
    """One lesson: a portrait, or one between two of them.

    Attributes:
        first, second: rows of the portraits.
        share: of the first, 0 to 1.
        mirrored: whether the mirror image is shown.
    """

    first: int
    second: int
    share: float
    mirrored: bool


class FaceDecoderTask:
    """Portraits to be made again from their features.

    Some hundreds of portraits are few, so half of the lessons lie between two of them: features,
    textures and landmarks are mixed alike (mixup, Zhang et al., 2018; of textures with common
    landmarks the mix is a face as well).

    Args:
        portraits: to learn from.
        descriptor: frames (B, 3, 224, 224) in [0, 1] to features; frozen. It sees the portraits with
            more or less colour and, if it is a `frame.FrameDescriptor`, in shaken crops, so that
            patterns which please one exact view only are of no use.
        held_out: other portraits, for `evaluate`.
        mixing: share of the lessons that are mixed.
        fresh: whether the network is new, and so takes its means from the portraits; one that has
            learned keeps its own, on whose mean face the textures must be (`Portraits.on_mean`).
    """

    def __init__(
        self,
        module: FaceDecoder,
        portraits: Portraits,
        descriptor: nn.Module,
        weights: FaceDecoderLoss = FaceDecoderLoss(),
        held_out: Portraits | None = None,
        batch_size: int = 16,
        mixing: float = 0.5,
        fresh: bool = True,
    ) -> None:
        self.module, self.portraits, self.held_out = module, portraits, held_out
        self.descriptor = descriptor.requires_grad_(False).eval()
        self.weights, self.batch_size, self.mixing = weights, batch_size, mixing
        self.mean = torch.from_numpy(portraits.features.mean((0, 1)))
        if fresh:
            module.mean_landmarks.copy_(torch.from_numpy(portraits.mean_landmarks))
        if fresh and module.residual:
            mean = torch.from_numpy(portraits.textures.mean(0, dtype=np.float64)).float().permute(2, 0, 1) / 255
            module.set_means(
                torch.from_numpy(portraits.features).flatten(0, 1),
                torch.stack([mean, mean.flip(2)]),
                torch.from_numpy(portraits.mean_landmarks),
            )
        self.mirror = mirror_order(module.dims.points)
        self.helpers = PatchDiscriminator() if weights.adversarial else nn.Module()

    def batches(self, epoch: int, seed: int) -> Iterator[list[Draw]]:
        """Every portrait once as the first of a draw; but a last one alone, of which no batch
        normalisation could learn, waits for another epoch."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.portraits))
        for start in range(0, max(1, len(order) - 1), self.batch_size):
            first = order[start : start + self.batch_size]
            second = rng.integers(len(order), size=len(first))
            share = np.where(rng.random(len(first)) < self.mixing, rng.random(len(first)), 1.0)
            mirrored = rng.random(len(first)) < 0.5
            yield [Draw(*values) for values in zip(first, second, share, mirrored, strict=True)]

    def collate(self, items: Sequence[Draw]) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, features), textures (B, 3, 224, 224), landmarks (B, points, 2)."""
        p = self.portraits
        first, second, share, mirrored = (np.array(values) for values in zip(*items, strict=True))

        def mix(values: np.ndarray) -> Tensor:
            weight = share.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
            return torch.from_numpy(values[first] * weight + values[second] * (1 - weight))

        flip = torch.from_numpy(mirrored)[:, None, None]
        features = torch.where(flip[:, 0], mix(p.features[:, 1]), mix(p.features[:, 0]))
        textures = mix(p.textures).permute(0, 3, 1, 2) / 255
        textures = torch.where(flip[..., None], textures.flip(3), textures)
        landmarks = mix(p.landmarks)
        flipped = landmarks[:, self.mirror] * torch.tensor([-1.0, 1.0]) + torch.tensor([SIDE - 1.0, 0.0])
        return features, textures, torch.where(flip, flipped, landmarks)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """See `FaceDecoderLoss`; ``judge`` is what the discriminator learns by, if there is one."""
        w = self.weights
        features, textures, landmarks = batch
        likeness = w.likeness(progress) if w.identity or w.distinction else 0.0
        decoded = self.module(features)
        images = self.module.assemble(decoded) if likeness or w.adversarial else None
        parts = {
            "landmarks": F.mse_loss(decoded.landmarks, landmarks),
            "texture": F.l1_loss(decoded.texture, textures),
        }
        if likeness:
            given, mean = self._describe(images), self.mean.to(images.device)
            parts["identity"] = likeness * (1 - F.cosine_similarity(given, features).mean())
            parts["distinction"] = likeness * (1 - F.cosine_similarity(given - mean, features - mean).mean())
        if w.adversarial:
            parts["adversarial"] = doubt(self.helpers, images)
        total = sum(getattr(w, name) * value for name, value in parts.items())
        if w.adversarial:
            true = self.module.assemble(decoded._replace(landmarks=landmarks, texture=textures))
            parts["judge"] = mistake(self.helpers, true.detach(), images.detach())
            total = total + parts["judge"]
        return total, {name: value.detach() for name, value in parts.items()}

    def evaluate(self) -> dict[str, float]:
        """`face_to_face` on the portraits held out; nothing without any."""
        return face_to_face(self.module, self.descriptor, self.held_out) if self.held_out else {}

    def _describe(self, images: Tensor) -> Tensor:
        """Features of pictures whose colour is paled at random, and whose crop is shaken."""
        self.descriptor.to(images.device)
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * torch.rand(len(images), 1, 1, 1, device=images.device)
        if not isinstance(self.descriptor, FrameDescriptor):
            return self.descriptor(images)
        shake = torch.randn(len(images), 3, device=images.device) * torch.tensor([0.01, 0.01, 0.02]).to(images)
        return self.descriptor(images, shake)


def doubt(judge: PatchDiscriminator, made: Tensor) -> Tensor:
    """How far made pictures are from being taken for photos. Its gradient reaches the pictures and not
    the judge, so maker and judge learn in one step from one sum of losses, each from its own part."""
    frozen = {name: value.detach() for name, value in judge.named_parameters()}
    return (torch.func.functional_call(judge, frozen, (made,)) - 1).square().mean()


def mistake(judge: PatchDiscriminator, true: Tensor, made: Tensor) -> Tensor:
    """How wrong the judge is about photos and made pictures, both detached."""
    return (judge(true) - 1).square().mean() + judge(made).square().mean()


@torch.inference_mode()
def face_to_face(module: FaceDecoder, descriptor: nn.Module, portraits: Portraits) -> dict[str, float]:
    """How much of a person is left in the portrait made from the own feature; networks in eval mode.

    Returns:
        ``distance``: one minus ``cosine``, the mean over people of the feature before to that after;
        ``recall_at_10``: share of people who are among the ten nearest to their portrait's feature.
    """
    device = module.mean_landmarks.device
    descriptor.to(device)
    features = torch.from_numpy(portraits.features[:, 0]).to(device)
    again = torch.cat([descriptor(module.render(part)) for part in features.split(16)])
    nearest = torch.cdist(again, features).argsort(dim=1)[:, :10]
    own = torch.arange(len(features), device=device)[:, None]
    cosine = float(F.cosine_similarity(again, features).mean())
    recall = float((nearest == own).any(1).float().mean())
    return {"distance": 1 - cosine, "cosine": cosine, "recall_at_10": recall}


# ---- the voice encoder


@dataclasses.dataclass(frozen=True)
class VoiceEncoderLoss:
    """How much each part of the loss counts (Oh et al., 2019, equation 1); 0 leaves a part out.

    All are taken per clip and averaged over the batch; a published program divides by the norm of
    the whole batch and sums the last part over it, so that its weights depend on the batch's size.

    Attributes:
        decoder: L1 distance behind the face decoder's first layers.
        normalised: squared distance of the features at unit length.
        distillation: cross-entropy of the classifier's answers at `temperature`; needs a classifier.
    """

    decoder: float = 1.0
    normalised: float = 0.025
    distillation: float = 200.0
    temperature: float = 2.0


NARROW_LOSS = VoiceEncoderLoss(decoder=0.01, normalised=1.0, distillation=0.0)
"""For 128-number descriptors, which have no classifier, and the narrow decoder."""


def voice_loss(
    heard: Tensor,
    seen: Tensor,
    weights: VoiceEncoderLoss,
    decoder: FaceDecoder | None = None,
    classifier: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts, see `VoiceEncoderLoss`; the seen side carries no gradient.

    Args:
        heard, seen: features (B, feature) of voices and of faces.
        decoder: in eval mode and frozen; for its first layers.
        classifier: features to logits (B, classes), such as `VGGFace.logits`.
    """
    parts = {}
    seen = seen.detach()
    if weights.decoder:
        parts["decoder"] = (decoder.first_layers(heard) - decoder.first_layers(seen)).abs().sum(1).mean()
    if weights.normalised:
        parts["normalised"] = (F.normalize(heard) - F.normalize(seen)).square().sum(1).mean()
    if weights.distillation:
        told = (classifier(seen) / weights.temperature).softmax(1)
        said = (classifier(heard) / weights.temperature).log_softmax(1)
        parts["distillation"] = -(told * said).sum(1).mean()
    total = sum(getattr(weights, name) * value for name, value in parts.items())
    return total, {name: value.detach() for name, value in parts.items()}


class Pair(NamedTuple):
    """One lesson: a part of a clip, and the face shown with it.

    Attributes:
        clip, face: which.
        place: where the part begins, 0 (at the start) to 1 (so late that six seconds are left).
    """

    clip: int
    face: int
    place: float

    def part(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """The clip's samples from there on."""
        clip = clips[self.clip]
        return clip[round(self.place * max(0, len(clip) - audio.SAMPLES)) :]


class VoiceEncoderTask:
    """Clips to the features of faces that suit them.

    Args:
        clips: samples of `audio.load_clip`; read when needed, so they may lie on the disk.
        faces: (n, feature), features of faces.
        table: (clips, n), of `pairing`: how often each face is shown with each clip.
        decoder, classifier: for the parts of the loss that need them, see `voice_loss`; frozen.
        held_out: clips of other speakers and their table, for `evaluate`.
        sex: of `judges.sex_classifier`, for `evaluate`.
        fresh: whether the network is new, and so starts at the mean face.
    """

    def __init__(
        self,
        module: VoiceEncoder | AstVoiceEncoder,
        clips: Sequence[np.ndarray],
        faces: np.ndarray,
        table: Table,
        decoder: FaceDecoder | None = None,
        weights: VoiceEncoderLoss = NARROW_LOSS,
        classifier: nn.Module | None = None,
        batch_size: int = 16,
        held_out: tuple[Sequence[np.ndarray], Table] | None = None,
        sex: Score | None = None,
        fresh: bool = True,
    ) -> None:
        if weights.decoder and decoder is None:
            raise ValueError("the loss's first part needs a face decoder; give it the weight 0 to do without")
        if weights.distillation and classifier is None:
            raise ValueError("distillation needs a classifier; give it the weight 0 to do without")
        self.module, self.clips, self.batch_size = module, clips, batch_size
        self.faces, self.drawing = torch.from_numpy(faces.astype(np.float32)), _Drawing(table)
        self.decoder = decoder and decoder.eval().requires_grad_(False)
        self.classifier = classifier and classifier.eval().requires_grad_(False)
        self.weights = weights
        self.held_out, self.sex = held_out, sex
        if fresh and isinstance(module, VoiceEncoder) and not module.dims.final_relu:
            last = list(module.children())[-1][0]
            with torch.no_grad():  # starting at the mean face spares the first hundred steps
                last.bias.copy_(self.faces.mean(0))

    def batches(self, epoch: int, seed: int) -> Iterator[list[Pair]]:
        """Every clip that has a face once, from a random place on."""
        yield from self.drawing.batches(self.batch_size, np.random.default_rng((seed, epoch)))

    def collate(self, items: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """What the network hears (B, ...), and the features of the faces (B, feature)."""
        heard = [self.module.hear(pair.part(self.clips)) for pair in items]
        return torch.stack(heard), self.faces[[pair.face for pair in items]]

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """See `VoiceEncoderLoss`."""
        heard, seen = batch
        decoder, classifier = (part and part.to(seen.device) for part in (self.decoder, self.classifier))
        return voice_loss(self.module(heard), seen, self.weights, decoder, classifier)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On the clips held out; nothing without any.

        Returns:
            ``distance``: squared, at unit length, to the faces of their table, 0 to 4; and, with a
            judge of sex, ``right_sex``: share of the clips on the same side as those faces' mean.
        """
        if self.held_out is None:
            return {}
        clips, table = self.held_out
        device = next(self.module.parameters()).device
        heard = (self.module.hear(clip)[None].to(device) for clip in clips)
        features = torch.cat([self.module(one) for one in heard]).cpu()
        weight = torch.from_numpy(table.toarray() if scipy.sparse.issparse(table) else table).float()
        cosine = ((F.normalize(features) @ F.normalize(self.faces).T) * weight).sum(1)
        figures = {"distance": float((2 - 2 * cosine).mean())}
        if self.sex:
            right = (self.sex(features) > 0) == (weight @ self.sex(self.faces) > 0)
            figures["right_sex"] = float(right.float().mean())
        return figures


class _Drawing:
    """Draws a face for every clip that a table gives any."""

    def __init__(self, table: Table) -> None:
        self.table = scipy.sparse.csr_array(table, copy=True)
        self.table.eliminate_zeros()
        self.used = np.flatnonzero(np.diff(self.table.indptr))
        if not len(self.used):
            raise ValueError("no clip has a face to go with it")

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[Pair]]:
        order = rng.permutation(self.used)
        for first in range(0, len(order), size):
            clips = order[first : first + size]
            yield [Pair(int(clip), self._face(clip, rng.random()), rng.random()) for clip in clips]

    def _face(self, clip: int, lot: float) -> int:
        own = slice(*self.table.indptr[clip : clip + 2])
        cumulated = self.table.data[own].cumsum(dtype=np.float64)
        return int(self.table.indices[own][np.searchsorted(cumulated, lot * cumulated[-1], side="right")])


# ---- the voice decoder


class VoiceDecoderTask:
    """Features of faces to spectrograms of clips that suit them.

    Where phases differ from clip to clip, the mean of real and imaginary parts is nothing at all;
    so the magnitudes are compared as well, and phase refinement sees to the rest.

    Args:
        clips, faces, table: as for `VoiceEncoderTask`.
        magnitude: weight of the magnitudes' error beside that of the parts.
    """

    def __init__(
        self,
        module: VoiceDecoder,
        clips: Sequence[np.ndarray],
        faces: np.ndarray,
        table: Table,
        batch_size: int = 8,
        magnitude: float = 1.0,
    ) -> None:
        self.module, self.clips, self.batch_size, self.magnitude = module, clips, batch_size, magnitude
        self.faces, self.drawing = torch.from_numpy(faces.astype(np.float32)), _Drawing(table)

    def batches(self, epoch: int, seed: int) -> Iterator[list[Pair]]:
        """As of `VoiceEncoderTask`."""
        yield from self.drawing.batches(self.batch_size, np.random.default_rng((seed, epoch)))

    def collate(self, items: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Spectrograms (B, 2, 257, frames), and the features of the faces (B, feature)."""
        length = (self.module.dims.frames - 1) * audio.HOP + audio.WINDOW
        samples = np.stack([audio.fill(pair.part(self.clips), length) for pair in items])
        return audio.spectrogram(torch.from_numpy(samples)), self.faces[[pair.face for pair in items]]

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean absolute errors of the compressed parts and of their magnitudes."""
        wanted, faces = batch
        made = self.module(faces)
        parts = F.l1_loss(made, wanted)
        magnitudes = F.l1_loss(*((x.square().sum(1) + 1e-6).sqrt() for x in (made, wanted)))
        return parts + self.magnitude * magnitudes, {"parts": parts.detach(), "magnitudes": magnitudes.detach()}
