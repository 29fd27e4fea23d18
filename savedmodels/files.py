"""Writing files that are whole at every moment."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np


def write_atomically(path: str | os.PathLike, content: bytes | memoryview) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Raises:
        OSError: it cannot be written; `filename` is `path`, or its folder if that is none.
    """
    path = Path(os.path.realpath(path))
    try:
        _write_and_replace(path, content)
    except OSError as error:
        if error.filename != str(path.parent):  # the temporary file's, or none, as of a full disk
            error.filename, error.filename2 = str(path), None
        raise


def write_arrays(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """An .npz file, by `write_atomically`."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(path, content.getbuffer())  # no copy: a voice bank's features take a gigabyte


def _write_and_replace(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp gives 0600, whatever the user's umask
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
