"""Each network's task learns eight examples by heart, real ones where that is quick; what the losses compute."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_speech import voice_like
from torch import nn

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder.face import find_faces, load_photo
from encoder.face_decoder import FaceDecoder, FaceDecoderDims
from encoder.ge2e import GE2ETask, ge2e_loss
from encoder.train import FaceSpeakerTask, Person
from face2voice.benchmarks import PlainTacotron, PlainWaveRNN, measure_training
from face2voice.corpora import read_manifest
from face2voice.preprocess import find_maker
from face2voice.speech2face import decoder as speech2face
from face2voice.speech2face.audio import to_loudness
from face2voice.speech2face.frame import crop_frame
from face2voice.speech2face.landmarks import mirror, template
from face2voice.speech2face.portraits import Portraits
from face2voice.speech2face.train import FaceDecoderLoss, FaceDecoderTask, VoiceEncoderLoss, VoiceEncoderTask
from face2voice.speech2face.voice_encoder import VoiceEncoder, VoiceEncoderDims
from face2voice.stages import STAGES, Records
from face2voice.training import BEST_FILE, STATE_FILE, Hardware, Schedule, fit
from savedmodels import InputError, find_bundle
from synthesizer import Tacotron
from synthesizer.text import PHONES
from synthesizer.train import Example, TacotronTask, envelope_error
from vocoder import WaveRNN, WaveRNNDims
from vocoder.train import Recording, Segment, WaveRNNTask

DATA = Path(__file__).parent / "data"
PORTRAIT = DATA / "portrait.jpg"
TINY_TACOTRON = dataclasses.replace(STAGES["synthesizer"].sizes["tiny"], speaker=4, decoder=32, lstm=64)
TINY_WAVERNN = WaveRNNDims(bits=3, rnn=12, fc=12, compute=4, res_out=4, res_blocks=1)


def learn(task, run, steps, learning_rate, clip=3.0, optimizer="adam"):
    """Loss over the first batch, in evaluation mode, before and after."""
    batch = task.collate(next(task.batches(0, seed=0)))

    def loss():
        for module in (task.module, getattr(task, "helpers", nn.Module())):
            module.eval()
        with torch.no_grad():
            torch.manual_seed(0)
            return float(task.loss(batch, 1.0)[0])

    before = loss()
    schedule = Schedule(steps=steps, learning_rate=learning_rate, warmup=5, clip=clip, optimizer=optimizer)
    fit(task, run, schedule, hardware=Hardware("cpu"))
    return before, loss()


def real_records(stage):
    """What preprocess makes of eight people, and their names."""
    bundle = find_bundle("default")
    maker = find_maker(stage, bundle.path("speech_encoder"), face_encoder=bundle.path("face_encoder"))
    people = read_manifest(DATA / "people" / "people.jsonl")
    return [maker.make(person, 0) for person in people], [person.speaker for person in people]


def voices_of(speakers, utterances, frames=170):
    """Mels of people told apart by where their energy is, and their names."""
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(speakers) for _ in range(utterances)]
    shapes = np.exp(-0.5 * ((np.arange(40) - 5 * np.arange(speakers)[:, None] - 3) / 3) ** 2)
    return [(rng.random((frames, 40)) * shapes[int(name)]).astype(np.float16) for name in names], names


def test_ge2e_learns_eight_utterances(tmp_path):
    torch.manual_seed(0)
    module = SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=16, layers=1, embedding=16, log_mels=True))
    records, speakers = real_records("speech-encoder")
    mels = [record["mels"] for record in records]
    task = GE2ETask(module, mels, speakers, (mels, speakers), 4, 2)
    before, after = learn(task, tmp_path, steps=100, learning_rate=0.01)
    assert after < before / 10
    assert task.evaluate()["eer"] < 0.1
    assert (tmp_path / BEST_FILE).is_file()


def test_ge2e_loss_by_its_formula():
    torch.manual_seed(0)
    embeddings = nn.functional.normalize(torch.rand(3, 2, 5), dim=2)
    losses = []
    for j in range(3):
        for i in range(2):
            centroids = [embeddings[k].mean(0) if k != j else embeddings[j, 1 - i] for k in range(3)]
            similar = torch.stack([10 * torch.cosine_similarity(embeddings[j, i], c, dim=0) - 5 for c in centroids])
            losses.append(-similar[j] + similar.exp().sum().log())
    loss, right = ge2e_loss(embeddings, torch.tensor([10.0]), torch.tensor([-5.0]))
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert 0 <= right <= 1


def test_ge2e_crops_and_orders():
    mels, names = voices_of(3, 3, frames=300)
    mels.append(mels[0][:50])  # a fourth speaker with one short utterance
    task = GE2ETask(SpeechSpeakerEncoder(), mels, [*names, "3"], speakers_per_batch=2, utterances_per_speaker=4)
    batches = list(task.batches(0, seed=1))
    assert batches == list(task.batches(0, seed=1)) != list(task.batches(1, seed=1))
    assert {len(crops) for batch in batches for crops in batch} == {4}
    assert task.collate(batches[0]).shape == (2, 4, 160, 40)
    heard = {crop.utterance for batch in batches for crops in batch for crop in crops}
    assert heard == set(range(10))
    with pytest.raises(InputError, match="more people"):
        GE2ETask(SpeechSpeakerEncoder(), mels[:2], ["a", "a"])


def face_task(**options):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    crops = [np.full((2, 40, 40, 3), color, np.uint8) for color in rng.integers(0, 255, (8, 3))]
    module = FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", features=16, hidden=32, embedding=16))
    module.resnet = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 16))  # quicker than the true one
    decoder = FaceDecoder(FaceDecoderDims(embedding=16, channels=(8, 8, 8), side=2, size=40))
    people = [Person([i], [i]) for i in range(8)]
    voices = list(rng.normal(size=(8, 16)) * 2)
    return FaceSpeakerTask(module, crops, voices, people, people, decoder, batch_size=8, **options)


def test_face_encoder_learns_eight_people(tmp_path):
    task = face_task(freeze=False)
    before, after = learn(task, tmp_path, steps=250, learning_rate=0.01, clip=10.0)
    assert after < before / 10
    assert task.evaluate() == {"away": pytest.approx(0, abs=0.3), "confused": 0}
    assert task.show()["face_of_voice"].shape == (40, 80, 3)


def test_face_losses_as_published():
    task = face_task()
    task.module.eval()
    task.helpers.eval()
    batch = next(task.batches(0, seed=0))
    assert len({pair.face for pair in batch}) == 8
    faces, spoken = task.collate(batch)
    assert faces.shape == (8, 3, 40, 40) and faces.abs().max() <= 1
    loss, parts = task.loss((faces, spoken), 0.0)
    seen = task.module(faces)

    def n(x):
        return nn.functional.normalize(x.relu(), dim=1)

    torch.testing.assert_close(parts["distance"], (n(seen) - n(spoken)).square().mean())
    logits = seen @ spoken.T
    own = logits.diagonal()
    contrast = (logits.logsumexp(1) - own).mean() + (logits.logsumexp(0) - own).mean()
    torch.testing.assert_close(parts["contrast"], contrast)
    loss.backward()
    trained = {name for name, p in task.module.named_parameters() if p.grad is not None}
    assert trained == {f"projection_layer.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    assert task.helpers.temperature.grad is not None and task.helpers.decoder.linear.weight.grad is not None


def test_published_part_of_a_face_encoder_is_trained():
    module = FaceSpeakerEncoder()
    people = [Person([0], [0]), Person([1], [1])]
    FaceSpeakerTask(module, [], [], people)
    trained = {name.rsplit(".", 1)[0] for name, p in module.named_parameters() if p.requires_grad}
    assert trained == {"resnet.last_linear", "resnet.last_bn", "projection_layer.0", "projection_layer.2"}
    with pytest.raises(InputError, match="two people"):
        FaceSpeakerTask(module, [], [], people[:1])


def test_face_decoder_has_the_published_weights():
    with torch.device("meta"):
        state = FaceDecoder().state_dict()
    assert len(state) == 76
    assert sum(x.numel() for x in state.values() if x.is_floating_point()) == 6_450_115
    assert state["feature_extractor.6.conv.3.weight"].shape == (64, 6, 3, 3)
    assert state["feature_extractor.1.1.weight"].shape == (256, 256, 3, 3)
    assert state["feature_extractor.8.weight"].shape == (3, 64, 1, 1)


def utterances(count=8):
    """Texts, and mels in which each symbol sounds for some frames as it does everywhere."""
    rng = np.random.default_rng(0)
    sounds = np.where(rng.random((66, 80)) < 0.1, 0.0, -4.0)
    examples = []
    for _ in range(count):
        symbols = [*rng.integers(28, 36, rng.integers(3, 6)), 1]
        mel = np.repeat(sounds[symbols], 5, axis=0).T.astype(np.float16)
        examples.append(Example(symbols, mel, np.full(4, 0.5, np.float32)))
    return examples


def test_tacotron_learns_eight_utterances(tmp_path):
    torch.manual_seed(0)
    examples = [Example(**record) for record in real_records("synthesizer")[0]]
    wider = {"embedding": 32, "encoder": 32, "decoder": 64, "lstm": 96, "postnet_kernels": 1}
    symbols = {"symbols": PHONES.symbols, "spelling": PHONES.spelling}
    dims = dataclasses.replace(STAGES["synthesizer"].sizes["tiny"], **wider, **symbols)
    task = TacotronTask(Tacotron(dims), examples, 8, held_out=examples[:2])
    before, after = learn(task, tmp_path, steps=180, learning_rate=0.03, optimizer="muon")
    assert after < before / 10
    assert set(task.evaluate()) == {"held_out", "held_out_mel"}
    assert set(task.show()) == {"alignment", "mel", "true_mel"}


def voice_encoder_task(clips, faces, channels, hidden):
    torch.manual_seed(0)
    sizes = {"channels": channels, "strides": (4, 4), "pools": (4, 1), "hidden": hidden, "feature": faces.shape[1]}
    module = VoiceEncoder(VoiceEncoderDims(**sizes, trim=False, final_relu=False))
    weights = VoiceEncoderLoss(decoder=0, normalised=1, distillation=0)
    return VoiceEncoderTask(module, clips, faces, np.eye(len(clips)), weights=weights, batch_size=8, fresh=False)


def small_voice_encoder_task():
    clips = [to_loudness(voice_like(0.7 + 0.1 * i, 90 + 25 * i)) for i in range(4)]
    return voice_encoder_task(clips, np.random.default_rng(0).normal(size=(4, 16)), (8, 16), 16)


def test_envelope_error_overlooks_what_cancels_among_neighbours():
    ripple = torch.tensor([1.0, -1.0]).repeat(40)[None, :, None]
    assert envelope_error(ripple).item() == 0
    assert envelope_error(ripple + 0.5).item() == pytest.approx(0.25)


def test_voice_encoder_learns_eight_clips(tmp_path):
    records, _ = real_records("voice-encoder")
    clips = [to_loudness(record["samples"].astype(np.float32) / 32767) for record in records]
    task = voice_encoder_task(clips, np.stack([record["feature"] for record in records]), (32, 64), 64)
    task.held_out = (task.clips, np.eye(8, dtype=np.float32))
    before, after = learn(task, tmp_path, steps=150, learning_rate=0.01)
    assert after < before / 10
    assert task.evaluate()["distance"] < before / 10


def face_decoder_task(weights, count=8):
    """One real portrait, out of focus, in `count` lights, with features that tell of them."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    photo = load_photo(PORTRAIT)
    frame, _ = crop_frame(photo, find_faces(photo)[0])
    frame = np.asarray(Image.fromarray(frame).resize((7, 7), Image.BOX).resize((224, 224), Image.BILINEAR), float)
    frame = (frame / 2 + frame[:, ::-1] / 2) * 0.6 + 20  # neither mirrored nor in bright light another
    features = rng.normal(size=(count, 1, 8)).astype(np.float32)
    textures = (frame * (1 + 0.3 * features[:, :, :1, None])).clip(0, 255).astype(np.uint8)
    landmarks = template() + 4 * features[:, :, 1:2]
    landmarks = ((landmarks + mirror(landmarks)) / 2).astype(np.float32)
    portraits = Portraits(
        np.arange(count), np.repeat(features, 2, 1), textures, landmarks, template().astype(np.float32)
    )
    dims = speech2face.FaceDecoderDims(feature=8, shared=(32,), landmarks=(32,), channels=(16, 16, 8, 8, 4, 2))
    module = speech2face.FaceDecoder(dims)
    return FaceDecoderTask(module, portraits, Average(), weights, batch_size=count, mixing=0)


class Average(nn.Module):
    """Describes pictures by the means of eight parts."""

    def forward(self, frames):
        return nn.functional.adaptive_avg_pool2d(frames.mean(1), (2, 4)).flatten(1)


def test_face_decoder_learns_portraits(tmp_path):
    task = face_decoder_task(FaceDecoderLoss(identity=0, distinction=0), count=3)  # more take too long for a test
    before, after = learn(task, tmp_path, steps=100, learning_rate=0.015)
    assert after < before / 10


def small_tacotron_task():
    torch.manual_seed(0)
    return TacotronTask(Tacotron(TINY_TACOTRON), utterances(4), 2)


def small_wavernn_task():
    torch.manual_seed(0)
    return WaveRNNTask(WaveRNN(dataclasses.replace(TINY_WAVERNN, upsample=(4, 5))), recordings(4), 2, hops=1)


def small_ge2e_task():
    torch.manual_seed(0)
    module = SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=8, layers=1, embedding=8, log_mels=True))
    return GE2ETask(module, *voices_of(4, 2), speakers_per_batch=2, utterances_per_speaker=2)


def small_face_decoder_task():
    return face_decoder_task(FaceDecoderLoss(onset=0), count=2)


class Cut(Exception):
    pass


@pytest.mark.parametrize(
    "make_task",
    [
        small_ge2e_task,
        lambda: face_task(freeze=False),
        small_tacotron_task,
        small_wavernn_task,
        small_voice_encoder_task,
        small_face_decoder_task,
    ],
    ids=["speech-encoder", "face-encoder", "synthesizer", "vocoder", "voice-encoder", "face-decoder"],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, make_task):
    schedule = Schedule(steps=3, learning_rate=0.01, warmup=2)
    fit(make_task(), tmp_path / "whole", schedule, hardware=Hardware("cpu"))

    def cut(share, loss):
        raise Cut

    with pytest.raises(Cut):
        saving = dataclasses.replace(schedule, save_seconds=0)
        fit(make_task(), tmp_path / "cut", saving, hardware=Hardware("cpu"), advance=cut)
    fit(make_task(), tmp_path / "cut", schedule, hardware=Hardware("cpu"))
    whole, resumed = (torch.load(tmp_path / run / STATE_FILE, weights_only=True) for run in ("whole", "cut"))
    assert whole["step"] == resumed["step"] == 3
    for name, value in whole["weights"].items():
        torch.testing.assert_close(resumed["weights"][name], value, atol=1e-5, rtol=1e-5, msg=name)


def recordings(count=8):
    """Waves so slow that a sample tells the next."""
    waves = [(100 * np.sin(np.arange(600) / (60 + 5 * i))).astype(np.int16) for i in range(count)]
    return [Recording(wave, np.zeros((80, 31), np.float16)) for wave in waves]


class LoudestParts(WaveRNNTask):
    """Of each recording the one segment that begins where its mel is loudest, as it is."""

    def batches(self, epoch, seed):
        starts = zip(self.recordings, self.starts, strict=True)
        places = [recording.mel[:, self.margin :][:, :starts].sum(0).argmax() for recording, starts in starts]
        yield [Segment(i, int(place), gain_db=0.0, noise=0.0, seed=i) for i, place in enumerate(places)]


def test_wavernn_learns_eight_pieces_of_speech(tmp_path):
    torch.manual_seed(0)
    records, _ = real_records("vocoder")
    dims = WaveRNNDims(bits=8, rnn=128, fc=128, compute=16, res_out=16, res_blocks=1, prediction_order=16)
    task = LoudestParts(WaveRNN(dims), [Recording(r["samples"], r["mel"]) for r in records], batch_size=8, hops=1)
    before, after = learn(task, tmp_path, steps=100, learning_rate=0.01)
    assert after < before / 10


def test_wavernn_learns_mixtures(tmp_path):
    """To two thirds: a tenth of what 65,536 levels begin with would be to tell one level from the next."""
    torch.manual_seed(0)
    dims = dataclasses.replace(TINY_WAVERNN, mode="MOL", mixtures=2, upsample=(4, 5))
    task = WaveRNNTask(WaveRNN(dims), recordings(), batch_size=8, hops=2, held_out=recordings(2))
    before, after = learn(task, tmp_path, steps=200, learning_rate=0.006)
    assert after < 0.7 * before
    assert task.evaluate()["held_out_nats"] > 0
    assert task.show()["sound"].ndim == 1


def test_segments_are_the_same_in_any_share():
    """Which process or worker collates an item makes no difference, also to the noise that is drawn."""
    rng = np.random.default_rng(0)
    recording = Recording((rng.normal(size=6000) * 3000).astype(np.int16), rng.uniform(-4, 4, (80, 31)))
    dims = dataclasses.replace(TINY_WAVERNN, bits=8, prediction_order=16)
    task = WaveRNNTask(WaveRNN(dims), [recording], batch_size=4, hops=1)
    batch = next(task.batches(0, seed=0))
    whole, half = task.collate(batch), task.collate(batch[1::2])
    assert all(torch.equal(x[1::2], y) for x, y in zip(whole, half, strict=True))
    with pytest.raises(InputError, match="longer"):
        WaveRNNTask(WaveRNN(dims), [recording], hops=40)


def test_plain_loops_compute_the_same(monkeypatch):
    torch.manual_seed(0)
    undropped = torch.nn.functional.dropout
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: undropped(x, 0.0))
    plain, fused = PlainTacotron(TINY_TACOTRON).eval(), Tacotron(TINY_TACOTRON).eval()
    plain.load_state_dict(fused.state_dict())
    given = torch.tensor([[5, 6, 1], [7, 1, 0]]), torch.rand(2, 80, 15), torch.rand(2, 4)
    for one, other in zip(plain(*given), fused(*given), strict=True):
        torch.testing.assert_close(one, other)
    plain, fused = PlainWaveRNN(TINY_WAVERNN).eval(), WaveRNN(TINY_WAVERNN).eval()
    plain.load_state_dict(fused.state_dict())
    given = torch.rand(2, 200), torch.rand(2, 80, 5)
    torch.testing.assert_close(plain(*given), fused(*given))


def test_training_is_measured(monkeypatch):
    monkeypatch.setitem(STAGES["vocoder"].sizes, "tiny", dataclasses.replace(TINY_WAVERNN, upsample=(4, 5)))
    measured = measure_training(["vocoder"], "tiny", "cpu", batch_size=2, steps=1)
    assert [row.variant for row in measured] == ["plain loop", "fused"]
    assert measured[0].ratio == 1
    assert all(row.steps_per_second > 0 for row in measured)
    with pytest.raises(InputError, match="synthesizer, vocoder"):
        measure_training(["bundle"], "tiny", "cpu")


def test_records_are_read_when_asked_for():
    class Folder:
        read = []

        def record(self, i):
            self.read.append(i)
            return {"x": i}

    folder = Folder()
    records = Records(folder, [3, 5], lambda record: record["x"])
    assert len(records) == 2 and not folder.read
    assert [records[1], records[1], records[0]] == [5, 5, 3]
    assert folder.read == [5, 3]
