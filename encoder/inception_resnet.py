"""InceptionResnetV1, the face network beneath Lip2Speech's face-speaker encoder.

The architecture is Inception-ResNet-v1 (Szegedy et al. 2016, arXiv:1602.07261) with FaceNet's
embedding layer. Parameter names and shapes follow the published ``lip2speech_final.pth``
(``vgg_face.resnet.*``), so the names of the attributes below are part of the file format.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel, stride: int = 1, padding=0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Parallel branches, joined by a 1x1 convolution and added to the input, scaled.

    Args:
        channels: of the input and the output.
        joined: channels of all branches together.
        scale: of what is added; small scales keep the many-branched network stable.
        branches: in the order in which their outputs are joined.
        last: leave out the final ReLU.
    """

    def __init__(self, channels: int, joined: int, scale: float, *branches: nn.Module, last: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.last = last
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.branches = len(branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self.branches)], 1)
        x = x + self.scale * self.conv2d(joined)
        return x if self.last else F.relu(x)


class Reduction(nn.Module):
    """Parallel branches of stride 2 and a max pooling, joined: halves the side of the map."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.branches = len(branches)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self.get_submodule(f"branch{i}")(x) for i in range(self.branches)]
        return torch.cat([*outputs, F.max_pool2d(x, 3, 2)], 1)


def _block35() -> Residual:
    return Residual(
        256,
        96,
        0.17,
        ConvUnit(256, 32, 1),
        nn.Sequential(ConvUnit(256, 32, 1), ConvUnit(32, 32, 3, padding=1)),
        nn.Sequential(ConvUnit(256, 32, 1), ConvUnit(32, 32, 3, padding=1), ConvUnit(32, 32, 3, padding=1)),
    )


def _block17() -> Residual:
    return Residual(
        896,
        256,
        0.10,
        ConvUnit(896, 128, 1),
        nn.Sequential(
            ConvUnit(896, 128, 1),
            ConvUnit(128, 128, (1, 7), padding=(0, 3)),
            ConvUnit(128, 128, (7, 1), padding=(3, 0)),
        ),
    )


def _block8(scale: float = 0.20, last: bool = False) -> Residual:
    return Residual(
        1792,
        384,
        scale,
        ConvUnit(1792, 192, 1),
        nn.Sequential(
            ConvUnit(1792, 192, 1),
            ConvUnit(192, 192, (1, 3), padding=(0, 1)),
            ConvUnit(192, 192, (3, 1), padding=(1, 0)),
        ),
        last=last,
    )


class InceptionResnetV1(nn.Module):
    """Face crops -> features, without the classification layer that trained it.

    Args:
        features: numbers per face; 512 in the published file.
    """

    def __init__(self, features: int = 512) -> None:
        super().__init__()
        self.conv2d_1a = ConvUnit(3, 32, 3, stride=2)
        self.conv2d_2a = ConvUnit(32, 32, 3)
        self.conv2d_2b = ConvUnit(32, 64, 3, padding=1)
        self.conv2d_3b = ConvUnit(64, 80, 1)
        self.conv2d_4a = ConvUnit(80, 192, 3)
        self.conv2d_4b = ConvUnit(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = Reduction(
            ConvUnit(256, 384, 3, stride=2),
            nn.Sequential(ConvUnit(256, 192, 1), ConvUnit(192, 192, 3, padding=1), ConvUnit(192, 256, 3, stride=2)),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = Reduction(
            nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 384, 3, stride=2)),
            nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, stride=2)),
            nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, padding=1), ConvUnit(256, 256, 3, stride=2)),
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(scale=1.0, last=True)
        self.last_linear = nn.Linear(1792, features, bias=False)
        self.last_bn = nn.BatchNorm1d(features, eps=1e-3)

    def forward(self, crops: Tensor) -> Tensor:
        """Features of faces, not normalised.

        Args:
            crops: (B, 3, 160, 160), RGB, (x - 127.5) / 128 of 8-bit values.

        Returns:
            (B, features).
        """
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(crops)))
        x = F.max_pool2d(x, 3, 2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        x = F.dropout(x.mean((2, 3)), 0.6, self.training)
        return self.last_bn(self.last_linear(x))
