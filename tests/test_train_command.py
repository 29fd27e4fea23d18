"""``face2voice train`` on folders of records: from data to a checkpoint that its network reads."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder import FaceSpeakerEncoder, SpeechSpeakerEncoder
from face2voice.commands.train import train
from face2voice.preprocess.store import record_path
from face2voice.stages import Options, build_task
from savedmodels import CheckpointError, InputError
from synthesizer import Tacotron
from synthesizer.text import PHONES
from vocoder import WaveRNN

NETWORKS = {
    "speech-encoder": SpeechSpeakerEncoder,
    "face-encoder": FaceSpeakerEncoder,
    "synthesizer": Tacotron,
    "vocoder": WaveRNN,
}


def records_of(model, speaker, rng):
    """Arrays of each record that a speaker has, as the model's maker makes them, and their length."""
    if model == "speech-encoder":
        return [({"mels": rng.random((200, 40)).astype(np.float16) * (1 + speaker)}, 200) for _ in range(2)]
    if model == "face-encoder":
        crops = np.full((1, 160, 160, 3), 20 * speaker, np.uint8)
        raw = rng.normal(size=256).astype(np.float32)
        voice = {"crops": crops[:0], "raw": raw, "legacy_raw": 100 * raw, "voice": np.eye(256)[speaker]}
        return [({"crops": crops}, 1), (voice, 0)]
    if model == "synthesizer":
        voice = np.eye(256, dtype=np.float32)[speaker]
        return [({"symbols": np.array([5, 6, 1], np.int16), "mel": np.zeros((80, 20), np.float16), "voice": voice}, 20)]
    samples = (rng.normal(size=4000) * 3000).astype(np.int16)
    return [({"samples": samples, "mel": rng.uniform(-4, 4, (80, 21)).astype(np.float16)}, 4000)]


def prepared(folder, model, people=8, **options):
    rng = np.random.default_rng(0)
    lines = []
    for speaker in range(people):
        for arrays, length in records_of(model, speaker, rng):
            key = f"{len(lines):04x}"
            path = record_path(folder, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
            lines.append(json.dumps({"key": key, "speaker": f"made/{speaker}", "split": "train", "length": length}))
    (folder / "settings.json").write_text(json.dumps({"model": model, "options": options}))
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("stage", NETWORKS)
def test_from_records_to_a_checkpoint(tmp_path, stage, capfd):
    data = prepared(tmp_path / "data", stage, symbols="phones")
    run = tmp_path / "run"
    train(stage, data, run, steps=2, size="tiny", batch_size=4, accelerator="cpu")
    network = NETWORKS[stage].from_checkpoint(run / "model.safetensors")
    assert "trained" in capfd.readouterr().err
    train(stage, data, tmp_path / "on", start=str(run / "best.safetensors"), steps=1, batch_size=4, accelerator="cpu")
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


def test_sizes():
    from face2voice.stages import STAGES

    for stage, network in NETWORKS.items():
        with torch.device("meta"):
            assert network(STAGES[stage].sizes["published"]) is not None
    assert STAGES["synthesizer"].sizes["default"].symbols == PHONES.symbols


@pytest.mark.parametrize(
    "options, told",
    [
        ({"stage": "vocoders"}, "speech-encoder, face-encoder, synthesizer, vocoder"),
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


def test_max_time_is_hours_minutes_seconds():
    from face2voice.commands.train import _seconds

    assert _seconds("01:02:03") == 3723
    assert _seconds("25:00") == 1500
    assert math.isclose(_seconds("90"), 90)
