"""``face2voice train`` on folders of records: from data to a checkpoint that its network reads."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_speech import voice_like

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder
from face2voice.commands import output
from face2voice.commands.options import seconds_of
from face2voice.commands.train import train
from face2voice.preprocess.store import record_path
from face2voice.speech2face.decoder import FaceDecoder, FaceDecoderDims
from face2voice.speech2face.landmarks import FIVE_OF_68, template
from face2voice.speech2face.portraits import Portraits
from face2voice.speech2face.train import VoiceEncoderLoss
from face2voice.speech2face.vggface import VGGFace, VGGFaceDims
from face2voice.speech2face.voice_encoder import VoiceEncoder
from face2voice.stages import Options, build_task
from savedmodels import CheckpointError, InputError, write_checkpoint
from savedmodels.bundles import sha256
from synthesizer import Tacotron
from synthesizer.text import PHONES
from vocoder import WaveRNN

NETWORKS = {
    "speech-encoder": SpeechSpeakerEncoder,
    "face-encoder": FaceSpeakerEncoder,
    "synthesizer": Tacotron,
    "vocoder": WaveRNN,
    "face-decoder": FaceDecoder,
    "voice-encoder": VoiceEncoder,
}
FEATURES = 16


@pytest.fixture(scope="module")
def face_encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("faces") / "face_encoder.safetensors"
    write_checkpoint(path, FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", features=FEATURES, hidden=8)))
    return path


def records_of(model, speaker, rng):
    """Arrays of each record that a speaker has, as the model's maker makes them, and their length."""
    if model == "speech-encoder":
        return [({"mels": rng.random((200, 40)).astype(np.float16) * (1 + speaker)}, 200) for _ in range(2)]
    if model == "face-encoder":
        crops = np.full((1, 160, 160, 3), 20 * speaker, np.uint8)
        raw = rng.normal(size=256).astype(np.float32)
        voice = {"crops": crops[:0], "raw": raw, "legacy_raw": 100 * raw, "voice": np.eye(256)[speaker]}
        return [({"crops": crops}, 1), (voice, 0)]
    if model == "face-decoder":
        shades = np.linspace(0, 255, 224)[:, None, None] * rng.random(3)
        five = template()[None, list(FIVE_OF_68)].astype(np.float32)
        features = rng.normal(size=(1, 2, FEATURES)).astype(np.float32)
        crops = np.broadcast_to(shades, (224, 224, 3)).astype(np.uint8)[None]
        return [({"crops": crops, "points": five, "features": features}, 1)]
    if model == "voice-encoder":  # heard, seen, or both
        clip = (voice_like(1.0, 100 + 15 * speaker) * 32767).astype(np.int16)
        feature = rng.normal(size=FEATURES).astype(np.float32)
        video = ({"samples": clip, "feature": feature}, len(clip))
        return [video, ({"samples": clip}, len(clip)), ({"samples": clip[:0], "feature": feature + 0.1}, 0)]
    if model == "synthesizer":
        voice = np.eye(256, dtype=np.float32)[speaker]
        return [({"symbols": np.array([5, 6, 1], np.int16), "mel": np.zeros((80, 20), np.float16), "voice": voice}, 20)]
    samples = (rng.normal(size=4000) * 3000).astype(np.int16)
    return [({"samples": samples, "mel": rng.uniform(-4, 4, (80, 21)).astype(np.float16)}, 4000)]


def prepared(folder, model, people=8, who=lambda speaker, place: {}, **options):
    """Who is what is known of the person that a speaker's record in that place is of."""
    rng = np.random.default_rng(0)
    lines = []
    for speaker in range(people):
        for place, (arrays, length) in enumerate(records_of(model, speaker, rng)):
            key = f"{len(lines):04x}"
            path = record_path(folder, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
            line = {"key": key, "speaker": f"made/{speaker}", "split": "train", "length": length}
            lines.append(json.dumps(line | who(speaker, place)))
    (folder / "settings.json").write_text(json.dumps({"model": model, "options": options}))
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("stage", NETWORKS)
def test_from_records_to_a_checkpoint(tmp_path, stage, capfd, face_encoder):
    data = prepared(tmp_path / "data", stage, symbols="phones", face_encoder=sha256(face_encoder))
    run, options = tmp_path / "run", {"batch_size": 4, "accelerator": "cpu", "face_encoder": str(face_encoder)}
    train(stage, data, run, steps=2, size="tiny", **options)
    network = NETWORKS[stage].from_checkpoint(run / "model.safetensors")
    assert "trained" in capfd.readouterr().err
    train(stage, data, tmp_path / "on", start=str(run / "best.safetensors"), steps=1, **options)
    again = NETWORKS[stage].from_checkpoint(tmp_path / "on" / "model.safetensors")
    assert again.dims == network.dims
    changed = [n for (n, p), q in zip(network.named_parameters(), again.parameters(), strict=True) if not p.equal(q)]
    assert changed
    if stage == "face-encoder":  # whose backbone has learned by then
        assert all(name.startswith("projection_layer") for name in changed)


def test_legacy_targets(tmp_path):
    data = prepared(tmp_path, "face-encoder")
    true, legacy = (
        build_task("face-encoder", data, Options(size="tiny", legacy_targets=legacy)) for legacy in (False, True)
    )
    assert len(true.people) == 6 and len(true.held_out) == 2
    person = true.people[0]
    np.testing.assert_allclose(legacy.voices[person.voices[0]], 100 * true.voices[person.voices[0]], rtol=1e-5)


def voices_and_faces(folder, face_encoder, **options):
    return prepared(folder, "voice-encoder", face_encoder=sha256(face_encoder), **options)


@pytest.mark.parametrize("pairing", [None, "one-to-one"])
def test_voices_are_shown_their_own_faces(tmp_path, face_encoder, pairing):
    data = voices_and_faces(tmp_path, face_encoder)
    task = build_task("voice-encoder", data, Options(size="tiny", face_encoder=face_encoder, pairing=pairing))
    assert len(task.clips) == 12 and len(task.held_out[0]) == 4 and len(task.faces) == 16
    assert task.weights.decoder == 0 and task.classifier is None
    pairs = [pair for epoch in range(8) for batch in task.batches(epoch, 0) for pair in batch]
    own = {(task.clips.indices[pair.clip] // 3, pair.face // 2) for pair in pairs}
    assert all(speaker == face for speaker, face in own) and len(own) == 6
    shown = {(pair.clip, pair.face) for pair in pairs}
    assert len(shown) == (24 if pairing is None else 12)
    assert not set(pair.face // 2 for pair in pairs) & {i // 3 for i in task.held_out[0].indices}


def test_voices_are_shown_faces_of_their_sex_and_age(tmp_path, face_encoder):
    def who(speaker, place):
        """People who are heard, one of them a child, and others, who are seen."""
        known = {"sex": "fm"[speaker % 2], "age": 9 if speaker == 2 else 30 + speaker}
        return known | {"speaker": f"made/{'heard' if place == 1 else 'seen'}{speaker}", "length": place == 1}

    data = voices_and_faces(tmp_path, face_encoder, who=who)
    task = build_task("voice-encoder", data, Options(size="tiny", face_encoder=face_encoder))
    assert set(task.evaluate()) == {"distance", "right_sex"}
    entries = [json.loads(line) for line in (data / "index.jsonl").read_text().splitlines()]
    faces = [entry for entry in entries if "seen" in entry["speaker"]]
    clips = [entries[i] for i in (*task.clips.indices, *task.held_out[0].indices)]
    assert sorted(entry["speaker"] for entry in clips) == [f"made/heard{i}" for i in range(8)]
    pairs = [pair for batch in task.batches(0, 0) for pair in batch]
    assert all(clips[pair.clip]["sex"] == faces[pair.face]["sex"] for pair in pairs)


def test_children_are_shown_no_adults(tmp_path, face_encoder):
    def who(speaker, place):
        age = 9 if place == 1 and speaker == 2 else 40
        return {"sex": "f", "age": age, "speaker": f"made/{'heard' if place == 1 else 'seen'}{speaker}"}

    data = voices_and_faces(tmp_path, face_encoder, who=who)
    task = build_task("voice-encoder", data, Options(size="tiny", face_encoder=face_encoder, pairing="sex-and-age"))
    assert not {7} & {*task.clips.indices, *task.held_out[0].indices}


def test_vgg_face_brings_its_loss(tmp_path):
    torch.manual_seed(0)
    vgg, face_decoder = tmp_path / "vgg_face.safetensors", tmp_path / "face_decoder.safetensors"
    write_checkpoint(vgg, VGGFace(VGGFaceDims((2, 2, 2, 2, 2), hidden=FEATURES, classes=5, side=32)))
    data = voices_and_faces(tmp_path / "data", vgg)
    from face2voice.stages import STAGES

    write_checkpoint(face_decoder, FaceDecoder(replace(STAGES["face-decoder"].sizes["tiny"], feature=FEATURES)))
    task = build_task("voice-encoder", data, Options(size="tiny", face_encoder=vgg, decoder=face_decoder))
    assert task.weights == VoiceEncoderLoss()
    loss, parts = task.loss(task.collate(next(task.batches(0, 0))), 0.0)
    loss.backward()
    assert set(parts) == {"decoder", "normalised", "distillation"}
    assert all(p.grad is None for part in (task.decoder, task.classifier) for p in part.parameters())


def test_faces_described_otherwise_are_told(tmp_path, face_encoder):
    data = voices_and_faces(tmp_path / "data", face_encoder)
    other, face_decoder = tmp_path / "other.safetensors", tmp_path / "face_decoder.safetensors"
    write_checkpoint(other, FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", features=8, hidden=8)))
    write_checkpoint(face_decoder, FaceDecoder(FaceDecoderDims(feature=8, shared=(4,))))
    for message, options in (
        ("other.safetensors: not what described", {"face_encoder": other}),
        ("face_decoder.safetensors: made for 8 numbers", {"decoder": face_decoder}),
        ("choose one of one-to-one", {"pairing": "any-to-any"}),
        ("no clip has a face to go with it", {"pairing": "sex-and-age"}),
    ):
        with pytest.raises(InputError, match=message):
            build_task("voice-encoder", data, Options(**{"size": "tiny", "face_encoder": face_encoder} | options))


def test_portraits_are_laid_out_once(tmp_path, face_encoder, monkeypatch):
    data = prepared(tmp_path, "face-decoder", face_encoder=sha256(face_encoder))
    options = Options(size="tiny", face_encoder=face_encoder)
    task = build_task("face-decoder", data, options)
    assert len(task.portraits) == 6 and len(task.held_out) == 2
    monkeypatch.setattr(Portraits, "of_frames", None)
    again = build_task("face-decoder", data, options)
    assert np.array_equal(again.portraits.textures, task.portraits.textures)
    published = task.portraits.with_points(72)
    assert published.landmarks.shape == (6, 72, 2)
    assert np.array_equal(published.with_points(68).landmarks, task.portraits.landmarks)
    moved = task.portraits.on_mean(template().astype(np.float32) + 1)
    assert np.abs(moved.textures.astype(float) - task.portraits.textures).mean() < 3


def test_sizes():
    from face2voice.stages import STAGES

    for stage, network in NETWORKS.items():
        with torch.device("meta"):
            assert network(STAGES[stage].sizes["published"]) is not None
    assert STAGES["synthesizer"].sizes["default"].symbols == PHONES.symbols


@pytest.mark.parametrize(
    "options, told",
    [
        ({"stage": "vocoders"}, "speech-encoder, face-encoder, synthesizer, vocoder, face-decoder, voice-encoder"),
        ({"stage": "synthesizer"}, "holds records for the vocoder"),
        ({"steps": None}, "--max-time"),
        ({"max_time": "soon"}, "HH:MM:SS"),
        ({"size": "huge"}, "default, published"),
        ({"precision": "int4"}, "bf16-mixed"),
        ({"data": "nowhere"}, "nowhere: not a preprocessed folder"),
        ({"start": "missing.safetensors"}, "missing.safetensors"),
    ],
)
def test_what_cannot_be_trained_is_told(tmp_path, options, told):
    data = prepared(tmp_path / "data", "vocoder", people=2)
    given = {"stage": "vocoder", "data": data, "out": tmp_path / "run", "steps": 1, "size": "tiny"} | options
    with pytest.raises((InputError, CheckpointError), match=told):
        train(**given | {"data": Path(given["data"])})
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_the_options_it_began_with(tmp_path):
    data, run = prepared(tmp_path / "data", "vocoder", people=4), tmp_path / "run"
    begun = {"size": "tiny", "batch_size": 4, "accelerator": "cpu"}
    train("vocoder", data, run, steps=1, **begun)
    for other, told in (({"batch_size": 2}, "with --batch-size 4;"), ({"legacy_targets": True}, "without --legacy-ta")):
        with pytest.raises(InputError, match=told):
            train("vocoder", data, run, steps=2, **begun | other)
    train("vocoder", data, run, steps=2, patience=3, **begun)
    assert torch.load(run / "state.pt", weights_only=True)["step"] == 2


def test_max_time_is_hours_minutes_seconds():
    assert seconds_of("01:02:03") == 3723
    assert seconds_of("25:00") == 1500
    assert seconds_of("90") == 90
    assert seconds_of(None) == math.inf


def test_where_nobody_watches_lines_tell_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(output, "_LINE_SECONDS", 0.0)
    with output.progress("listening", total=None) as advance:
        advance(3)
        advance(5, 10)  # what is there already tells nothing of how fast it goes
        advance(6, 10)
        advance(0.25, 1.0, "learning, loss 2")
        advance(0.5)
    *told, first, second = capsys.readouterr().err.splitlines()
    assert told[:2] == ["listening: 3", "listening: 5 of 10"] and told[2].startswith("listening: 6 of 10, 0:00:0")
    assert first == "learning, loss 2: 25%" and second.startswith("learning, loss 2: 50%, 0:00:0")
