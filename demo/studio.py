"""The models that all visitors share: read once, used by one at a time."""

import collections
import secrets
import threading
from pathlib import Path

from encoder.face import Face, FaceDetector, find_detector
from face2voice import Face2Voice
from face2voice.limits import LESSONS_KEPT
from face2voice.pipeline import find_device
from face2voice.speech2face import Speech2Face
from face2voice.voicespace import VoiceSpace
from savedmodels import InputError, find_bundle, list_bundles


class Studio:
    """Models by bundle and device.

    Attributes:
        turn: held while networks compute, so that two requests do not slow each other down.
        bundles: names a visitor may choose, the first being the default.
        device: the default, "auto", "cpu" or "cuda".

    Raises:
        CheckpointError: no such bundle.
        InputError: no such device.
    """

    def __init__(self, bundle: str | Path = "default", device: str = "auto"):
        first = find_bundle(bundle)
        self._folders = {first.name: first.folder}
        for other in list_bundles():
            if other.find("synthesizer"):
                self._folders.setdefault(other.name, other.folder)
        self.bundles = tuple(self._folders)
        self.devices = ("auto", "cpu", "cuda") if find_device().type == "cuda" else ("auto", "cpu")
        self.device = device
        find_device(device)
        self.turn = threading.RLock()
        self._lessons: collections.OrderedDict[str, Path] = collections.OrderedDict()
        self._loaded: dict[tuple[str, str], Face2Voice] = {}
        self._portraitist: Speech2Face | None = None
        self._detector: FaceDetector | None = None

    def tts(self, bundle: str | None = None, device: str | None = None) -> Face2Voice:
        """The networks of a bundle, read when first asked for.

        Raises:
            InputError: not one of `bundles`, nor a lesson's; no such device.
        """
        bundle, device = bundle or self.bundles[0], device or self.device
        with self.turn:
            folder = self._folders.get(bundle) or self._lessons.get(bundle)
            if folder is None:
                raise InputError(f"no bundle {str(bundle)[:40]!r} here; choose {' or '.join(self.bundles)}")
            key = (bundle, find_device(device).type)
            if key not in self._loaded:
                self._loaded[key] = Face2Voice.load(folder, device)
            return self._loaded[key]

    def folder(self, bundle: str | None = None) -> Path:
        """Where a bundle's files are; errors as `tts`."""
        return self.tts(bundle).bundle.folder

    def voice_space(self) -> VoiceSpace:
        """The voices that are known by name."""
        with self.turn:
            return self.tts().voice_space()

    def speech2face(self) -> Speech2Face:
        """The networks of the default bundle's reverse direction; InputError while it has none."""
        with self.turn:
            bundle = self.tts().bundle
            if not (bundle.find("face_decoder") and bundle.find("voice_encoder")):
                raise InputError(
                    "drawing faces is not possible here yet: these models have no face decoder. Speak and Clone "
                    "work without it"
                )
            self._portraitist = self._portraitist or Speech2Face.load(bundle.folder, self.device)
            return self._portraitist

    def detector(self) -> FaceDetector:
        """The one that all photos are looked at with."""
        with self.turn:
            self._detector = self._detector or find_detector()
            return self._detector

    def adopt(self, folder: Path) -> str:
        """Takes in the bundle a visitor made; its name cannot be guessed. The oldest of many is dropped."""
        name = f"lesson-{secrets.token_urlsafe(9)}"
        with self.turn:
            self._lessons[name] = folder
            while len(self._lessons) > LESSONS_KEPT:
                oldest, _ = self._lessons.popitem(last=False)
                self._loaded = {key: tts for key, tts in self._loaded.items() if key[0] != oldest}
        return name


class FoundFaces:
    """A detector that has looked already: one photo's faces need not be found again."""

    def __init__(self, faces: list[Face]):
        self._faces = faces

    def detect(self, _photo: object) -> list[Face]:
        """The faces found before."""
        return list(self._faces)
