"""What can be trained on preprocessed records: a task and a schedule for each network."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder import face_decoder as lip2speech
from encoder.audio import prepare
from encoder.ge2e import GE2ETask
from encoder.train import FaceSpeakerTask, Person
from savedmodels import InputError
from savedmodels.bundles import sha256
from synthesizer import Tacotron, TacotronDims
from synthesizer.text import CHARACTERS, PHONES
from synthesizer.train import Example, TacotronTask
from vocoder import WaveRNN, WaveRNNDims
from vocoder.train import Recording, WaveRNNTask

from .preprocess import Prepared
from .recipes.default import FACE_ENCODER, SPEECH_ENCODER, SYNTHESIZER, VOCODER
from .recipes.speech2face import ADULT
from .speech2face import decoder, voice_encoder
from .speech2face.audio import to_loudness
from .speech2face.decoder import FaceDecoder, FaceDecoderDims
from .speech2face.descriptor import load_descriptor
from .speech2face.judges import sex_classifier
from .speech2face.pairing import MODES, pair_by_sex_and_age, pair_people
from .speech2face.portraits import Portraits
from .speech2face.train import (
    NARROW_LOSS,
    PUBLISHED_LOSS,
    FaceDecoderLoss,
    FaceDecoderTask,
    Table,
    VoiceEncoderLoss,
    VoiceEncoderTask,
)
from .speech2face.vggface import VGGFace
from .speech2face.voice_encoder import AstVoiceEncoder, AstVoiceEncoderDims, VoiceEncoder, VoiceEncoderDims
from .training import Task

log = logging.getLogger(__name__)

_KEPT = 1024  # records in memory
_SHARE_HELD_OUT = 0.05  # of utterances or people, where the corpus itself holds none out
_MOST_HELD_OUT = 64  # utterances
_MOST_PEOPLE_HELD_OUT = 20
_UTTERANCES_HELD_OUT = 8  # of each of them
_MOST_PORTRAITS_HELD_OUT = 64  # people; retrieval among 20 tells little
SEX_AND_AGE = "sex-and-age"

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
        face_encoder: what described the faces (face-decoder, voice-encoder).
        decoder: checkpoint of the face decoder whose first layers compare voices and faces
            (voice-encoder); None leaves that part out of the loss.
        pairing: a mode of `pair_people` or "sex-and-age" (voice-encoder); None takes "all-to-all" if
            there are people who are both heard and seen.
    """

    start: Path | None = None
    size: str = "default"
    batch_size: int | None = None
    legacy_targets: bool = False
    seed: int = 0
    face_encoder: Path | None = None
    decoder: Path | None = None
    pairing: str | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """One network's training.

    Attributes:
        build: the task on a folder of records.
        sizes: name -> dimensions.
        learning_rate, clip, optimizer: see `training.Schedule`; the rate is for a start from nothing.
    """

    build: Callable[["Stage", Prepared, Options], Task]
    sizes: dict[str, Any]
    learning_rate: float = 1e-3
    clip: float = 1.0
    optimizer: str = "adam"

    def network(self, network: type, options: Options, **dims: Any) -> nn.Module:
        """A new one or the one to go on from, ready to learn."""
        if options.start:
            return network.from_checkpoint(options.start).requires_grad_(True).train()
        torch.manual_seed(options.seed)
        return network(dataclasses.replace(self.dims(options), **dims))

    def dims(self, options: Options) -> Any:
        """Those of the size; InputError if there is none of that name."""
        if options.size not in self.sizes:
            raise InputError(f"no size {options.size!r}: choose one of {', '.join(self.sizes)}")
        return self.sizes[options.size]


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
        voices = voices or [i for i in faces if data.record(i, "raw")]
        if faces and voices:
            people[speaker] = Person(faces, voices)
    learned, apart = _split_people(data, people)
    target = "legacy_raw" if options.legacy_targets else "raw"
    everything = range(len(data))
    channels = {"channels": (32, 16, 8, 8, 8)} if options.size == "tiny" else {}
    return FaceSpeakerTask(
        stage.network(FaceSpeakerEncoder, options),
        Records(data, everything, lambda record: record["crops"]),
        Records(data, everything, lambda record: record[target]),
        list(learned.values()),
        list(apart.values()),
        lip2speech.FaceDecoder(lip2speech.FaceDecoderDims(**channels)),
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
        envelope=4.0,
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


# ---- speech to face


def _face_decoder(stage: Stage, data: Prepared, options: Options) -> Task:
    describer, features = _describer(data, options)
    network = stage.network(FaceDecoder, options, feature=features)
    _check_feature(options.start, network, features)
    portraits = _portraits(data).with_points(network.dims.points)
    if options.start:
        portraits = portraits.on_mean(network.mean_landmarks.numpy())
    learned, apart = (
        portraits.only(np.isin(portraits.which, [i for mine in people.values() for i in mine]))
        for people in _split_people(data, data.speakers(), most=_MOST_PORTRAITS_HELD_OUT)
    )
    weights = FaceDecoderLoss() if network.residual else PUBLISHED_LOSS
    batch_size = options.batch_size or 16
    return FaceDecoderTask(network, learned, describer, weights, apart, batch_size, fresh=options.start is None)


def _portraits(data: Prepared) -> Portraits:
    """All frames with their landmarks, which can only be found together: done once, and kept in the folder."""
    kept = data.folder / f"portraits-{sha256(data.folder / 'index.jsonl')[:16]}.npz"
    if kept.is_file():
        return Portraits.load(kept)
    log.info("%s: finding the landmarks of %d portraits, once", data.folder, len(data))
    records = [data.record(i) for i in range(len(data))]
    frames, five, features = (np.concatenate([r[name] for r in records]) for name in ("crops", "points", "features"))
    which = np.repeat(np.arange(len(records)), [len(record["crops"]) for record in records])
    portraits = Portraits.of_frames(frames, five, features, which)
    try:
        portraits.save(kept)
    except OSError as error:  # they can be found again
        log.warning("%s: cannot be written (%s); the next run will look for them anew", kept, error.strerror)
    return portraits


def _voice_encoder(stage: Stage, data: Prepared, options: Options) -> Task:
    describer, features = _describer(data, options)
    faces = {i: record["feature"] for i in range(len(data)) if (record := data.record(i, "feature"))}
    pairing, people, shown = _pair(data, list(faces), options.pairing)
    seen = np.stack([faces[i] for i in shown])

    network = _any_voice_encoder(stage, options, feature=features, final_relu=bool((seen >= 0).all()))
    _check_feature(options.start, network, features)
    is_vgg = isinstance(describer, VGGFace)
    weights = VoiceEncoderLoss() if is_vgg else NARROW_LOSS
    face_decoder = options.decoder and FaceDecoder.from_checkpoint(options.decoder)
    if face_decoder:
        _check_feature(options.decoder, face_decoder, features)
    else:
        log.info("no face decoder to compare voices and faces in; that part of the loss is left out")
        weights = dataclasses.replace(weights, decoder=0.0)

    def clips_and_table(people: dict[str, list[int]]) -> tuple[Records, Table]:
        indices = [i for mine in people.values() for i in mine]
        return Records(data, indices, functools.partial(_clip, trim=network.dims.trim)), pairing(indices)

    learned, apart = _split_people(data, people)
    clips, table = clips_and_table(learned)
    sexes = [data.entries[i].sex for i in shown]
    known = [i for i, sex in enumerate(sexes) if sex]
    return VoiceEncoderTask(
        network,
        clips,
        seen,
        table,
        face_decoder,
        weights,
        describer.fc8 if is_vgg else None,
        options.batch_size or 16,
        clips_and_table({name: mine[:_UTTERANCES_HELD_OUT] for name, mine in apart.items()}),
        sex_classifier(seen[known], [sexes[i] for i in known]) if {"f", "m"} <= set(sexes) else None,
        fresh=options.start is None,
    )


def _pair(
    data: Prepared, faces: list[int], wanted: str | None
) -> tuple[Callable[[list[int]], Table], dict[str, list[int]], list[int]]:
    """Which clips are shown which faces.

    Returns:
        clips' records to their table; speakers who have a face to be shown, with their clips; the
        records of the faces, the columns of the table.
    """
    entries = data.entries
    heard = {speaker: [i for i in mine if entries[i].length] for speaker, mine in data.speakers().items()}
    own = {entries[i].speaker for i in faces}
    mode = wanted or ("all-to-all" if any(heard[speaker] for speaker in own) else SEX_AND_AGE)
    if mode not in (*MODES, SEX_AND_AGE):
        raise InputError(f"no pairing {mode!r}: choose one of {', '.join(MODES)}, {SEX_AND_AGE}")
    if mode in MODES:
        people = {speaker: mine for speaker, mine in heard.items() if mine and speaker in own}

        def table(clips: list[int]) -> Table:
            return pair_people([entries[i].speaker for i in clips], [entries[i].speaker for i in faces], mode)
    else:
        faces = [i for i in faces if entries[i].split == "train" and entries[i].sex] or faces
        sexes = {entries[i].sex for i in faces}
        youngest = min((entries[i].age for i in faces if entries[i].age is not None), default=ADULT)
        # A child is shown no adult's face, were it the nearest in age.
        suits = [e.sex in sexes - {None} and (e.age is None or e.age >= min(ADULT, youngest)) for e in entries]
        people = {speaker: able for speaker, mine in heard.items() if (able := [i for i in mine if suits[i]])}

        def table(clips: list[int]) -> Table:
            kinds = [[(entries[i].sex, entries[i].age) for i in indices] for indices in (clips, faces)]
            return pair_by_sex_and_age(*kinds)

    if not people:
        raise InputError(
            f"{data.folder}: no clip has a face to go with it ({mode}); give people who are both heard and seen, "
            "or speech and portraits of known sex"
        )
    return table, people, faces


def _any_voice_encoder(stage: Stage, options: Options, **dims: Any) -> VoiceEncoder | AstVoiceEncoder:
    if options.start:
        return voice_encoder.load_voice_encoder(options.start).requires_grad_(True).train()
    is_ast = isinstance(stage.dims(options), AstVoiceEncoderDims)
    return stage.network(AstVoiceEncoder if is_ast else VoiceEncoder, options, **dims)


def _clip(record: dict[str, np.ndarray], trim: bool) -> np.ndarray:
    """As `speech2face.audio.load_clip` gives it."""
    samples = record["samples"].astype(np.float32) / 32767
    return to_loudness(prepare(samples) if trim else samples)


def _describer(data: Prepared, options: Options) -> tuple[nn.Module, int]:
    """What described a folder's faces, and how many numbers it gives."""
    if sha256(options.face_encoder) != data.settings["face_encoder"]:
        raise InputError(
            f"{options.face_encoder}: not what described the faces in {data.folder}; give that with --face-encoder"
        )
    return load_descriptor(options.face_encoder)


def _check_feature(path: Path | None, network: nn.Module, features: int) -> None:
    if network.dims.feature != features:
        raise InputError(f"{path}: made for {network.dims.feature} numbers of a face, the records hold {features}")


# ---- who is held out


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


def _split_people(
    data: Prepared, people: dict[str, Item], at_least: int = 1, most: int = _MOST_PEOPLE_HELD_OUT
) -> tuple[dict, dict]:
    """People to learn from and people held out, who have at least so many records."""
    records = data.speakers()
    split = {name: data.entries[records[name][0]].split for name in people}
    able = sorted(name for name in people if len(records[name]) >= at_least)
    apart = [name for name in able if split[name] != "train"]
    if len(apart) < 2:  # one person by himself cannot be mistaken for another
        apart = able
    count = len(apart) if apart is not able else max(2, round(_SHARE_HELD_OUT * len(people)))
    drawn = np.random.default_rng(0).permutation(np.array(apart))[: min(count, most)].tolist()
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
        learning_rate=3e-3,
        optimizer="muon",
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
    "face-decoder": Stage(
        _face_decoder,
        {
            "default": FaceDecoderDims(),
            "published": decoder.PUBLISHED,
            "tiny": FaceDecoderDims(shared=(32,), landmarks=(32,), channels=(16, 8, 8, 8, 8, 8)),
        },
        learning_rate=2e-3,
    ),
    "voice-encoder": Stage(
        _voice_encoder,
        {
            "default": VoiceEncoderDims(),
            "published": voice_encoder.PUBLISHED,
            "ast": AstVoiceEncoderDims(),
            "tiny": VoiceEncoderDims(channels=(8, 8, 8), strides=(4, 4, 4), pools=(1, 1, 1), hidden=16),
        },
    ),
}
