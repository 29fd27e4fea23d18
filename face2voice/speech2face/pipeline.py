"""Speech2Face: a clip of speech to a portrait, a photo to a normalised portrait, a photo to a sound."""

import dataclasses
import os

import numpy as np
import torch
from torch import Tensor, nn

from encoder.audio import Clip
from encoder.face import Photo, crop_face, faces_to_tensor, find_faces, load_photo, photo_name, pick_face
from face2voice.pipeline import BundleNetworks, Speech
from savedmodels import CheckpointError
from synthesizer.audio import mel_spectrogram, to_level

from .decoder import FaceDecoder
from .descriptor import load_descriptor
from .face2speech import VoiceDecoder
from .frame import FrameDescriptor, crop_frame, frames_to_tensor, tensor_to_frame
from .sheet import save_picture
from .voice_encoder import SpeechToFeature, load_voice_encoder


@dataclasses.dataclass(frozen=True, eq=False)
class Portrait:
    """A face that was made, not photographed. Of a voice it shows what is typical and identifies nobody.

    Attributes:
        image: uint8 RGB (224, 224, 3).
        landmarks: float32 (68 or 72, 2), x and y in pixels of the image.
        feature: float32 (features,), the face feature it was made from.
        texture: uint8 RGB (224, 224, 3), the face in the mean shape, before it was bent to the landmarks.
    """

    image: np.ndarray
    landmarks: np.ndarray
    feature: np.ndarray
    texture: np.ndarray

    def save(self, path: str | os.PathLike) -> None:
        """Writes a PNG that is marked as AI-generated; InputError if it cannot be written."""
        save_picture(self.image, path)


class Speech2Face(BundleNetworks):
    """Clip or photo to a portrait, photo to a sound.

    >>> s2f = Speech2Face.load("default")
    >>> s2f.portrait_from_speech("clip.wav").save("face.png")
    """

    # ---- to a portrait

    def portrait_from_speech(self, clip: Clip) -> Portrait:
        """A face that is typical for such a voice.

        Args:
            clip: path, or (samples, rate in Hz); its first 6 s of speech count.

        Raises:
            InputError: the clip cannot be read, is silent, too short or holds no speech.
            CheckpointError: the bundle lacks a part.
        """
        return self.portrait(self.feature_from_speech(clip))

    def portrait_from_face(self, photo: Photo, face: int | None = None) -> Portrait:
        """The face of a photo from the front, in even light: what its feature tells of it.

        Args:
            photo: path, PIL image or uint8 RGB array (H, W, 3).
            face: which face, 0 being the largest; the largest if None.

        Raises:
            InputError: the photo cannot be read or shows no such face.
            CheckpointError: the bundle lacks a part.
        """
        return self.portrait(self.feature_from_face(photo, face))

    @torch.inference_mode()
    def portrait(self, feature: np.ndarray) -> Portrait:
        """The portrait of a face feature (features,)."""
        decoder = self._decoder()
        decoded = decoder(torch.from_numpy(feature)[None].to(self.device))
        image, texture = (tensor_to_frame(made[0]) for made in (decoder.assemble(decoded), decoded.texture))
        return Portrait(image, decoded.landmarks[0].cpu().numpy(), feature, texture)

    # ---- to a feature

    def feature_from_speech(self, clip: Clip) -> np.ndarray:
        """The face feature, float32 (features,), that suits a clip; errors as of `portrait_from_speech`."""
        encoder: SpeechToFeature = self._part("voice_encoder", load_voice_encoder)
        given, wanted = encoder.dims.feature, self._decoder().dims.feature
        if given != wanted:
            path = self.bundle.path("voice_encoder")
            raise CheckpointError(f"{path}: makes {given} numbers, the bundle's face decoder takes {wanted}")
        return encoder.feature_of(clip).cpu().numpy()

    @torch.inference_mode()
    def feature_from_face(self, photo: Photo, face: int | None = None) -> np.ndarray:
        """The face feature, float32 (features,), of a photo; errors as of `portrait_from_face`."""
        pixels = load_photo(photo)
        found = pick_face(find_faces(pixels, self._own_detector()), face, photo_name(photo))
        describer = self._describer()
        if isinstance(describer, FrameDescriptor):  # its own crop is sharper than one cut from a frame
            crops = faces_to_tensor(crop_face(pixels, found)).to(self.device)
            return describer.backbone(crops)[0].cpu().numpy()
        return self.describe(crop_frame(pixels, found)[0])

    @torch.inference_mode()
    def describe(self, frame: np.ndarray) -> np.ndarray:
        """The face feature, float32 (features,), of a frame uint8 (224, 224, 3), such as a portrait's image."""
        return self._describer()(frames_to_tensor(frame).to(self.device))[0].cpu().numpy()

    # ---- to a sound

    def speech_from_face(self, photo: Photo, face: int | None = None) -> Speech:
        """Six seconds of a voice that suits a face: its sound, not words.

        Raises:
            InputError: the photo cannot be read or shows no such face.
            CheckpointError: the bundle has no voice decoder.
        """
        decoder: VoiceDecoder = self._part("voice_decoder", VoiceDecoder.from_checkpoint)
        feature = self.feature_from_face(photo, face)
        if decoder.dims.feature != len(feature):
            path = self.bundle.path("voice_decoder")
            raise CheckpointError(f"{path}: takes {decoder.dims.feature} numbers, a face has {len(feature)} here")
        samples = to_level(decoder.speak(torch.from_numpy(feature)[None].to(self.device))[0].cpu().numpy())
        return Speech(samples, mel_spectrogram(samples), (), (), False, {})

    # ---- parts

    def _decoder(self) -> FaceDecoder:
        return self._part("face_decoder", FaceDecoder.from_checkpoint)

    def _describer(self) -> nn.Module:
        """The network that gives the feature the bundle's decoder takes: frames (B, 3, 224, 224) to (B, features)."""
        if "describer" not in self._parts:
            describer, given = load_descriptor(self.bundle.find("vgg_face") or self.bundle.path("face_encoder"))
            wanted = self._decoder().dims.feature
            if given != wanted:
                path = self.bundle.path("face_decoder")
                raise CheckpointError(f"{path}: takes {wanted} numbers, the bundle's faces have {given}")
            self._parts["describer"] = describer.to(self.device)
        return self._parts["describer"]


def similarity(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> float:
    """Cosine of two features."""
    a, b = np.asarray(a), np.asarray(b)
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
