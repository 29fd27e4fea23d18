"""Whose voice it is: a photo of a face, or a clip of speech, to 256 numbers in GE2E space."""

from .face_model import FaceSpeakerEncoder, FaceSpeakerEncoderDims
from .speech_model import SpeechSpeakerEncoder, SpeechSpeakerEncoderDims

__all__ = ["FaceSpeakerEncoder", "FaceSpeakerEncoderDims", "SpeechSpeakerEncoder", "SpeechSpeakerEncoderDims"]
