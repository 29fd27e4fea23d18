"""Fine-tuning: from a user's own photos and clips to a bundle that speaks."""

import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoder import FaceSpeakerEncoder, SpeechSpeakerEncoder
from encoder.audio import SAMPLE_RATE
from encoder.calibration import Calibration
from encoder.face import faces_to_tensor
from encoder.face_model import unit
from encoder.train import FaceSpeakerTask, Person, ProjectionTask
from savedmodels import Bundle, CheckpointError, InputError, find_bundle, read_checkpoint, write_checkpoint
from savedmodels.bundles import FILES, sha256
from synthesizer import Tacotron

from .corpora import Utterance, write_manifest
from .likeness import Result, chance, likeness, mean_voice
from .pairs import read_people
from .pipeline import find_device
from .preprocess import Prepared, Report, find_maker, preprocess
from .stages import Options, Records, build_task, find_stage
from .training import BEST_FILE, Advance, Hardware, Schedule, Task, fit
from .voice import Voice

SPEAKING = ("face_encoder", "speech_encoder", "synthesizer", "equalizer", "vocoder", "g2p")
"""What a bundle speaks with."""

VOICE_FILE = "voice.npz"

_KNOW_THE_BACKBONE = ("face_decoder", "voice_encoder", "voice_decoder")  # parts of Speech2Face
_MANY = 10  # people, of whom some can be held out
_MEASURED, _WATCHED = 0.2, 0.1  # shares of them
_ANCHOR = 0.01
_HEARD = 100  # clips that the mean voice of one speaker is taken from

STEPS, FROZEN_STEPS = 2000, 300
"""Of a training that is told neither steps nor time; the latter, with a frozen backbone."""

Progress = Callable[[float, float], None]
Preparing = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how fast a fine-tuning learns, and on what.

    Attributes:
        steps, seconds: whichever ends first; `STEPS` or `FROZEN_STEPS` if neither is given.
        learning_rate: the highest; what is usual for the part if None.
        batch_size: items a step; what is usual for the part if None, or for few people.
        device: "auto", "cpu" or "cuda".
        workers: processes that look at photos and listen to clips; 0 for this one.
        work: folder for everything in between; beside the bundle if None.
    """

    steps: int | None = None
    seconds: float = math.inf
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    work: Path | None = None

    def schedule(self, steps: int, learning_rate: float, **others: Any) -> Schedule:
        """With what is usual where the plan says nothing."""
        wanted = steps if self.steps is None and math.isinf(self.seconds) else self.steps
        rate = learning_rate if self.learning_rate is None else self.learning_rate
        return Schedule(self.seconds, rate, steps=math.inf if wanted is None else wanted, **others)


@dataclasses.dataclass(frozen=True)
class Start:
    """What a fine-tuning begins with.

    Attributes:
        part: that is to be trained, a key of `savedmodels.bundles.FILES`.
        checkpoint: of that part.
        others: the other parts -> their files.
    """

    part: str
    checkpoint: Path
    others: dict[str, Path]

    @classmethod
    def find(cls, start: str | Path, part: str) -> "Start":
        """A bundle by name, a folder laid out like one, or the checkpoint of the part alone.

        What a bundle speaks with and is not beside a checkpoint is taken from the default bundle.

        Raises:
            CheckpointError: no such bundle or file, or the part is not in it.
        """
        path = Path(start)
        if path.suffix and not path.is_dir():
            if not path.is_file():
                raise CheckpointError(f"{path}: no such checkpoint or bundle to start from")
            bundle = Bundle(path.parent.name, path.parent)
        else:
            bundle = find_bundle(start)
            path = bundle.path(part)
        fallback = {name: file for name, file in find_bundle("default").parts.items() if name in SPEAKING}
        if bundle.find("synthesizer"):
            fallback.pop("equalizer", None)  # it goes with its own synthesizer
        others = fallback | bundle.parts
        return cls(part, path, others).without([part])

    def without(self, parts: Collection[str]) -> "Start":
        """With fewer other parts."""
        others = {part: file for part, file in self.others.items() if part not in parts}
        return dataclasses.replace(self, others=others)


def finetune_face_encoder(
    pairs: str | Path | Sequence[Utterance],
    out: str | Path,
    start: str | Path = "default",
    freeze: str = "backbone",
    plan: Plan = Plan(),
    progress: Progress = lambda share, loss: None,
    preparing: Preparing = lambda done, total: None,
) -> Result:
    """Teaches the face encoder how people sound, from their photos and clips.

    Of ten people or more some are held out to measure by and some to stop by; of fewer a clip and a
    photo each, where there are several, to measure by. The same call again goes on where one that
    was cut short ended.

    Args:
        pairs: what `pairs.read_people` reads, or its utterances. Their splits count: "dev" is to stop
            by, "test" to measure by.
        out: folder of the new bundle.
        start: see `Start.find`.
        freeze: "backbone": the projection alone learns, from stored features, which takes seconds on
            a CPU. "none": all learns; for thousands of people, on a GPU.
        plan: its learning rate is usually 3e-4 (3e-5 without a frozen backbone).
        progress: called after each step with the share that is done, 0 to 1, and its loss.
        preparing: before the training, called with how many photos and clips are gone through, and of how many.

    Raises:
        InputError: a wrong path or option, nobody has both photos and clips that can be used, or the
            folder cannot be written to.
        CheckpointError: see `Start.find`.
    """
    if freeze not in ("backbone", "none"):
        raise InputError(f"no --freeze {freeze}: choose backbone or none")
    frozen = freeze == "backbone"
    begin = Start.find(start, "face_encoder")
    where = find_device(plan.device)
    encoder = FaceSpeakerEncoder.from_checkpoint(begin.checkpoint).to(where)
    calibration = begin.others.get("calibration")
    calibration = Calibration.from_checkpoint(calibration).to(where) if calibration else nn.Identity()
    out, work = _folders(out, plan.work, begin)
    utterances = read_people(Path(pairs)) if isinstance(pairs, str | os.PathLike) else pairs
    material = _gather(utterances, begin.others["speech_encoder"], work, plan.workers, preparing)
    split = split_people(material.people, material.splits, plan.seed)

    backbone = encoder.resnet
    if frozen:
        task, see = _frozen_lesson(encoder, material, split)
        save_seconds = 0.0 if split.watched else 120.0  # a step on features takes milliseconds
        schedule = plan.schedule(FROZEN_STEPS, 3e-4, save_seconds=save_seconds, patience=50)
    else:
        task, see = _whole_lesson(encoder, material, split, plan.batch_size or 64)
        schedule = plan.schedule(STEPS, 3e-5, patience=10)
    before = _measure(lambda faces: calibration(encoder.embed(faces)), see, material, split)
    keys = [entry.key for entry in material.data.entries]
    settings = freeze, schedule.learning_rate, plan.batch_size, plan.seed
    run = work / f"run-{_digest(sha256(begin.checkpoint), keys, *settings)}"
    hardware = Hardware(plan.device, workers=0 if frozen else None)
    best = fit(task, run, schedule, plan.seed, hardware, _read_loss(progress)).with_name(BEST_FILE)
    encoder.load_state_dict(read_checkpoint(best).tensors)
    after = _measure(encoder.to(where).eval().embed, see, material, split)
    encoder.resnet = backbone

    # The new encoder has learned from true voices, and what knows the old backbone's faces may not know the new one's.
    write_bundle(out, encoder, begin.without(["calibration"] if frozen else ["calibration", *_KNOW_THE_BACKBONE]))
    figures = (before, after, chance(len(split.measured))) if split.measured else ()
    return Result(out, split.held_out, *figures, notes=(str(material.report),))


def finetune_speech(
    stage: str,
    out: str | Path,
    corpora: Sequence[tuple[str, Path]] = (),
    data: Path | None = None,
    start: str | Path = "default",
    plan: Plan = Plan(),
    progress: Progress = lambda share, loss: None,
    preparing: Preparing = lambda done, total: None,
) -> Result:
    """Teaches synthesizer or vocoder to speak as one person does, from about 15 minutes of speech.

    The bundle also gets the mean voice of the speaker who is heard most, in `VOICE_FILE`. The same
    call again goes on where one that was cut short ended.

    Args:
        stage: "synthesizer" or "vocoder".
        corpora: (name, path) pairs, see `corpora.read_corpus`.
        data: in place of them a folder of records, made by `preprocess`.
        plan: its learning rate is usually a tenth of what the stage begins with.

    The other arguments, and what is raised, are as of `finetune_face_encoder`.
    """
    if bool(corpora) == bool(data):
        raise InputError("give what to learn from with --corpus or --data, one of them")
    begin = Start.find(start, stage)
    out, work = _folders(out, plan.work, begin)
    encoder = begin.others["speech_encoder"]
    if data is None:
        symbols = Tacotron.from_checkpoint(begin.checkpoint).dims.spelling if stage == "synthesizer" else "phones"
        data = work / "records"
        preprocess(find_maker(stage, encoder, symbols), corpora, data, plan.workers, progress=preparing)
    chosen, hardware = find_stage(stage), Hardware(plan.device)
    task = build_task(stage, data, Options(begin.checkpoint, batch_size=plan.batch_size))
    prepared = Prepared.open(data, stage)
    before = _evaluate(task)
    schedule = plan.schedule(
        STEPS, chosen.learning_rate / 10, clip=chosen.clip, patience=10, optimizer=chosen.optimizer
    )
    keys = [entry.key for entry in prepared.entries]
    settings = plan.batch_size, schedule.learning_rate, plan.seed, schedule.optimizer
    run = work / f"run-{_digest(sha256(begin.checkpoint), keys, *settings)}"
    best = fit(task, run, schedule, plan.seed, hardware, _read_loss(progress)).with_name(BEST_FILE)
    task.module = type(task.module).from_checkpoint(best)
    after = _evaluate(task)
    # An equalizer suits what the old synthesizer said; the new one says what it was told.
    write_bundle(out, task.module, begin.without(["equalizer"] if stage == "synthesizer" else []))
    speaker, voice = _most_heard(prepared, encoder)
    voice.save(out / VOICE_FILE)
    held_out = f"{len(task.held_out)} records held out" if before else ""
    return Result(out, held_out, before, after, notes=(f"{out / VOICE_FILE}: the mean voice of {speaker}",))


def write_bundle(out: Path, network: nn.Module, start: Start) -> None:
    """A bundle of a new network and of the start's other parts, hard links where the disk allows them.

    Raises:
        InputError: the folder cannot be written to.
    """
    files = {FILES[start.part][0]: None} | {path.name: path for path in start.others.values()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_checkpoint(out / FILES[start.part][0], network)
        for name, path in files.items():
            if path:
                _link(path, out / name)
        for name in {name for names in FILES.values() for name in names} - files.keys():
            (out / name).unlink(missing_ok=True)  # what an earlier bundle left would be taken for a part of this
        Bundle(out.name, out).record()
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); give another folder") from error


# ---- people


@dataclasses.dataclass(frozen=True)
class Split:
    """Who is learned from, who tells when to stop, and who is measured by.

    Attributes:
        held_out: who the last are, for people to read.
    """

    learned: list[Person]
    watched: list[Person]
    measured: list[Person]
    held_out: str


def split_people(people: dict[str, Person], splits: dict[str, str], seed: int = 0) -> Split:
    """By their splits, or drawn, if there are `_MANY`; of fewer people a clip and a photo each is held out.

    Args:
        splits: name -> "train", "dev" or "test".
    """
    names = np.random.default_rng(seed).permutation(sorted(people)).tolist()
    train, dev, test = ([name for name in names if splits[name] == split] for split in ("train", "dev", "test"))
    if not test and len(train) >= _MANY:
        cut = max(2, round(_MEASURED * len(train)))
        test, train = train[:cut], train[cut:]
    if not dev and len(train) >= _MANY:
        cut = max(2, round(_WATCHED * len(train)))
        dev, train = train[:cut], train[cut:]
    if not train:
        raise InputError("all people are of the splits dev and test: nobody is left to learn from")
    learned, watched, measured = ([people[name] for name in some] for some in (train, dev, test))
    if measured:
        return Split(learned, watched, measured, f"{len(measured)} people held out")
    several = [one for one in learned if max(len(one.faces), len(one.voices)) > 1]
    measured = [Person(one.faces[-1:], one.voices[-1:]) for one in several]
    learned = [Person(one.faces[:-1] or one.faces, one.voices[:-1] or one.voices) for one in learned]
    what = "photos and clips" if any(len(one.faces) > 1 for one in several) else "clips"
    return Split(learned, watched, measured, f"held-out {what} of {len(measured)} people" if measured else "")


@dataclasses.dataclass(frozen=True)
class _Material:
    """Photos and clips that can be used.

    Attributes:
        people: name -> indices of the records.
        splits: name -> "train", "dev" or "test".
        voices: record -> (embedding,) of its clip.
    """

    data: Prepared
    report: Report
    people: dict[str, Person]
    splits: dict[str, str]
    voices: dict[int, np.ndarray]

    def crops(self) -> Records:
        return Records(self.data, range(len(self.data)), lambda record: record["crops"])

    def voice(self, person: Person) -> np.ndarray:
        """(embedding,), the mean over the clips."""
        return mean_voice(np.stack([self.voices[i] for i in person.voices]))


def _gather(
    utterances: Sequence[Utterance], speech_encoder: Path, work: Path, workers: int, preparing: Preparing
) -> _Material:
    """Finds the faces and embeds the clips; InputError if nobody has both."""
    manifest = work / "people.jsonl"
    try:
        write_manifest(manifest, utterances)
    except OSError as error:
        raise InputError(f"{work}: cannot be written to ({error.strerror}); give another folder") from error
    maker = find_maker("face-encoder", speech_encoder)
    report = preprocess(maker, [("manifest", manifest)], work / "records", workers, progress=preparing)
    data = Prepared.open(work / "records", "face-encoder")
    voices = Records(data, range(len(data)), lambda record: record.get("voice"))
    voices = {i: voice for i in range(len(data)) if (voice := voices[i]) is not None}
    people, splits = {}, {}
    for name, indices in data.speakers().items():
        faces = [i for i in indices if data.entries[i].length]
        heard = [i for i in indices if i in voices]
        if faces and heard:
            people[name] = Person(faces, heard)
            splits[name] = data.entries[indices[0]].split
    if not people:
        raise InputError(
            f"nobody has both a photo that shows a face and a clip that holds speech ({report}); "
            "give each person a folder with both"
        )
    return _Material(data, report, people, splits, voices)


# ---- lessons

See = Callable[[int], Tensor]  # record -> what the network takes for its crops, (crops, ...)


class _NearTask(ProjectionTask):
    """A `ProjectionTask` that stays near where it starts, so that a few people do not change how all
    others sound: the squared distance of the weights to the first ones is part of the loss (L2-SP;
    Li et al. 2018, https://arxiv.org/abs/1802.01483).

    Args:
        watched: features (n, features) and voices (n, embedding) for the figure.
    """

    def __init__(self, module: FaceSpeakerEncoder, *lesson: np.ndarray, watched: tuple[np.ndarray, np.ndarray] | None):
        super().__init__(module, *lesson)
        self.watched = watched
        module.projection_layer.requires_grad_(True)
        self.start = [weight.detach().clone() for weight in module.projection_layer.parameters()]

    def loss(self, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Of `ProjectionTask`, and the drift of the weights."""
        distance, parts = super().loss(batch, progress)
        pairs = zip(self.module.projection_layer.parameters(), self.start, strict=True)
        drift = sum((weight - start.to(weight.device)).square().sum() for weight, start in pairs)
        return distance + _ANCHOR * drift, parts | {"drift": drift.detach()}

    def evaluate(self) -> dict[str, float]:
        """``away``: one minus the mean cosine of those watched."""
        if self.watched is None:
            return {}
        features, voices = self.watched
        device = self.module.projection_layer[0].weight.device
        made = unit(self.module.projection_layer(torch.from_numpy(features).to(device))).cpu().numpy()
        return {"away": float(1 - (made * voices).sum(axis=1).mean())}


def _frozen_lesson(encoder: FaceSpeakerEncoder, material: _Material, split: Split) -> tuple[Task, See]:
    """The projection alone, each person's mean voice for each of the features of his faces.

    From here on the network is but its projection, and what it takes are features: a state of it
    that is written is a small file.
    """
    crops = material.crops()
    indices = sorted({i for person in material.people.values() for i in person.faces})
    with torch.inference_mode():
        features = {i: encoder.features(_to_network(crops[i], encoder)).clone() for i in indices}
    encoder.resnet = nn.Identity()

    def of(people: list[Person]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (n, features), voices (people, embedding) and whose each face is (n, people)."""
        seen = [torch.cat([features[i] for i in person.faces]).cpu().numpy() for person in people]
        whose = np.repeat(np.eye(len(people)), [len(one) for one in seen], axis=0)
        return np.concatenate(seen), np.stack([material.voice(person) for person in people]), whose

    watched = None
    if split.watched:
        seen, voices, whose = of(split.watched)
        watched = seen, voices[whose.argmax(axis=1)]
    return _NearTask(encoder, *of(split.learned), watched=watched), features.__getitem__


def _whole_lesson(encoder: FaceSpeakerEncoder, material: _Material, split: Split, batch_size: int) -> tuple[Task, See]:
    """All layers, from the crops."""
    crops = material.crops()
    raw = Records(material.data, range(len(material.data)), lambda record: record["raw"])
    encoder.requires_grad_(True)
    batch_size = min(batch_size, len(split.learned))
    task = FaceSpeakerTask(encoder, crops, raw, split.learned, split.watched, freeze=False, batch_size=batch_size)
    return task, lambda i: _to_network(crops[i], encoder)


def _to_network(crops: np.ndarray, encoder: FaceSpeakerEncoder) -> Tensor:
    return faces_to_tensor(crops).to(encoder.projection_layer[0].weight.device)


@torch.inference_mode()
def _measure(embed: Callable[[Tensor], Tensor], see: See, material: _Material, split: Split) -> dict[str, float]:
    """`likeness` of the mean voice of a person's photos and that of his clips."""
    if not split.measured:
        return {}
    made = [mean_voice(torch.cat([embed(see(i)) for i in one.faces]).cpu().numpy()) for one in split.measured]
    return likeness(np.stack(made), np.stack([material.voice(one) for one in split.measured]))


@torch.inference_mode()
def _evaluate(task: Task) -> dict[str, float]:
    """The task's own figures, drawn alike each time."""
    task.module.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return task.evaluate()


def _read_loss(progress: Progress) -> Advance:
    return lambda share, loss: progress(share, float(loss))


# ---- folders and voices


def _folders(out: str | Path, work: Path | None, begin: Start) -> tuple[Path, Path]:
    """The bundle's and the work folder, absolute; InputError if they cannot be used."""
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder for the bundle")
    if out.resolve() in {path.resolve().parent for path in (begin.checkpoint, *begin.others.values())}:
        raise InputError(f"{out}: holds the bundle to start from; give another folder")
    return out, Path(work).absolute() if work else out.with_name(f"{out.name}-work")


def _link(path: Path, to: Path) -> None:
    """`to` as another name of the file, or as a copy where there can be none."""
    partial = to.with_name(f".{to.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(path.resolve(), partial)
    except OSError:
        shutil.copyfile(path, partial)
    partial.replace(to)


def _most_heard(data: Prepared, speech_encoder: Path) -> tuple[str, Voice]:
    """The speaker with the most records, and the mean voice of some of them."""
    speaker, indices = max(data.speakers().items(), key=lambda one: len(one[1]))
    encoder = SpeechSpeakerEncoder.from_checkpoint(speech_encoder)
    voices = []
    for i in indices[:_HEARD]:
        record = data.record(i)
        with contextlib.suppress(InputError):  # no speech is heard in a short one
            voices.append(record["voice"] if "voice" in record else encoder.embed((record["samples"], SAMPLE_RATE)))
    if not voices:
        raise InputError(f"{data.folder}: no speech was heard in the clips of {speaker}; give longer ones")
    return speaker, Voice(mean_voice(np.stack(voices)), speaker)


def _digest(*settings: object) -> str:
    """Of all that a run depends on but its length: another run goes to another folder."""
    return hashlib.blake2b(repr(settings).encode(), digest_size=6).hexdigest()
