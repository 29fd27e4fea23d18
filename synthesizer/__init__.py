"""What is said, and how: text and a voice to a mel spectrogram."""

from .model import Spoken, Tacotron, TacotronDims, TacotronOutput

__all__ = ["Spoken", "Tacotron", "TacotronDims", "TacotronOutput"]
