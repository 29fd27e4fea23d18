"""Fine-tuning and calibration: from folders of photos and clips to bundles, on tiny networks."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from test_speech import voice_like
from test_train_command import prepared

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder.calibration import Calibration
from encoder.face import DlibDetector, load_photo
from encoder.train import Person
from face2voice import Face2Voice, Voice
from face2voice.calibrate import calibrate
from face2voice.cli import main
from face2voice.corpora import Utterance, write_manifest
from face2voice.finetune import Plan, Start, finetune_face_encoder, finetune_speech, split_people
from face2voice.likeness import chance, likeness
from face2voice.pairs import at_most, match_by_sex_and_age, read_people
from face2voice.preprocess import makers
from face2voice.stages import find_stage
from savedmodels import Bundle, CheckpointError, InputError, find_bundle, read_checkpoint, write_checkpoint
from synthesizer import Tacotron
from synthesizer.equalizer import Equalizer
from vocoder import WaveRNN, WaveRNNDims

PORTRAIT = Path(__file__).parent / "data" / "portrait.jpg"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """What a fine-tuning needs of a bundle; the rest comes from the default one."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    parts = {
        "face_encoder": FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", features=16, hidden=16)),
        "speech_encoder": SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=8, layers=1, log_mels=True)),
        "vocoder": WaveRNN(WaveRNNDims(rnn=8, fc=8, compute=8, res_out=8, res_blocks=1, bits=4)),
    }
    for name, part in parts.items():
        write_checkpoint(folder / f"{name}.safetensors", part)
    return folder


@pytest.fixture(autouse=True)
def quick_detector(monkeypatch):
    """All photos here are the portrait in other colours: its face is looked for once."""
    monkeypatch.setattr(makers, "_detector", lambda: _Found)


class _Found:
    faces = DlibDetector().detect(load_photo(PORTRAIT))

    @classmethod
    def detect(cls, photo):
        return cls.faces


def photo(path: Path, shade: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((load_photo(PORTRAIT) * shade).astype(np.uint8)).save(path, quality=85)
    return path


def clip(path: Path, pitch: float, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, voice_like(seconds, pitch), 16_000)
    return path


def person(folder: Path, shade: float, pitch: float, photos: int = 1, clips: int = 1) -> None:
    for i in range(photos):
        photo(folder / "a" / f"{i}.jpg", shade - 0.02 * i)
    for i in range(clips):
        clip(folder / "b" / "c" / f"{i}.wav", pitch + 5 * i)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Twelve people, pale ones with high and dark ones with low voices, and what is to be skipped."""
    folder = tmp_path_factory.mktemp("people")
    for i in range(12):
        person(folder / f"p{i:02d}", *((1.0 - 0.01 * i, 220.0 + i) if i % 2 else (0.3 + 0.01 * i, 100.0 + i)))
    (folder / "p00" / "broken.jpg").write_bytes(b"no picture")
    soundfile.write(folder / "p01" / "silent.wav", np.zeros(16_000), 16_000)
    photo(folder / "nobody" / "heard.jpg", 0.5)
    return folder


@pytest.fixture(scope="module")
def tuned(people, bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "mine"
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(makers, "_detector", lambda: _Found)
        plan = Plan(steps=30, learning_rate=3e-3, device="cpu")
        result = finetune_face_encoder(people, out, bundle, plan=plan, progress=lambda *at: steps.append(at))
    return result, steps


# ---- the face encoder


def test_faces_come_nearer_to_the_voices_of_people_held_out(tuned):
    result, steps = tuned
    assert result.held_out == "2 people held out"
    assert result.after["cosine"] > result.before["cosine"] + 0.02
    assert set(result.before) == set(result.after) == {"cosine", "margin", "R@1"}
    assert result.chance == {"margin": 0.0, "R@1": 0.5}
    shares = [share for share, _ in steps]
    assert 1 < len(shares) <= 30 and shares == [(step + 1) / 30 for step in range(len(shares))]
    assert "skipped (corrupt 1, silent 1)" in result.notes[0]


def test_the_new_bundle_is_whole(tuned, bundle, people):
    result, _ = tuned
    made, default = Bundle("", result.bundle), find_bundle("default")
    assert set(made.parts) >= {"face_encoder", "speech_encoder", "synthesizer", "vocoder", "g2p"}
    assert all(made.verify().values())
    assert made.path("vocoder").read_bytes() == (bundle / "vocoder.safetensors").read_bytes()
    assert made.path("synthesizer").read_bytes() == default.path("synthesizer").read_bytes()
    before, after = (FaceSpeakerEncoder.from_checkpoint(b.path("face_encoder")) for b in (Bundle("", bundle), made))
    assert after.dims == before.dims
    for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert old.equal(new) == (not name.startswith("projection_layer")), name
    assert Face2Voice.load(result.bundle, "cpu").voice_from_face(PORTRAIT).embedding.shape == (256,)


def test_again_is_the_same_and_starts_from_what_is_there(tuned, people, bundle):
    result, _ = tuned
    before = read_checkpoint(result.bundle / "face_encoder.safetensors").tensors
    stale = result.bundle / "calibration.safetensors"
    write_checkpoint(stale, Calibration())
    again = finetune_face_encoder(people, result.bundle, bundle, plan=Plan(30, learning_rate=3e-3, device="cpu"))
    assert again.after == result.after and "0 made, 25 kept" in again.notes[0]
    after = read_checkpoint(result.bundle / "face_encoder.safetensors").tensors
    assert all(after[name].equal(value) for name, value in before.items())
    assert not stale.exists()


def test_one_person(tmp_path, bundle):
    for i in range(2):
        photo(tmp_path / "me" / "faces" / f"{i}.jpg", 1 - 0.1 * i)
        clip(tmp_path / "me" / "speech" / f"{i}.wav", 150 + 5 * i)
    steps = []
    plan = Plan(steps=20, device="cpu")
    result = finetune_face_encoder(
        tmp_path / "me", tmp_path / "out", bundle, plan=plan, progress=lambda *at: steps.append(at)
    )
    assert result.held_out == "held-out photos and clips of 1 people"
    assert set(result.before) == {"cosine"} and result.after["cosine"] > result.before["cosine"]
    assert len(steps) == 20


def test_all_layers_learn(people, bundle, tmp_path, tuned):
    work = tuned[0].bundle.with_name("mine-work")
    plan = Plan(steps=1, batch_size=2, device="cpu", work=work)
    result = finetune_face_encoder(people, tmp_path / "out", bundle, freeze="none", plan=plan)
    old, new = (FaceSpeakerEncoder.from_checkpoint(b / "face_encoder.safetensors") for b in (bundle, result.bundle))
    assert any(not a.equal(b) for a, b in zip(old.resnet.parameters(), new.resnet.parameters(), strict=True))


def test_a_manifest_tells_who_is_held_out(tmp_path, people, bundle, tuned):
    utterances = [
        Utterance(
            people / name / "b" / "c" / "0.wav", speaker=name, faces=(people / name / "a" / "0.jpg",), split=split
        )
        for name, split in (("p00", "train"), ("p01", "train"), ("p02", "test"), ("p03", "test"), ("p04", "test"))
    ]
    write_manifest(tmp_path / "pairs.jsonl", utterances)
    result = finetune_face_encoder(tmp_path / "pairs.jsonl", tmp_path / "out", bundle, plan=Plan(2, device="cpu"))
    assert result.held_out == "3 people held out"


def test_who_is_held_out():
    people = {f"{i:02d}": Person([2 * i], [2 * i + 1]) for i in range(40)}
    split = split_people(people, dict.fromkeys(people, "train"))
    assert [len(some) for some in (split.learned, split.watched, split.measured)] == [29, 3, 8]
    assert len({one.faces[0] for one in (*split.learned, *split.watched, *split.measured)}) == 40
    few = split_people({"a": Person([0], [1, 2]), "b": Person([3], [4])}, {"a": "train", "b": "train"})
    assert few.learned == [Person([0], [1]), Person([3], [4])] or few.learned == [Person([3], [4]), Person([0], [1])]
    assert few.measured == [Person([0], [2])] and few.held_out == "held-out clips of 1 people"
    alone = split_people({"b": Person([3], [4])}, {"b": "train"})
    assert not alone.measured and not alone.held_out


def test_likeness_by_hand():
    true = np.eye(4)[:3]
    made = np.array([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0.8, 0, 0.6, 0]])
    figures = likeness(made, true)
    assert figures == pytest.approx({"cosine": 0.8, "margin": 0.8 - 1.4 / 6, "R@1": 2 / 3})
    assert chance(3) == {"margin": 0.0, "R@1": 1 / 3} and chance(1) == {}


# ---- who is who


def test_folders_of_people(people):
    utterances = read_people(people)
    assert {one.speaker for one in utterances} == {f"p{i:02d}" for i in range(12)} | {"nobody"}
    few = list(at_most([*utterances, *utterances], 1))
    assert sum(bool(one.audio) for one in few) == 12 and sum(len(one.faces) for one in few) == 13


def test_strangers_are_paired_by_sex_and_age():
    faces = [
        Utterance(
            speaker=f"f{i}", sex="fm"[i % 2], age=20 + i, faces=(Path(f"{i}.jpg"),), split="test" * (i > 25) or "train"
        )
        for i in range(30)
    ]
    ages = [4, 30, 35, None, 48]
    clips = [Utterance(Path(f"{i}.wav"), speaker=f"s{i}", sex="m", age=age) for i, age in enumerate(ages)]
    clips.append(Utterance(Path("x.wav"), speaker="x"))
    paired = match_by_sex_and_age([*faces, *clips])
    by_face = {one.faces[0].name: one for one in faces}
    seen = [one for one in paired if one.faces]
    assert {one.speaker for one in paired} == {"s1", "s2", "s3", "s4"}, (
        "the child and who is of unknown sex are left out"
    )
    assert len({one.faces for one in seen}) == len(seen), "nobody's face is another's too"
    assert all(by_face[one.faces[0].name].sex == "m" for one in seen)
    for speaker in ("s1", "s2", "s3", "s4"):
        mine = [one for one in paired if one.speaker == speaker]
        assert len({one.split for one in mine}) == 1
        assert {by_face[one.faces[0].name].split for one in mine if one.faces} == {mine[0].split}
    assert paired == match_by_sex_and_age([*faces, *clips])


def test_where_the_other_parts_come_from(tmp_path, bundle):
    bare = tmp_path / "lip2speech_final.pth"
    bare.write_bytes(b"")
    (tmp_path / "encoder.pt").write_bytes(b"")
    begin = Start.find(bare, "face_encoder")
    assert begin.checkpoint == bare and "face_encoder" not in begin.others
    assert begin.others["speech_encoder"] == tmp_path / "encoder.pt"
    assert begin.others["vocoder"] == find_bundle("default").path("vocoder")
    assert Start.find(bundle, "vocoder").checkpoint == bundle / "vocoder.safetensors"


# ---- one voice


def test_vocoder_of_one_speaker(tmp_path, bundle):
    data = prepared(tmp_path / "data", "vocoder", people=1)
    samples = (voice_like(2.0) * 32767).astype(np.int16)
    for path in data.rglob("*.npz"):
        np.savez(path, samples=samples, mel=np.zeros((80, len(samples) // 200 + 1), np.float16))
    plan = Plan(2, batch_size=2, device="cpu")
    result = finetune_speech("vocoder", tmp_path / "out", data=data, start=bundle, plan=plan)
    voice = Voice.load(result.bundle / "voice.npz")
    assert voice.source == "made/0" and Bundle("", result.bundle).verify()
    new = WaveRNN.from_checkpoint(result.bundle / "vocoder.safetensors")
    assert not new.I.weight.equal(WaveRNN.from_checkpoint(bundle / "vocoder.safetensors").I.weight)
    assert not result.held_out and not result.before, "a single clip cannot be held out"


@pytest.mark.parametrize(
    ("stage", "figures"), [("vocoder", {"held_out_nats"}), ("synthesizer", {"held_out", "held_out_mel"})]
)
def test_held_out_clips_are_measured(tmp_path, bundle, stage, figures):
    start = shutil.copytree(bundle, tmp_path / "start")
    write_checkpoint(start / "synthesizer.safetensors", Tacotron(find_stage("synthesizer").sizes["tiny"]))
    write_checkpoint(start / "equalizer.safetensors", Equalizer())
    for i in range(12):
        clip(tmp_path / "clips" / "me" / f"{i}.wav", 100 + i, 2.0).with_suffix(".txt").write_text("Hello there.")
    steps = []
    plan = Plan(2, batch_size=4, device="cpu")
    clips = [("people", tmp_path / "clips")]
    result = finetune_speech(
        stage, tmp_path / "out", clips, start=start, plan=plan, progress=lambda *at: steps.append(at)
    )
    assert result.held_out == "1 records held out"
    assert set(result.before) == set(result.after) == figures
    assert [share for share, _ in steps] == [0.5, 1]
    assert Bundle("", result.bundle).verify() and (result.bundle / f"{stage}.safetensors").is_file()
    kept = (result.bundle / "equalizer.safetensors").is_file()
    assert kept == (stage == "vocoder"), "what suited the old synthesizer need not suit the new one"


# ---- calibration


def test_calibration_undoes_a_shift(tmp_path):
    rng = np.random.default_rng(0)
    true = rng.random((2000, 8)).astype(np.float32)
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    shifted = true @ (np.eye(8) + 0.2 * rng.normal(size=(8, 8))) + 0.3 * rng.random(8)
    calibration = Calibration.fit(shifted, true)
    write_checkpoint(tmp_path / "calibration.safetensors", calibration)
    again = Calibration.from_checkpoint(tmp_path / "calibration.safetensors")
    voices = again(torch.from_numpy(shifted.astype(np.float32))).numpy()
    np.testing.assert_allclose(np.linalg.norm(voices, axis=1), 1, rtol=1e-5)
    assert voices.min() >= 0 and (voices * true).sum(axis=1).min() > 0.999
    one = Calibration.fit(shifted[:1], true[:1])(torch.from_numpy(shifted[:1].astype(np.float32))).numpy()
    np.testing.assert_allclose(one, true[:1], atol=1e-5)


def test_calibrated_bundle(people, bundle, tmp_path):
    for path in bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    plain = Face2Voice.load(tmp_path, "cpu").voice_from_face(PORTRAIT)
    with pytest.raises(InputError, match="needs no calibration"):
        calibrate(tmp_path, read_people(people))
    result = calibrate(tmp_path, read_people(people), legacy_targets=True)
    assert result.held_out == "2 speakers held out" and "1 clips skipped: silent" in result.notes
    assert result.after["cosine"] > result.before["cosine"]
    tts = Face2Voice.load(tmp_path, "cpu")
    voice = tts.voice_from_face(PORTRAIT)
    assert voice.similarity(plain) < 0.999 and voice.embedding.min() >= 0
    old_app = Face2Voice.load(bundle, "cpu").voice_from_face(PORTRAIT, legacy_app=True)
    assert tts.voice_from_face(PORTRAIT, legacy_app=True).similarity(old_app) == pytest.approx(1)


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "nowhere"}, "nowhere: no such file or folder"),
        ({"pairs": "empty"}, "empty: nothing of people in it"),
        ({"pairs": "apart"}, "nobody has both"),
        ({"pairs": "useless"}, "no record could be made"),
        ({"start": "nowhere"}, "nowhere: no such bundle"),
        ({"start": "missing.pth"}, "missing.pth: no such checkpoint"),
        ({"freeze": "half"}, "backbone or none"),
        ({"out": "file"}, "is a file"),
        ({"out": "bundle"}, "another folder"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
    ],
)
def test_what_cannot_be_learned_from_is_told(tmp_path, bundle, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    photo(tmp_path / "apart" / "a" / "a.jpg", 1)
    clip(tmp_path / "apart" / "b" / "b.wav", 100)
    (tmp_path / "useless" / "a").mkdir(parents=True)
    (tmp_path / "useless" / "a" / "a.jpg").write_bytes(b"")
    given = {"pairs": "apart", "out": "out", "start": bundle, "freeze": "backbone"} | options
    plan = Plan(1, device=given.pop("device", "cpu"))
    paths = {"pairs": tmp_path / given["pairs"], "out": bundle if given["out"] == "bundle" else tmp_path / given["out"]}
    with pytest.raises((InputError, CheckpointError), match=message) as error:
        finetune_face_encoder(**given | paths, plan=plan)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_speech_needs_one_source(bundle, tmp_path):
    with pytest.raises(InputError, match="--corpus or --data"):
        finetune_speech("vocoder", tmp_path / "out", start=bundle)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "face-encoder", "--out", "o"], "--pairs or --corpus"),
        (["finetune", "face-encoder", "--out", "o", "--pairs", "p", "--pair-by", "sex-age"], "is for --corpus"),
        (["finetune", "vocoder", "--out", "o", "--corpus", "people"], "write NAME=PATH"),
        (["calibrate", "default"], "--corpus or --clips"),
    ],
)
def test_command_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["face2voice", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_command_prints_the_table(people, bundle, tuned, tmp_path, capsys):
    from face2voice.commands.finetune import face_encoder

    work = tuned[0].bundle.with_name("mine-work")
    face_encoder(
        tmp_path / "out", people, start=str(bundle), steps=2, learning_rate=3e-3, device="cpu", workers=0, work=work
    )
    told = capsys.readouterr()
    assert all(word in told.out for word in ("held out", "cosine", "margin", "R@1", "before", "after", "chance"))
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["sha256"]
    assert "speak with --bundle" in told.err
