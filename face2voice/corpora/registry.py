"""The corpora by name."""

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from savedmodels import InputError

from . import faces, speech
from .manifest import read_manifest
from .record import Utterance


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a corpus lies on a disk.

    Attributes:
        read: its folder (or, for a manifest, its file) -> utterances, in a fixed order.
        holds: what that folder holds, for messages.
    """

    read: Callable[[Path], Iterable[Utterance]]
    holds: str


CORPORA: Mapping[str, Layout] = {
    "librispeech": Layout(speech.librispeech, "train-clean-100/SPEAKER/CHAPTER/*.flac or other subsets"),
    "libritts": Layout(speech.libritts, "train-clean-100/SPEAKER/CHAPTER/*.wav or other subsets"),
    "vctk": Layout(speech.vctk, "speaker-info.txt, txt/ and wav48/ or wav48_silence_trimmed/"),
    "ljspeech": Layout(speech.ljspeech, "metadata.csv and wavs/"),
    "speechocean762": Layout(speech.speechocean762, "train/wav.scp, test/wav.scp and WAVE/"),
    "voxceleb1": Layout(faces.voxceleb, "wav/idNNNNN/VIDEO/*.wav, unzippedFaces/, vox1_meta.csv"),
    "voxceleb2": Layout(faces.voxceleb, "aac/idNNNNN/VIDEO/*.m4a, mp4/, vox2_meta.csv"),
    "hq-voxceleb": Layout(faces.voxceleb, "vox1/masked_faces/NAME/*.jpg, vox2/ and their meta.csv"),
    "avspeech": Layout(faces.avspeech, "avspeech_train.csv or avspeech_test.csv and downloaded clips ID_START_END.mp4"),
    "lrw": Layout(faces.lrw, "lipread_mp4/WORD/train/*.mp4"),
    "grid": Layout(faces.grid, "s1/*.mpg and, if at hand, *.wav and *.align"),
    "lrs3": Layout(faces.lrs3, "pretrain/VIDEO/*.mp4 or trainval/ or test/"),
    "voteview": Layout(faces.voteview, "members.csv and images/"),
    "people": Layout(faces.people, "a folder of clips and photos for each person"),
    "manifest": Layout(read_manifest, "JSON lines"),
}


def read_corpus(name: str, path: Path) -> Iterator[Utterance]:
    """The utterances of a corpus, one by one in a fixed order, however many.

    Args:
        name: a key of `CORPORA`.
        path: its folder; of a manifest, the file.

    Raises:
        InputError: no such corpus or path, another layout, or not a single file of those that its
            tables name; later on, a table that is not as published. A few missing files are left
            to the caller.
    """
    if name not in CORPORA:
        raise InputError(f"no corpus {name!r}: choose one of {', '.join(CORPORA)}")
    layout, path = CORPORA[name], Path(path).absolute()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give what holds {layout.holds}")
    utterances, unseen = _read(name, path), []
    for utterance in utterances:
        unseen.append(utterance)
        if any(file.is_file() for file in utterance.files):
            return itertools.chain(unseen, utterances)
    if not unseen:
        raise InputError(f"{path}: nothing of {name} in it; give what holds {layout.holds}")
    first = unseen[0].files[0]
    raise InputError(f"{path}: lists {len(unseen)} clips but holds none of them; is {first} unpacked elsewhere?")


def _read(name: str, path: Path) -> Iterator[Utterance]:
    try:
        yield from CORPORA[name].read(path)
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: a table in it is not as {name} publishes it ({error!r}); fetch it again") from error
