"""Face feature -> a frontal, evenly lit portrait, after Cole et al. (2017), "Synthesizing Normalized
Faces from Facial Identity Features": landmarks and a texture on the mean face, and a warp of one by
the other.
"""

import dataclasses
import os
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import CheckpointError, read_checkpoint

from .frame import SIDE
from .landmarks import template
from .warp import warp


@dataclasses.dataclass(frozen=True)
class FaceDecoderDims:
    """Everything that shapes a `FaceDecoder`; the defaults are a narrow one's.

    Attributes:
        feature: numbers of the face feature.
        shared: widths of the layers that landmarks and texture share.
        landmarks: widths of the layers behind them that lead to the landmarks.
        points: landmarks, 68 or 72.
        channels: of the texture at each size; the first has `start` pixels a side, every further one
            doubles it, up to 224.
        style: "residual" gives the difference to a mean face that is stored with the weights, from
            a standardised feature, by enlarging and convolving: made for hundreds of portraits.
            "absolute" is the published layout: transposed convolutions, batch normalisation in the
            fully connected layers.
        order: of the warp's spline.
    """

    feature: int = 128
    shared: tuple[int, ...] = (256, 256)
    landmarks: tuple[int, ...] = (128,)
    points: int = 68
    channels: tuple[int, ...] = (96, 64, 48, 32, 24, 16)
    start: int = 7
    style: Literal["residual", "absolute"] = "residual"
    order: int = 2

    def __post_init__(self) -> None:
        if self.start * 2 ** (len(self.channels) - 1) != SIDE:
            raise ValueError(f"{self.start} pixels doubled {len(self.channels) - 1} times are not {SIDE}")
        if self.style not in ("residual", "absolute"):
            raise ValueError(f"no style {self.style!r}: choose residual or absolute")


PUBLISHED = FaceDecoderDims(
    feature=4096,
    shared=(3072, 2048),
    landmarks=(1024, 512, 256),
    points=72,
    channels=(256, 128, 64, 32, 32),
    start=14,
    style="absolute",
)
"""The 125.6-million-parameter layout for VGG-Face features, as weights of it were published."""


class Decoded(NamedTuple):
    """What the network says of a batch.

    Attributes:
        landmarks: (B, points, 2), pixels of the frame.
        texture: (B, 3, 224, 224) RGB in [0, 1], the face with the mean landmarks.
    """

    landmarks: Tensor
    texture: Tensor


class FaceDecoder(nn.Module):
    """Features to landmarks and textures, and to portraits.

    >>> FaceDecoder(FaceDecoderDims()).render(torch.zeros(1, 128)).shape
    torch.Size([1, 3, 224, 224])
    """

    def __init__(self, dims: FaceDecoderDims) -> None:
        super().__init__()
        self.dims = dims
        self.residual = dims.style == "residual"
        widths = (dims.feature, *dims.shared)
        self.pre_layers = nn.Sequential(*self._connected(widths))
        widths = (dims.shared[-1], *dims.landmarks)
        last = nn.Linear(widths[-1], 2 * dims.points)
        self.landmark_layers = nn.Sequential(*self._connected(widths), nn.Sequential(last))
        self.texture_layers = nn.Sequential(*self._texture())
        # torch.tensor copies: under a "meta" device, from_numpy would still make real memory
        self.register_buffer("mean_landmarks", torch.tensor(template(dims.points).tolist()))
        if self.residual:
            self.register_buffer("mean_texture", torch.full((3, SIDE, SIDE), 0.5))
            self.register_buffer("feature_mean", torch.zeros(dims.feature))
            self.register_buffer("feature_scale", torch.ones(dims.feature))
            for layer in (last, self.texture_layers[-1][0]):  # training starts at the mean face
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "FaceDecoder":
        """Our own file, or published weights of the full layout.

        Raises:
            CheckpointError: the file cannot be read or holds another network.
        """
        checkpoint = read_checkpoint(path)
        if checkpoint.network is not None:
            return checkpoint.build(cls, checkpoint.dims_as(FaceDecoderDims, cls.__name__))
        if "texture_layers.0.0.weight" not in checkpoint.tensors:
            raise CheckpointError(f"{path}: no face decoder in it (weights named 'texture_layers.*')")
        mean = torch.from_numpy(template(PUBLISHED.points)).float()  # not in the published file
        tensors = {"mean_landmarks": mean, **checkpoint.tensors}
        return dataclasses.replace(checkpoint, tensors=tensors).build(cls, PUBLISHED)

    def set_means(self, features: Tensor, textures: Tensor, landmarks: Tensor) -> None:
        """Starts the style "residual" from a set of portraits.

        Args:
            features: (n, feature), whose mean and scale standardise what comes.
            textures: (n, 3, 224, 224) or their mean (1, 3, 224, 224).
            landmarks: (points, 2), those the textures have.
        """
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0).clamp(min=1e-6))
        self.mean_texture.copy_(textures.mean(0))
        self.mean_landmarks.copy_(landmarks)

    def first_layers(self, features: Tensor) -> Tensor:
        """(B, feature) -> (B, shared[-1]): the shared layers, in which voice and face features are compared."""
        if self.residual:
            features = (features - self.feature_mean) / self.feature_scale
        return self.pre_layers(features)

    def forward(self, features: Tensor) -> Decoded:
        """(B, feature) -> landmarks and textures."""
        shared = self.first_layers(features)
        landmarks = self.landmark_layers(shared).unflatten(1, (self.dims.points, 2))
        texture = self.texture_layers(shared)
        if self.residual:
            landmarks = landmarks + self.mean_landmarks
            texture = texture + torch.logit(self.mean_texture, eps=0.01)
        return Decoded(landmarks, torch.sigmoid(texture))

    def assemble(self, decoded: Decoded) -> Tensor:
        """Portraits (B, 3, 224, 224) in [0, 1]: the textures with their landmarks in place."""
        return warp(decoded.texture, self.mean_landmarks, decoded.landmarks, self.dims.order)

    def render(self, features: Tensor) -> Tensor:
        """(B, feature) -> portraits (B, 3, 224, 224), RGB in [0, 1]."""
        return self.assemble(self(features))

    def _connected(self, widths: tuple[int, ...]) -> list[nn.Module]:
        layers = []
        for before, width in zip(widths[:-1], widths[1:], strict=True):
            if self.residual:
                layers.append(nn.Sequential(nn.Linear(before, width), nn.LeakyReLU(0.2)))
            else:
                layers.append(nn.Sequential(nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU()))
        return layers

    def _texture(self) -> list[nn.Module]:
        d = self.dims
        first, pixels = d.channels[0], d.channels[0] * d.start**2
        layers: list[nn.Module] = [nn.Sequential(nn.Linear(d.shared[-1], pixels), nn.ReLU())]
        for number, (before, after) in enumerate(zip(d.channels[:-1], d.channels[1:], strict=True)):
            if self.residual:
                enlarge = [
                    _Enlarge(),
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.GroupNorm(1, after),
                    nn.LeakyReLU(0.2),
                ]
            else:
                enlarge = [nn.ConvTranspose2d(before, after, 5, 2, padding=2, output_padding=1), nn.ReLU()]
            if number == 0:
                enlarge.insert(0, nn.Unflatten(1, (first, d.start, d.start)))
            layers.append(nn.Sequential(*enlarge))
        layers.append(nn.Sequential(nn.Conv2d(d.channels[-1], 3, 1)))
        return layers


class _Enlarge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class PatchDiscriminator(nn.Module):
    """Whether each part of a picture is of a photo: (B, 3, 224, 224) -> logits (B, 1, 26, 26).

    Isola et al. (2017), section 3.2.2, narrow; each answer sees 70 x 70 pixels.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for number in range(3):
            after = width * 2**number
            layers += [nn.Conv2d(before, after, 4, 2, padding=1), nn.LeakyReLU(0.2)]
            before = after
        layers += [nn.Conv2d(before, before, 4, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(before, 1, 4, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images * 2 - 1)
