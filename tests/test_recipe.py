"""What the default bundle is made of, and how it is measured."""

import importlib.util

import numpy as np
import pytest
import torch

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder.train import ProjectionTask
from face2voice.evaluation import held_out
from face2voice.evaluation.sound import median_f0
from face2voice.recipes.default import character
from face2voice.recipes.equalizer import fit_curve
from face2voice.recipes.sources import read_voteview
from face2voice.recipes.voicebank import (
    SAMPLE_RATE,
    PseudoSpeaker,
    WorldVoice,
    pseudo_speakers,
    script,
    wordnet_sentences,
)
from savedmodels import InputError


def buzz(f0: float, seconds: float = 1.0) -> np.ndarray:
    """A vowel-like sound of that pitch."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, int(3500 / f0))) * 0.1


def test_pseudo_speakers_are_told_apart_by_pitch():
    speakers = pseudo_speakers()
    assert len({s.name for s in speakers}) == 64
    assert sum(s.sex == "f" for s in speakers) == 32
    assert all(85 <= s.f0 <= 155 for s in speakers if s.sex == "m")
    assert all(160 <= s.f0 <= 255 for s in speakers if s.sex == "f")
    assert speakers == pseudo_speakers()


@pytest.mark.skipif(importlib.util.find_spec("pyworld") is None, reason="pyworld is not installed")
def test_world_turns_a_voice():
    speaker = PseudoSpeaker("f", "f", 30, f0=202.0, f0_range=1.0, stretch=1.1, rate=2.0, colour=(3.0, -2.0))
    spoken = WorldVoice(buzz(101.0)).speak(speaker)
    assert spoken.dtype == np.float32
    assert len(spoken) == pytest.approx(SAMPLE_RATE / 2, rel=0.05)
    assert median_f0(spoken) == pytest.approx(202, rel=0.03)


def test_a_curve_is_found_that_makes_voices_what_they_should_be():
    torch.manual_seed(0)
    encoder = SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=16, layers=1, embedding=16, log_mels=True)).eval()
    dull = [buzz(f0, 1.6).astype(np.float32) for f0 in (100.0, 130.0, 170.0)]
    bright = [np.diff(clip, append=0.0).astype(np.float32) for clip in dull]  # 6 dB more an octave
    toward = np.mean([encoder.embed_utterance(clip) for clip in bright], axis=0)
    away = toward - encoder.embed_utterance(dull[0])
    curve = fit_curve(encoder.requires_grad_(False), dull, 60 * away)  # so much that the curve's size hardly counts
    assert curve.shape == (80,)
    assert curve[60:].mean() > curve[:20].mean() + 3


def test_character_is_what_sex_and_age_do_not_tell():
    rng = np.random.default_rng(0)
    sexes, ages = np.array(["f", "m"] * 100), rng.uniform(20, 80, 200)
    values = rng.normal(size=(200, 12)) + 5 * (sexes == "f")[:, None] + ages[:, None] / 10
    scores = character(values, sexes, ages, 3)
    for sex in "fm":
        mine = scores[sexes == sex]
        assert np.allclose(mine.mean(axis=0), 0, atol=1e-9) and np.allclose(mine.std(axis=0), 1)
        together = np.corrcoef(np.column_stack([mine, ages[sexes == sex]]), rowvar=False)
        assert np.allclose(together, np.eye(4), atol=1e-9)


def test_script_keeps_known_words(tmp_path):
    gloss = 'x 01 n | a thing; "the old house"; "he saw a zyxgrop there"; "in 1905 it rained"; "she laughed loudly?"\n'
    for part in ("adj", "adv", "noun", "verb"):
        (tmp_path / f"data.{part}").write_text(gloss)
    sentences = wordnet_sentences(tmp_path)
    assert sentences == ["The old house.", "He saw a zyxgrop there.", "She laughed loudly?"]
    texts = script(sentences, lambda word: word != "zyxgrop", count=5, seed=0)
    assert texts
    assert all("zyxgrop" not in text for text in texts)
    with pytest.raises(InputError, match="wordnet-base"):
        wordnet_sentences(tmp_path / "nowhere")


def test_portraits_are_read_and_split(tmp_path):
    rows = [f"{i:06d},{'FM'[i % 2]},1950,2000,wiki,images/{i:06d}.jpg" for i in range(60)]
    (tmp_path / "members.csv").write_text("icpsr,sex,birth_year,photo_year_approx,source,image\n" + "\n".join(rows))
    portraits = read_voteview(tmp_path)
    assert len(portraits) == 60
    assert portraits[0].sex == "f"
    assert portraits[0].age == 50
    assert 0 < sum(p.held_out for p in portraits) < 30
    assert [p.sex for p in held_out(tmp_path, 4)] == ["f", "m"] * 2
    with pytest.raises(InputError, match="asked for"):
        held_out(tmp_path, 60)
    with pytest.raises(InputError, match="members.csv"):
        read_voteview(tmp_path / "images")


def test_projection_learns_which_voice_suits():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sexes = np.arange(40) % 2
    features = rng.normal(size=(40, 128)) * 0.05 + np.where(sexes, 0.1, -0.1)[:, None]
    voices = np.eye(256)[:2]
    encoder = FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", features=128))
    task = ProjectionTask(encoder, features, voices, np.eye(2)[sexes], batch_size=20)
    optimizer = torch.optim.Adam(encoder.projection_layer.parameters(), lr=1e-3)
    for batch in [batch for epoch in range(30) for batch in task.batches(epoch, seed=0)]:
        loss, _ = task.loss(task.collate(batch), 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answers = encoder.projection_layer(torch.from_numpy(features).float())
    assert (answers[:, :2].argmax(dim=1).numpy() == sexes).all()
