"""The weights, and the one door to them."""

from typing import TYPE_CHECKING

from .bundles import LANDMARKS_5, Bundle, find_bundle, list_bundles
from .errors import CheckpointError, Face2VoiceError, InputError
from .files import write_arrays, write_atomically

if TYPE_CHECKING:
    from .checkpoints import Checkpoint, read_checkpoint, write_checkpoint

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


def __getattr__(name: str) -> object:
    """What needs torch comes when it is asked for: a command line that is wrong should not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import checkpoints

    return getattr(checkpoints, name)
