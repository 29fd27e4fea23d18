"""Bundles: folders that hold the weights of every part.

A bundle is known by its file names, ours or the published ones. Ours also has a ``bundle.json``
with each file's SHA-256, which is checked by ``verify`` (and by ``face2voice models verify``).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from .errors import CheckpointError
from .files import write_atomically

ROOT = Path(__file__).parent
MANIFEST = "bundle.json"
LANDMARKS_5 = ROOT / "landmarks" / "shape_predictor_5_face_landmarks.dat"
"""dlib's five-point landmark model, which every bundle's photos are cropped with."""

FILES: Mapping[str, tuple[str, ...]] = {
    "face_encoder": ("face_encoder.safetensors", "lip2speech_final.pth"),
    "speech_encoder": ("speech_encoder.safetensors", "encoder.pt"),
    "synthesizer": ("synthesizer.safetensors", "synthesizer.pt"),
    "equalizer": ("equalizer.safetensors",),
    "vocoder": ("vocoder.safetensors", "vocoder.pt"),
    "g2p": ("g2p.safetensors",),
    "voice_encoder": ("voice_encoder.safetensors", "voice_encoder.pt"),
    "face_decoder": ("face_decoder.safetensors", "face_decoder.pt"),
    "vgg_face": ("vgg_face.safetensors",),
    "voice_decoder": ("voice_decoder.safetensors",),
    "voices": ("voices.npz",),
    "calibration": ("calibration.safetensors",),
}
"""Part -> names its file may have, the first one found being taken."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A folder with weights."""

    name: str
    folder: Path

    def find(self, part: str) -> Path | None:
        """The file of a part (a key of `FILES`), or None if the bundle has none."""
        candidates = (self.folder / name for name in FILES[part])
        return next((path for path in candidates if path.is_file()), None)

    def path(self, part: str) -> Path:
        """The file of a part; CheckpointError, naming what was looked for, if the bundle has none."""
        path = self.find(part)
        if path is None:
            names = " or ".join(FILES[part])
            raise CheckpointError(f"{self.folder}: no {part.replace('_', ' ')} in this bundle; it needs {names}")
        return path

    @property
    def parts(self) -> dict[str, Path]:
        """Part -> file, of the parts that are there."""
        return {part: path for part in FILES if (path := self.find(part))}

    def verify(self) -> dict[Path, bool | None]:
        """File -> whether its SHA-256 is the recorded one; None where none is recorded."""
        recorded = self._recorded()
        found = {path: None for path in self.parts.values()}
        for name, digest in recorded.items():
            path = self.folder / name
            found[path] = path.is_file() and sha256(path) == digest
        return found

    def record(self) -> None:
        """Writes the SHA-256 of every part to ``bundle.json``."""
        digests = {path.name: sha256(path) for path in self.parts.values()}
        write_atomically(self.folder / MANIFEST, (json.dumps({"sha256": digests}, indent=2) + "\n").encode())

    def _recorded(self) -> dict[str, str]:
        path = self.folder / MANIFEST
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text())["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged ({error})") from error


def find_bundle(name: str | Path) -> Bundle:
    """A bundle by its name below ``savedmodels/``, or any folder laid out like one.

    Files dropped straight into ``savedmodels/`` are the bundle ``published``.

    Raises:
        CheckpointError: no such bundle; the known ones are listed.
    """
    known = {bundle.name: bundle for bundle in list_bundles()}
    if str(name) in known:
        return known[str(name)]
    folder = Path(name)
    if not folder.is_dir():
        raise CheckpointError(f"{name}: no such bundle or folder; bundles here: {', '.join(known) or 'none'}")
    bundle = Bundle(folder.name, folder)
    if not bundle.parts:
        wanted = ", ".join(names[-1] for names in FILES.values())
        raise CheckpointError(f"{folder}: no weights in this folder; a bundle holds files such as {wanted}")
    return bundle


def list_bundles() -> list[Bundle]:
    """The bundles below ``savedmodels/``, the published weights (if dropped in) last."""
    candidates = [Bundle(path.name, path) for path in sorted(ROOT.iterdir()) if path.is_dir()]
    candidates.append(Bundle("published", ROOT))
    return [bundle for bundle in candidates if bundle.parts]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
