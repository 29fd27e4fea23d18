"""The weights, and the one door to them."""

from .bundles import LANDMARKS_5, Bundle, find_bundle, list_bundles
from .checkpoints import Checkpoint, read_checkpoint, write_arrays, write_atomically, write_checkpoint
from .errors import CheckpointError, Face2VoiceError, InputError

__all__ = [
    "LANDMARKS_5",
    "Bundle",
    "Checkpoint",
    "CheckpointError",
    "Face2VoiceError",
    "InputError",
    "find_bundle",
    "list_bundles",
    "read_checkpoint",
    "write_arrays",
    "write_atomically",
    "write_checkpoint",
]
