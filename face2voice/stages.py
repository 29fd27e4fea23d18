"""What can be trained on preprocessed records: a task and a schedule for each network."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder.face_decoder import FaceDecoder, FaceDecoderDims
from encoder.ge2e import GE2ETask
from encoder.train import FaceSpeakerTask, Person
from savedmodels import InputError
from synthesizer import Tacotron, TacotronDims
from synthesizer.text import CHARACTERS, PHONES
from synthesizer.train import Example, TacotronTask
from vocoder import WaveRNN, WaveRNNDims
from vocoder.train import Recording, WaveRNNTask

from .preprocess import Prepared
from .recipes.default import FACE_ENCODER, SPEECH_ENCODER, SYNTHESIZER, VOCODER
from .training import Task

_KEPT = 1024  # records in memory
_SHARE_HELD_OUT = 0.05  # of utterances or people, where the corpus itself holds none out
_MOST_HELD_OUT = 64  # utterances
_MOST_PEOPLE_HELD_OUT = 20
_UTTERANCES_HELD_OUT = 8  # of each of them

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is chosen for one training.

    Attributes:
        start: checkpoint to go on from; None starts from nothing.
        size: of a network that starts from nothing: "default" as in the default bundle, "published",
            or "tiny" to try things out.
        batch_size: items a step: utterances, segments, or people; None takes the stage's own.
        legacy_targets: voices as Lip2Speech's training had them (face-encoder).
        seed: of the first weights.
    """

    start: Path | None = None
    size: str = "default"
    batch_size: int | None = None
    legacy_targets: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One network's training.

    Attributes:
        build: the task on a folder of records.
        sizes: name -> dimensions.
        learning_rate, clip: see `training.Schedule`.
    """

    build: Callable[["Stage", Prepared, Options], Task]
    sizes: dict[str, Any]
    learning_rate: float = 1e-3
    clip: float = 1.0

    def network(self, network: type, options: Options, **dims: Any) -> nn.Module:
        """A new one or the one to go on from, ready to learn."""
        if options.start:
            return network.from_checkpoint(options.start).requires_grad_(True).train()
        if options.size not in self.sizes:
            raise InputError(f"no size {options.size!r}: choose one of {', '.join(self.sizes)}")
        torch.manual_seed(options.seed)
        return network(dataclasses.replace(self.sizes[options.size], **dims))


class Records(Sequence[Item]):
    """Some of a folder's records as one kind of item, read from the disk when asked for."""

    def __init__(self, prepared: Prepared, indices: Sequence[int], make: Callable[[dict[str, np.ndarray]], Item]):
        self.indices = indices
        self._read = functools.lru_cache(_KEPT)(lambda i: make(prepared.record(i)))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Item:
        return self._read(self.indices[i])


def build_task(stage: str, data: Path, options: Options) -> Task:
    """The task that trains a stage on a preprocessed folder.

    Raises:
        InputError: no such stage or size; the folder is missing, unfinished or of another stage, or
            holds too little; the checkpoint to start from does not fit.
    """
    chosen = find_stage(stage)
    return chosen.build(chosen, Prepared.open(data, stage), options)


def find_stage(name: str) -> Stage:
    """InputError if there is none of that name."""
    if name not in STAGES:
        raise InputError(f"no stage {name!r}: choose one of {', '.join(STAGES)}")
    return STAGES[name]


def _speech_encoder(stage: Stage, data: Prepared, options: Options) -> Task:
    learned, apart = _split_people(data, data.speakers(), at_least=2)

    def utterances(people: dict[str, list[int]]) -> tuple[Records, list[str]]:
        indices = [i for mine in people.values() for i in mine]
        return Records(data, indices, lambda record: record["mels"]), [data.entries[i].speaker for i in indices]

    few = {speaker: mine[:_UTTERANCES_HELD_OUT] for speaker, mine in apart.items()}
    network = stage.network(SpeechSpeakerEncoder, options)
    return GE2ETask(network, *utterances(learned), utterances(few), options.batch_size or 16)


def _face_encoder(stage: Stage, data: Prepared, options: Options) -> Task:
    people = {}
    for speaker, indices in data.speakers().items():
        faces = [i for i in indices if data.entries[i].length]
        # Records without a crop are clips; of the others only those made of videos have a voice.
        voices = [i for i in indices if not data.entries[i].length]
        voices = voices or [i for i in faces if "raw" in data.record(i)]
        if faces and voices:
            people[speaker] = Person(faces, voices)
    learned, apart = _split_people(data, people)
    target = "legacy_raw" if options.legacy_targets else "raw"
    everything = range(len(data))
    dims = FaceDecoderDims(channels=(32, 16, 8, 8, 8)) if options.size == "tiny" else FaceDecoderDims()
    return FaceSpeakerTask(
        stage.network(FaceSpeakerEncoder, options),
        Records(data, everything, lambda record: record["crops"]),
        Records(data, everything, lambda record: record[target]),
        list(learned.values()),
        list(apart.values()),
        FaceDecoder(dims),
        freeze=options.start is not None,  # a backbone that has learned nothing must learn
        batch_size=options.batch_size or 64,
    )


def _synthesizer(stage: Stage, data: Prepared, options: Options) -> Task:
    table = CHARACTERS if data.settings["symbols"] == "characters" else PHONES
    network = stage.network(Tacotron, options, symbols=table.symbols, spelling=table.spelling)
    if network.dims.symbols != table.symbols:
        raise InputError(
            f"{options.start}: reads other symbols than {data.folder} holds; "
            "run face2voice preprocess again, with --symbols characters for a published checkpoint"
        )

    def example(record: dict[str, np.ndarray]) -> Example:
        return Example(record["symbols"], record["mel"], record["voice"])

    learned, apart = _split(data)
    schedules = {"default": ((0.0, 5), (0.3, 4), (0.6, 3)), "published": ((0.0, 7), (0.2, 5), (0.4, 3), (0.6, 2))}
    own = ((0.0, network.dims.r),)
    return TacotronTask(
        network,
        Records(data, learned, example),
        options.batch_size or 32,
        own if options.start else schedules.get(options.size, own),
        own_frames=0.7,
        frames=[data.entries[i].length for i in learned],
        held_out=Records(data, apart, example),
    )


def _vocoder(stage: Stage, data: Prepared, options: Options) -> Task:
    def recording(record: dict[str, np.ndarray]) -> Recording:
        return Recording(record["samples"], record["mel"])

    network = stage.network(WaveRNN, options)
    learned, apart = _split(data)
    frames = [data.entries[i].length // network.dims.hop + 1 for i in learned]
    held_out = Records(data, apart, recording)
    return WaveRNNTask(network, Records(data, learned, recording), options.batch_size or 32, 5, 3.0, frames, held_out)


def _split(data: Prepared) -> tuple[list[int], list[int]]:
    """Records to learn from and records held out: the corpus's own, or a few drawn at random."""
    apart = [i for i, entry in enumerate(data.entries) if entry.split != "train"]
    learned = [i for i, entry in enumerate(data.entries) if entry.split == "train"]
    if not learned:
        raise InputError(f"{data.folder}: holds no records of the split train; preprocess more of the corpus")
    drawn = np.random.default_rng(0).permutation(apart or learned)
    if not apart:
        apart = drawn[: min(_MOST_HELD_OUT, round(_SHARE_HELD_OUT * len(learned)))].tolist()
        learned = sorted(set(learned) - set(apart))
    return learned, drawn[: min(len(apart), _MOST_HELD_OUT)].tolist()


def _split_people(data: Prepared, people: dict[str, Item], at_least: int = 1) -> tuple[dict, dict]:
    """People to learn from and people held out, who have at least so many records."""
    records = data.speakers()
    split = {name: data.entries[records[name][0]].split for name in people}
    able = sorted(name for name in people if len(records[name]) >= at_least)
    apart = [name for name in able if split[name] != "train"] or able
    count = len(apart) if apart is not able else max(2, round(_SHARE_HELD_OUT * len(people)))
    drawn = np.random.default_rng(0).permutation(np.array(apart))[: min(count, _MOST_PEOPLE_HELD_OUT)].tolist()
    learned = {name: mine for name, mine in people.items() if split[name] == "train" and name not in drawn}
    if len(learned) < 2:
        raise InputError(f"{data.folder}: holds too few people to learn from and to measure by; give more")
    return learned, {name: people[name] for name in drawn}


STAGES = {
    "speech-encoder": Stage(
        _speech_encoder,
        {
            "default": SPEECH_ENCODER,
            "published": SpeechSpeakerEncoderDims(),
            "tiny": SpeechSpeakerEncoderDims(hidden=32, layers=1, embedding=32, log_mels=True),
        },
        clip=3.0,
    ),
    "face-encoder": Stage(
        _face_encoder,
        {
            "default": FACE_ENCODER,
            "published": FaceSpeakerEncoderDims(),
            "tiny": FaceSpeakerEncoderDims(backbone="dlib_resnet", features=16, hidden=16),
        },
        clip=10.0,
    ),
    "synthesizer": Stage(
        _synthesizer,
        {
            "default": SYNTHESIZER,
            "published": TacotronDims(r=7),
            "tiny": TacotronDims(
                **{"embedding": 16, "encoder": 16, "encoder_kernels": 2, "decoder": 16, "lstm": 32, "postnet": 16},
                **{"postnet_kernels": 2, "highways": 1, "max_r": 5, "r": 5},
            ),
        },
    ),
    "vocoder": Stage(
        _vocoder,
        {
            "default": VOCODER,
            "published": WaveRNNDims(),
            "published-mol": WaveRNNDims(mode="MOL"),
            "tiny": WaveRNNDims(bits=8, rnn=16, fc=16, compute=8, res_out=8, res_blocks=1),
        },
        learning_rate=3e-3,
        clip=4.0,
    ),
}
