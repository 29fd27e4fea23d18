"""Training the face-speaker encoder: as a whole on people's faces and voices, or its projection alone on
features of a frozen backbone.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import InputError

from .face_decoder import FaceDecoder
from .face_model import FaceSpeakerEncoder, unit
from .ge2e import gather

_MAX_TEMPERATURE = 100.0
_EVALUATED = 100  # people at most


@dataclasses.dataclass(frozen=True)
class Person:
    """Whose faces and voices belong together: indices of photos and of clips, at least one of each."""

    faces: Sequence[int]
    voices: Sequence[int]


class Pair(NamedTuple):
    """A face and a voice of one person.

    Attributes:
        face: index of the photo (or video).
        crop: which of its crops, 0 (the first) to 1 (the last).
        mirrored: left to right.
        voice: index of the clip.
    """

    face: int
    crop: float
    mirrored: bool
    voice: int


class FaceSpeakerTask:
    """Lip2Speech's three losses, summed (Akyol et al., Lip2Speech, speaker_encoder, as its code has them).

    With f, s the raw embeddings of face and speech and n(x) their ReLU at unit length:

    - the mean squared error of n(f) and n(s);
    - contrastive: cross entropy of t f s' over its rows and over its columns, with a learned
      temperature t that starts at 1 and ends at 100;
    - ten times the mean squared error of the face that a `FaceDecoder` makes of an embedding: n(s)
      for every second item, for the others n(f), through which no gradient goes. So it trains the
      decoder alone: a view of what the embeddings hold of a face.

    Args:
        crops: (n, 160, 160, 3) uint8 RGB of each photo or video; read when needed.
        voices: (embedding,) of each clip, before ReLU and length; read when needed.
        people: a batch has `batch_size` different ones.
        held_out: other people, for the figures.
        decoder: None leaves the third loss out.
        freeze: learn the projection only, and of InceptionResnetV1 its last linear layer and the scale
            of its last normalisation, as published. The statistics of a frozen backbone stay as they are.
    """

    def __init__(
        self,
        module: FaceSpeakerEncoder,
        crops: Sequence[np.ndarray],
        voices: Sequence[np.ndarray],
        people: Sequence[Person],
        held_out: Sequence[Person] = (),
        decoder: FaceDecoder | None = None,
        freeze: bool = True,
        batch_size: int = 64,
    ):
        if len(people) < 2:
            raise InputError("fewer than two people have both a face and a voice; give more")
        self.module = module
        self.crops, self.voices = crops, voices
        self.people, self.held_out = people, held_out
        self.freeze = freeze
        self.batch_size = batch_size
        self.helpers = nn.Module()
        self.helpers.temperature = nn.Parameter(torch.ones(()))
        self.helpers.decoder = decoder
        if freeze:
            module.resnet.requires_grad_(False)
            for name in ("last_linear", "last_bn"):
                if hasattr(module.resnet, name):
                    getattr(module.resnet, name).requires_grad_(True)

    def batches(self, epoch: int, seed: int) -> Iterator[list[Pair]]:
        """Each person once. Fewer than two in a batch would have nothing to be told apart from."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.people))
        for start in range(0, len(order) - 1, self.batch_size):
            yield [self._draw(self.people[i], rng) for i in order[start : start + self.batch_size]]

    @staticmethod
    def _draw(person: Person, rng: np.random.Generator) -> Pair:
        face, voice = rng.choice(person.faces), rng.choice(person.voices)
        return Pair(int(face), rng.random(), bool(rng.random() < 0.5), int(voice))

    def collate(self, batch: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, 160, 160) as of `FaceSpeakerEncoder`, and raw voices (B, embedding)."""
        crops = []
        for pair in batch:
            of_photo = self.crops[pair.face]
            crop = of_photo[round(pair.crop * (len(of_photo) - 1))]
            crops.append(crop[:, ::-1] if pair.mirrored else crop)
        faces = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        voices = np.stack([np.asarray(self.voices[pair.voice], np.float32) for pair in batch])
        return (faces.float() - 127.5) / 128, torch.from_numpy(voices)

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the three; the contrastive one is over the people of all processes, the same in each."""
        faces, spoken = batch
        if self.freeze:
            self.module.resnet.eval()
        seen = self.module(faces).float()
        distance = F.mse_loss(unit(seen), unit(spoken))
        logits = self.helpers.temperature.clamp(max=_MAX_TEMPERATURE) * (gather(seen) @ gather(spoken).T)
        target = torch.arange(len(logits), device=logits.device)
        contrast = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
        parts = {"distance": distance, "contrast": contrast}
        if self.helpers.decoder is not None:
            every_second = torch.arange(len(faces), device=faces.device)[:, None] % 2 == 0
            told = torch.where(every_second, unit(spoken), unit(seen).detach())
            parts["face"] = 10 * F.mse_loss(self.helpers.decoder(told).float(), faces)
        return sum(parts.values()), {name: part.detach() for name, part in parts.items()}

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Of the people held out, by their first face and voice: ``away``, one minus the mean cosine of
        the two, and ``confused``, the share whose face is nearer to another's voice than to their own."""
        pairs = [Pair(p.faces[0], 0.0, False, p.voices[0]) for p in self.held_out[:_EVALUATED]]
        if len(pairs) < 2:
            return {}
        device = self.module.projection_layer[0].weight.device
        seen, spoken = [], []
        for start in range(0, len(pairs), self.batch_size):
            faces, voices = self.collate(pairs[start : start + self.batch_size])
            seen.append(self.module(faces.to(device)).float().cpu())
            spoken.append(voices)
        cosines = unit(torch.cat(seen)) @ unit(torch.cat(spoken)).T
        right = cosines.argmax(dim=1) == torch.arange(len(cosines))
        return {"away": float(1 - cosines.diagonal().mean()), "confused": float(1 - right.float().mean())}

    @torch.inference_mode()
    def show(self) -> dict[str, np.ndarray]:
        """The face that the decoder makes of a voice, beside the person's own."""
        if self.helpers.decoder is None:
            return {}
        person = (self.held_out or self.people)[0]
        faces, voices = self.collate([Pair(person.faces[0], 0.0, False, person.voices[0])])
        made = self.helpers.decoder(unit(voices.to(self.helpers.temperature.device))).float().cpu()
        both = torch.cat([made, faces], dim=3)[0].permute(1, 2, 0)
        return {"face_of_voice": ((both + 1) / 2).clamp(0, 1).numpy()}


class ProjectionTask:
    """Faces to the voices of people like them: the squared error of the normalised embeddings
    (Lip2Speech's first loss) with, per face and step, one voice drawn among those that suit it.

    Args:
        features: (faces, features) of the backbone.
        voices: (voices, embedding), unit length.
        likelihood: (faces, voices), how well each voice suits each face; rows sum to 1.
        noise: put on the features, in units of their standard deviation; keeps the projection
            from learning single people by heart.
    """

    def __init__(
        self,
        module: FaceSpeakerEncoder,
        features: np.ndarray,
        voices: np.ndarray,
        likelihood: np.ndarray,
        batch_size: int = 64,
        noise: float = 0.3,
    ):
        self.module = module
        module.resnet.requires_grad_(False)
        self.features, self.voices = features.astype(np.float32), voices.astype(np.float32)
        self.cumulated = likelihood.cumsum(axis=1)
        self.batch_size = batch_size
        self.noise = noise * features.std(axis=0)

    def batches(self, epoch: int, seed: int) -> Iterator[list[tuple[np.ndarray, int]]]:
        """Disturbed features (features,) and index of a voice, each face once."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.features))
        for start in range(0, len(order), self.batch_size):
            faces = order[start : start + self.batch_size]
            drawn = (self.cumulated[faces] < rng.random((len(faces), 1))).sum(axis=1)
            noise = rng.normal(size=(len(faces), self.features.shape[1])) * self.noise
            features = self.features[faces] + noise.astype(np.float32)
            yield list(zip(features, drawn.clip(max=len(self.voices) - 1), strict=True))

    def collate(self, batch: Sequence[tuple[np.ndarray, int]]) -> tuple[Tensor, Tensor]:
        """Features (B, features) and voices (B, embedding)."""
        features, drawn = zip(*batch, strict=True)
        return torch.from_numpy(np.stack(features)), torch.from_numpy(self.voices[list(drawn)])

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared distance between unit vectors, 0 to 2 as none has values below 0."""
        features, voices = batch
        distance = (unit(self.module.projection_layer(features)) - voices).square().sum(dim=1).mean()
        return distance, {"distance": distance.detach()}
