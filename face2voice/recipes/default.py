"""How the default bundle is made, from nothing but packages and the folder of data.

Every step leaves a file in the work folder and is skipped once that is there; a training that is
cut short goes on from its last checkpoint.
"""

import contextlib
import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder.audio import load_prepared, prepare
from encoder.distil import DistilTask, Lessons, agreement
from encoder.dlib_resnet import read_dlib_dat
from encoder.face import crop_from_photo, faces_to_tensor, find_detector
from encoder.train import ProjectionTask
from face2voice.corpora import Utterance, read_manifest
from face2voice.corpora.speech import speechocean762
from face2voice.evaluation.material import COMPARED, KEPT_OUT, find_material
from face2voice.likeness import mean_voice
from face2voice.pipeline import Face2Voice
from face2voice.speech2face.decoder import FaceDecoder, FaceDecoderDims
from face2voice.speech2face.face2speech import VoiceDecoder
from face2voice.speech2face.frame import FrameDescriptor
from face2voice.speech2face.portraits import Portraits, read_portraits
from face2voice.speech2face.train import FaceDecoderTask
from face2voice.speech2face.voice_encoder import VoiceEncoder
from face2voice.training import Hardware, Schedule, fit
from face2voice.voicespace import VoiceSpace
from savedmodels import Bundle, InputError, write_arrays, write_atomically, write_checkpoint
from savedmodels.bundles import FILES
from synthesizer import Tacotron, TacotronDims
from synthesizer.audio import mel_spectrogram
from synthesizer.equalizer import Equalizer
from synthesizer.text import PHONES, G2PDims, LettersToPhones, load_lexicon, to_phones
from synthesizer.text.train_g2p import G2PTask, evaluate
from synthesizer.train import Example, TacotronTask
from vocoder import WaveRNN, WaveRNNDims
from vocoder.train import Recording, WaveRNNTask

from .equalizer import fit_curve
from .features import Features, compute_features
from .sources import FACE_DESCRIPTOR, GE2E_TEACHER, Portrait, read_voteview
from .speech2face import ADULT, voice_decoder_task, voice_encoder_task
from .voicebank import build_bank, pseudo_speakers, script, wordnet_sentences

log = logging.getLogger(__name__)

TEXTS = 9_600  # two thirds of what there is: few texts are learned by heart (docs/experiments.md)
DEV_TEXTS = 60  # kept out of the synthesizer's training
FITTED_VOICES = 8  # that the equalizer is fitted to
AGE_WIDTH = 8.0  # years; how far apart face and voice may be
CHARACTER = 4  # directions in which people of one sex and age differ most
CHARACTER_WIDTH = 0.4  # standard deviations in them; how far apart face and voice may be

SYNTHESIZER = TacotronDims(
    symbols=PHONES.symbols,
    spelling=PHONES.spelling,
    embedding=128,
    encoder=128,
    decoder=128,
    lstm=256,
    postnet=96,
    postnet_kernels=3,
    highways=2,
    max_r=5,
    r=5,
    dropout=0.1,  # half, as published, is more noise than so small a network can spare
    speaking_dropout=0.1,  # none is no clearer (docs/experiments.md)
)
VOCODER = WaveRNNDims(bits=8, rnn=96, fc=96, compute=64, res_out=64, res_blocks=4, prediction_order=16, refinements=10)
SPEECH_ENCODER = SpeechSpeakerEncoderDims(hidden=256, layers=2, log_mels=True)
FACE_ENCODER = FaceSpeakerEncoderDims(backbone="dlib_resnet", features=128)

OPTIONAL = ("face_decoder", "voice_encoder", "voice_decoder")

# Share of the time budget, in the order in which they are trained.
SHARES = {
    "face_encoder": 0.005,
    "g2p": 0.04,
    "synthesizer": 0.63,
    "vocoder": 0.16,
    "speech_encoder": 0.06,
    "face_decoder": 0.07,
    "voice_encoder": 0.035,
    "voice_decoder": 0.03,  # not in the bundle; on top of the others
}


@dataclasses.dataclass(frozen=True)
class DefaultRecipe:
    """The steps, in the order of their names in `STEPS`.

    Attributes:
        data: folder with ``faces/voteview`` and ``speech/LibriSpeech``, ``speech/speechocean762``.
        work: folder for everything in between.
        out: folder of the bundle.
        seconds: time budget of the trainings.
        seed: of everything that is drawn.
        start: folder of a bundle whose networks the long trainings go on from; from nothing if None.
        devices: GPUs, or processes on a CPU, of each training.
    """

    data: Path
    work: Path
    out: Path
    seconds: float = 3 * 3600.0
    seed: int = 0
    start: Path | None = None
    devices: int = 1

    def run(self) -> None:
        """All steps; resumes."""
        for step in ("bank", "features", "portraits", "frames"):
            getattr(self, step)()
        for step in SHARES:
            if step != "voice_decoder":
                self._by_command(step)
        self.bundle()
        self.equalizer()

    # ---- data

    def bank(self) -> list[Utterance]:
        """The voice bank: some 19,000 utterances by 64 pseudo-speakers."""
        manifest = self.work / "bank" / "manifest.jsonl"
        if not manifest.is_file():
            lexicon = load_lexicon()
            texts = script(wordnet_sentences(), lambda w: w.lower() in lexicon, TEXTS, self.seed)
            build_bank(manifest.parent, texts, pseudo_speakers(seed=self.seed), seed=self.seed, workers=4)
        return read_manifest(manifest)

    def features(self) -> Features:
        """Mels of the bank and the published encoder's embeddings of it."""
        return compute_features(
            self.work / "bank" / "features.npz", self.bank(), lambda: GE2E_TEACHER.fetch(self.work / "teacher")
        )

    def portraits(self) -> tuple[list[Portrait], np.ndarray]:
        """The portraits on which a face was found, and their descriptors (n, 128)."""
        portraits = read_voteview(self.data / "faces" / "voteview")
        stored = self.work / "portraits.npz"
        if not stored.is_file():
            encoder, detector = self._untrained_face_encoder(), find_detector("dlib")
            found, features = [], []
            for i, portrait in enumerate(portraits):
                try:
                    crop = faces_to_tensor(crop_from_photo(portrait.photo, detector=detector))
                except InputError as error:
                    log.warning("%s", error)
                    continue
                with torch.inference_mode():
                    features.append(encoder.features(crop)[0].numpy())
                found.append(i)
            write_arrays(stored, ok=found, features=np.stack(features))
        with np.load(stored) as file:
            return [portraits[i] for i in file["ok"]], file["features"]

    # ---- trainings

    def face_encoder(self) -> Path:
        """Descriptor to voice: each portrait with the bank's speakers of its sex, about its age, and who are
        as unusual among their like as its face is. Which kind of unusual face goes with which kind of
        voice nobody knows: that is settled by the order of the directions, so that faces differ in voice."""
        portraits, features = self.portraits()
        speakers, voices = self._bank_speakers()
        learning = [i for i, portrait in enumerate(portraits) if not portrait.held_out]
        features, people = features[learning], [portraits[i] for i in learning]
        face_sexes, face_ages = (np.array([getattr(p, name) for p in people]) for name in ("sex", "age"))
        sexes, ages = (np.array([getattr(s, name) for s in speakers]) for name in ("sex", "age"))
        apart = ((face_ages[:, None] - ages) / AGE_WIDTH) ** 2
        faces = character(features, face_sexes, face_ages, CHARACTER)
        apart += (((faces[:, None] - character(voices, sexes, ages, CHARACTER)) / CHARACTER_WIDTH) ** 2).sum(axis=2)
        apart[face_sexes[:, None] != sexes] = np.inf
        likelihood = np.exp(-0.5 * (apart - apart.min(axis=1, keepdims=True)))
        likelihood /= likelihood.sum(axis=1, keepdims=True)
        task = ProjectionTask(self._untrained_face_encoder(), features, voices, likelihood)
        return self._fit("face_encoder", task, learning_rate=1e-3)

    def g2p(self) -> Path:
        """Letters to phones, for words that the lexicon lacks."""
        torch.manual_seed(self.seed)
        task = G2PTask(LettersToPhones(G2PDims()))
        path = self._fit("g2p", task, learning_rate=4e-3)
        network = LettersToPhones.from_checkpoint(path)
        _tell(path, lambda: dataclasses.asdict(evaluate(network, task.held_out, task.lexicon)))
        return path

    def synthesizer(self) -> Path:
        """Tacotron on the bank."""
        if self.start:  # it has its alignment
            schedule, learning_rate = ((0.0, 2),), 6e-4
        else:
            schedule, learning_rate = ((0.0, 5), (0.15, 3), (0.45, 2)), 5e-3
        network = self._network(Tacotron, SYNTHESIZER, "synthesizer")
        learned, held_out = self._examples()
        items = 128 if Hardware().cuda else 32  # a GPU takes as long for either
        task = TacotronTask(network, learned, items, schedule, own_frames=0.7, envelope=4.0, held_out=held_out)
        return self._fit("synthesizer", task, learning_rate, optimizer="muon")

    def vocoder(self) -> Path:
        """WaveRNN on a twelfth of the bank and on the real speech, but for what `evaluate` copies."""
        features = self.features()
        recordings = [
            Recording(sf.read(utterance.audio, dtype="int16")[0], features.mel(i))
            for i, utterance in enumerate(self.bank())
            if i % 12 == 0
        ]
        files = sorted((self.data / "speech" / "LibriSpeech").rglob("*.flac"))
        kept_out = list(dict.fromkeys(path.parts[-3] for path in files))[:KEPT_OUT]
        for path in files:
            if path.parts[-3] in kept_out:
                continue
            samples, _ = sf.read(path, dtype="int16")
            recordings.append(Recording(samples, mel_spectrogram(samples / 32768).astype(np.float16)))
        network = self._network(WaveRNN, VOCODER, "vocoder")
        task = WaveRNNTask(network, recordings, batch_size=64)
        return self._fit("vocoder", task, 1e-3 if self.start else 3e-3, clip=4.0)

    def speech_encoder(self) -> Path:
        """A smaller GE2E encoder that answers as the published one does."""
        stored = self.work / "lessons.npz"
        if not stored.is_file():
            teacher = SpeechSpeakerEncoder.from_checkpoint(GE2E_TEACHER.fetch(self.work / "teacher"))
            Lessons.collect(teacher, self._clips()).save(stored)
        learned, apart = Lessons.load(stored).split()
        torch.manual_seed(self.seed)
        task = DistilTask(SpeechSpeakerEncoder(SPEECH_ENCODER), learned)
        path = self._fit("speech_encoder", task, learning_rate=2e-3)
        _tell(path, lambda: agreement(SpeechSpeakerEncoder.from_checkpoint(path), apart))
        return path

    # ---- speech to face

    def frames(self) -> Portraits:
        """The portraits as the face decoder learns from them."""
        stored = self.work / "frames.npz"
        if not stored.is_file():
            photos = [portrait.photo for portrait in read_voteview(self.data / "faces" / "voteview")]
            read_portraits(photos, self._descriptor()).save(stored)
        return Portraits.load(stored)

    def face_decoder(self) -> Path:
        """Descriptor to portrait."""
        frames, people = self._frames_and_people()
        apart = np.array([person.held_out for person in people])
        torch.manual_seed(self.seed)
        decoder = FaceDecoder(FaceDecoderDims())
        task = FaceDecoderTask(decoder, frames.only(~apart), self._descriptor(), held_out=frames.only(apart))
        return self._fit("face_decoder", task, learning_rate=2e-3)

    def voice_encoder(self) -> Path:
        """Speech to the descriptor of a face that suits it."""
        decoder = FaceDecoder.from_checkpoint(self.work / "face_decoder" / "model.safetensors")
        torch.manual_seed(self.seed)
        task = voice_encoder_task(self.data / "speech", *self._frames_and_people(), decoder)
        return self._fit("voice_encoder", task, learning_rate=1e-3)

    def voice_decoder(self) -> Path:
        """Descriptor to the sound of a voice that suits the face. Not run unless asked for: see docs/experiments.md."""
        torch.manual_seed(self.seed)
        task = voice_decoder_task(self.data / "speech", *self._frames_and_people())
        return self._fit("voice_decoder", task, learning_rate=1e-3)

    def _frames_and_people(self) -> tuple[Portraits, list[Portrait]]:
        frames, people = self.frames(), read_voteview(self.data / "faces" / "voteview")
        return frames, [people[i] for i in frames.which]

    def _descriptor(self) -> FrameDescriptor:
        return FrameDescriptor(self._untrained_face_encoder().resnet)

    # ---- the bundle

    def voices(self) -> VoiceSpace:
        """The bank's speakers, as known voices."""
        people, embeddings = self._bank_speakers()
        pitch = {speaker.name: speaker.f0 for speaker in pseudo_speakers(seed=self.seed)}
        return VoiceSpace(
            names=np.array([p.speaker for p in people]),
            sexes=np.array([p.sex for p in people]),
            ages=np.array([p.age for p in people], np.float32),
            f0=np.array([pitch[p.speaker] for p in people], np.float32),
            embeddings=embeddings.astype(np.float32),
        )

    def bundle(self) -> None:
        """The finished networks in half precision, the known voices, and their SHA-256."""
        networks = {
            "face_encoder": FaceSpeakerEncoder,
            "speech_encoder": SpeechSpeakerEncoder,
            "synthesizer": Tacotron,
            "vocoder": WaveRNN,
            "g2p": LettersToPhones,
            "face_decoder": FaceDecoder,
            "voice_encoder": VoiceEncoder,
            "voice_decoder": VoiceDecoder,
        }
        for part, network in networks.items():
            trained = self.work / part / "model.safetensors"
            if not trained.is_file():
                if part in OPTIONAL:
                    log.warning("%s: not there, so the bundle goes without; run the step %s", trained, part)
                    continue
                raise InputError(f"{trained}: not there yet; run the step {part} first")
            write_checkpoint(self.out / f"{part}.safetensors", network.from_checkpoint(trained), dtype=torch.float16)
        self.voices().save(self.out / "voices.npz")
        self._without_equalizer().record()

    def equalizer(self) -> None:
        """What brings the finished bundle's men nearer to real ones and away from women. Women get none: theirs
        costs words (docs/experiments.md). By readers whom `evaluate` does not compare with, portraits learned from,
        and texts that nothing learned."""
        bundle = self._without_equalizer()
        teacher = SpeechSpeakerEncoder.from_checkpoint(GE2E_TEACHER.fetch(self.work / "teacher")).requires_grad_(False)
        corpora = [self._adults(teacher, readers) for readers in self._readers()]
        means = {sex: np.mean([voices[sexes == sex].mean(axis=0) for voices, sexes in corpora], axis=0) for sex in "fm"}
        said = [prepare(samples) for samples in self._men_say(Face2Voice(bundle, torch.device("cpu")))]
        curves = {"m": fit_curve(teacher, said, 2 * means["m"] - means["f"], self.seed)}
        curves["f"] = np.zeros_like(curves["m"])
        people, voices = self._bank_speakers()
        voices = np.concatenate([voices, *(voices for voices, _ in corpora)])
        sexes = [*(person.sex for person in people), *(sex for _, sexes in corpora for sex in sexes)]
        write_checkpoint(self._equalizer, Equalizer.fit(voices, np.stack([curves[sex] for sex in sexes])))
        bundle.record()

    @property
    def _equalizer(self) -> Path:
        return self.out / FILES["equalizer"][0]

    def _without_equalizer(self) -> Bundle:
        """The bundle, of which an equalizer suits only what it was fitted to."""
        self._equalizer.unlink(missing_ok=True)
        return Bundle(self.out.name, self.out)

    def _men_say(self, tts: Face2Voice) -> Iterator[np.ndarray]:
        """The texts kept out of the synthesizer's training, in the voices of some men whose portraits were learned."""
        people = [person for person in self.portraits()[0] if person.sex == "m" and not person.held_out]
        voices = [tts.voice_from_face(person.photo) for person in people[:FITTED_VOICES]]
        for i, text in enumerate(self._dev_texts()):
            yield tts.speak(text, voices[i % len(voices)], seed=i).samples

    def _readers(self) -> tuple[list[Utterance], list[Utterance]]:
        """Adults of LibriSpeech and of speechocean762, one clip of each."""
        speech = self.data / "speech"
        material = find_material(self.data, people=0)
        compared = {reader.speaker for reader in material.speakers(COMPARED)}
        learners = {u.speaker: u for u in speechocean762(speech / "speechocean762") if u.split == "train"}
        return (
            [reader for reader in material.readers if reader.sex and reader.speaker not in compared],
            [u for u in learners.values() if u.sex and u.age is not None and u.age >= ADULT],
        )

    def _adults(self, teacher: SpeechSpeakerEncoder, people: list[Utterance]) -> tuple[np.ndarray, np.ndarray]:
        """Voices (n, embedding) and sexes (n,)."""
        found = []
        for person in people:
            with contextlib.suppress(InputError):  # no speech is heard in it
                found.append((teacher.embed(person.audio), person.sex))
        return np.stack([voice for voice, _ in found]), np.array([sex for _, sex in found])

    # ---- helpers

    def _network(self, network: type, dims: object, part: str) -> torch.nn.Module:
        """A new one, or one with the weights to go on from."""
        torch.manual_seed(self.seed)
        learning = network(dims)
        if self.start:
            weights = network.from_checkpoint(self.start / f"{part}.safetensors").state_dict()
            learning.load_state_dict(weights)
        return learning

    def _fit(self, part: str, task: object, learning_rate: float, clip: float = 1.0, optimizer: str = "adam") -> Path:
        seconds = self.seconds * SHARES[part]
        schedule = Schedule(seconds, learning_rate, final=0.03, clip=clip, optimizer=optimizer)
        return fit(task, self.work / part, schedule, self.seed, Hardware(devices=self.devices))

    def _by_command(self, step: str) -> None:
        """Runs a step as a process of its own: with many devices Lightning starts its command once more for each."""
        command = [sys.executable, "-m", "face2voice", "recipe", "default", "--only", step]
        command += ["--data", self.data, "--work", self.work, "--out", self.out, "--minutes", str(self.seconds / 60)]
        command += ["--seed", str(self.seed), "--devices", str(self.devices)]
        command += ["--from", self.start] if self.start else []
        if subprocess.run(command).returncode:
            raise InputError(f"{step}: stopped early; run the recipe again, it goes on from there")

    def _untrained_face_encoder(self) -> FaceSpeakerEncoder:
        torch.manual_seed(self.seed)
        encoder = FaceSpeakerEncoder(FACE_ENCODER)
        encoder.resnet.load_state_dict(read_dlib_dat(FACE_DESCRIPTOR.fetch(self.work / "teacher")))
        return encoder.eval()

    def _bank_speakers(self) -> tuple[list[Utterance], np.ndarray]:
        """One utterance of each speaker (for its sex and age), and the speakers' mean embeddings."""
        by_speaker = self._by_speaker()
        bank, voices = self.bank(), self.features().voices
        means = []
        for utterances in by_speaker.values():
            known = voices[[i for i in utterances if voices[i].any()]]
            means.append(mean_voice(known))
        return [bank[utterances[0]] for utterances in by_speaker.values()], np.stack(means)

    def _clips(self) -> Iterator[tuple[np.ndarray, str]]:
        """Prepared speech and its speaker: real adults and children, and some of the bank."""
        speech = self.data / "speech"
        files = [(path, path.parts[-3]) for path in sorted((speech / "LibriSpeech").rglob("*.flac"))]
        for folder in sorted((speech / "speechocean762" / "WAVE").iterdir()):
            files += [(path, folder.name) for path in sorted(folder.iterdir())[:4]]
        bank = self.bank()
        for utterances in self._by_speaker().values():
            files += [(bank[i].audio, bank[i].speaker) for i in utterances[:6]]
        for path, speaker in files:
            try:
                yield load_prepared(path), speaker
            except InputError as error:
                log.warning("%s", error)

    def _by_speaker(self) -> dict[str, list[int]]:
        """Indices of the bank's utterances."""
        by_speaker: dict[str, list[int]] = {}
        for i, utterance in enumerate(self.bank()):
            by_speaker.setdefault(utterance.speaker, []).append(i)
        return by_speaker

    def _dev_texts(self) -> list[str]:
        """`DEV_TEXTS` texts of the bank, in a fixed order."""
        texts = sorted({utterance.text for utterance in self.bank()})
        return np.random.default_rng(1).choice(texts, DEV_TEXTS, replace=False).tolist()

    def _examples(self) -> tuple[list[Example], list[Example]]:
        """Those to learn from, and those of `DEV_TEXTS` texts. Each utterance has a voice between its speaker's
        mean and one single utterance's: predicted voices will not be exact either."""
        bank, features = self.bank(), self.features()
        kept_out = set(self._dev_texts())
        rng = np.random.default_rng(self.seed)
        learned, held_out = [], []
        for utterances, mean in zip(self._by_speaker().values(), self._bank_speakers()[1], strict=True):
            known = features.voices[[i for i in utterances if features.voices[i].any()]]
            for i in utterances:
                voice = mean + rng.uniform(0, 0.8) * (known[rng.integers(len(known))] - mean)
                symbols = PHONES.encode(to_phones(bank[i].text))
                examples = held_out if bank[i].text in kept_out else learned
                examples.append(Example(symbols, features.mel(i), voice / np.linalg.norm(voice)))
        return learned, held_out


def _tell(network: Path, measure: Callable[[], dict[str, float]]) -> None:
    """Logs figures of what was held out; worked out once for a network, and kept beside it."""
    kept = network.with_name("figures.json")
    if not kept.is_file() or kept.stat().st_mtime < network.stat().st_mtime:
        write_atomically(kept, json.dumps(measure(), indent=2).encode())
    log.info("%s, on what was held out: %s", network, json.loads(kept.read_text()))


def character(values: np.ndarray, sexes: np.ndarray, ages: np.ndarray, count: int) -> np.ndarray:
    """In what, and how far, each of many people is unlike others of one sex and age.

    Args:
        values: (people, features), of faces or of voices.
        sexes, ages: (people,).

    Returns:
        (people, count): along the principal directions of what age does not explain within a sex, in
        standard deviations.
    """
    scores = np.zeros((len(values), count))
    for sex in np.unique(sexes):
        some = sexes == sex
        known = np.stack([np.ones(some.sum()), ages[some]], axis=1)
        rest = values[some] - known @ np.linalg.lstsq(known, values[some], rcond=None)[0]
        _, _, directions = np.linalg.svd(rest, full_matrices=False)
        directions *= np.sign(directions.sum(axis=1, keepdims=True))  # which way is up must not be left to chance
        along = rest @ directions[:count].T
        scores[some] = along / along.std(axis=0)
    return scores
