"""Training the face-speaker encoder's projection on features of a frozen backbone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .face_model import FaceSpeakerEncoder, unit


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

    def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Disturbed features (B, features) and voices (B, embedding), each face once."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.features))
        for start in range(0, len(order), self.batch_size):
            faces = order[start : start + self.batch_size]
            drawn = (self.cumulated[faces] < rng.random((len(faces), 1))).sum(axis=1)
            noise = rng.normal(size=(len(faces), self.features.shape[1])) * self.noise
            features = self.features[faces] + noise.astype(np.float32)
            yield torch.from_numpy(features), torch.from_numpy(self.voices[drawn.clip(max=len(self.voices) - 1)])

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared distance between unit vectors, 0 to 2 as none has values below 0."""
        features, voices = batch
        distance = (unit(self.module.projection_layer(features)) - voices).square().sum(dim=1).mean()
        return distance, {"distance": distance.detach()}
