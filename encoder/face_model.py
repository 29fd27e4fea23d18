"""Face -> the voice that suits it: 256 numbers in the space of the speech-speaker encoder.

The network is Lip2Speech's (`vgg_face`): a frozen face-recognition backbone and a small trained
projection. The published model uses `InceptionResnetV1`; ours uses `DlibResnet`.
"""

import dataclasses
import os
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import CheckpointError, read_checkpoint

from .dlib_resnet import DlibResnet
from .inception_resnet import InceptionResnetV1

_BACKBONES = {"inception_resnet_v1": InceptionResnetV1, "dlib_resnet": DlibResnet}


@dataclasses.dataclass(frozen=True)
class FaceSpeakerEncoderDims:
    """The numbers that rebuild a `FaceSpeakerEncoder`; the defaults are the published file's.

    Attributes:
        backbone: the face-recognition network.
        features: numbers it gives per face; 512 and 128 are the widths that were published.
        hidden: width of the projection's middle layer.
        embedding: numbers per voice.
    """

    backbone: Literal["inception_resnet_v1", "dlib_resnet"] = "inception_resnet_v1"
    features: int = 512
    hidden: int = 512
    embedding: int = 256

    def __post_init__(self) -> None:
        if self.backbone not in _BACKBONES:
            raise ValueError(f"backbone {self.backbone!r} is none of {', '.join(_BACKBONES)}")


class FaceSpeakerEncoder(nn.Module):
    """Upright face crops -> speaker embeddings.

    Every method takes crops as `encoder.face.faces_to_tensor` makes them: float RGB
    (B, 3, 160, 160), (x - 127.5) / 128 of 8-bit values, so within [-1, 1].
    """

    def __init__(self, dims: FaceSpeakerEncoderDims | None = None) -> None:
        super().__init__()
        self.dims = dims = dims or FaceSpeakerEncoderDims()
        self.resnet = _BACKBONES[dims.backbone](dims.features)
        self.projection_layer = nn.Sequential(
            nn.Linear(dims.features, dims.hidden), nn.GELU(), nn.Linear(dims.hidden, dims.embedding)
        )

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "FaceSpeakerEncoder":
        """Reads our own safetensors, or Lip2Speech's published file.

        Of the published file only the weights below ``vgg_face.`` are used; the prefix may be
        missing, and the classification layer (``resnet.logits``) may be there or not.

        Raises:
            CheckpointError: the file is missing, damaged or holds something else.
        """
        checkpoint = read_checkpoint(path)
        if checkpoint.network is not None:
            return checkpoint.build(cls, checkpoint.dims_as(FaceSpeakerEncoderDims, cls.__name__))
        if any(name.startswith("vgg_face.") for name in checkpoint.tensors):
            checkpoint = checkpoint.only("vgg_face.")
        elif not any(name.startswith("resnet.") for name in checkpoint.tensors):
            raise CheckpointError(f"{path}: no face-speaker encoder in it (weights named 'vgg_face.*')")
        logits = ("resnet.logits.weight", "resnet.logits.bias")
        return checkpoint.build(cls, FaceSpeakerEncoderDims(), ignore=logits)

    def features(self, crops: Tensor) -> Tensor:
        """What the backbone sees: (B, dims.features). Training the projection needs no more."""
        return self.resnet(crops)

    def forward(self, crops: Tensor) -> Tensor:
        """Raw embeddings (B, dims.embedding), of either sign: what the losses work on."""
        return self.projection_layer(self.features(crops))

    @torch.no_grad()
    def embed(self, crops: Tensor, legacy_app: bool = False) -> Tensor:
        """Voices that suit the faces; for use in eval mode, in which `from_checkpoint` returns.

        Args:
            crops: as for every method.
            legacy_app: feed the network what the first Face2Voice web app fed it; see
                `legacy_app_input`.

        Returns:
            (B, dims.embedding), not negative, of unit length; zeros for a face whose raw
            embedding has no positive number.
        """
        return unit(self(legacy_app_input(crops) if legacy_app else crops))


def unit(raw: Tensor) -> Tensor:
    """Raw embeddings (B, N) -> not negative and of unit length; zeros stay zeros."""
    return F.normalize(F.relu(raw), dim=1)


def legacy_app_input(crops: Tensor) -> Tensor:
    """Crops as the first Face2Voice web app (jh5-6/Face2Voice) presented them: BGR in [0, 1].

    The published network was trained on RGB in (x - 127.5) / 128, so this is a mistake kept for
    comparison with that app, bit for bit, and for nothing else.
    """
    return (crops.flip(1) * 128 + 127.5) / 255
