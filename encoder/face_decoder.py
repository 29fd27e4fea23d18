"""The face decoder that Lip2Speech trains beside its face-speaker encoder: a voice -> a face."""

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

_EXPANSION = 6


@dataclasses.dataclass(frozen=True)
class FaceDecoderDims:
    """The numbers that rebuild a `FaceDecoder`; the defaults are the published one's.

    Attributes:
        channels: of the map the embedding is unfolded to, and after each stage, which doubles the side.
        side: of that first map.
        size: of the face, pixels.
    """

    embedding: int = 256
    channels: tuple[int, ...] = (512, 256, 128, 64, 64)
    side: int = 5
    size: int = 160


class _Block(nn.Module):
    """1x1 convolution to more channels, then one 3x3 group per channel that goes out, beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = _EXPANSION * inputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, outputs, 3, padding=1, groups=outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.upsample = nn.Conv2d(inputs, outputs, 1)  # so named in the published layout

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.upsample(x)


class FaceDecoder(nn.Module):
    """Embeddings of voices -> faces. Names and shapes of the weights are those of Lip2Speech's file."""

    def __init__(self, dims: FaceDecoderDims | None = None) -> None:
        super().__init__()
        self.dims = dims = dims or FaceDecoderDims()
        self.linear = nn.Linear(dims.embedding, dims.channels[0] * dims.side**2)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(dims.channels, dims.channels[1:], strict=False):
            doubled = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            layers += [_Block(inputs, outputs), nn.Sequential(doubled, nn.Conv2d(outputs, outputs, 3, padding=1))]
        self.feature_extractor = nn.Sequential(*layers, nn.Conv2d(dims.channels[-1], 3, 1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, embedding) -> (B, 3, size, size), RGB, about [-1, 1]."""
        d = self.dims
        x = F.dropout(self.linear(embeddings), 0.3, self.training).unflatten(1, (d.channels[0], d.side, d.side))
        return F.interpolate(self.feature_extractor(x), (d.size, d.size), mode="bilinear", align_corners=True)
