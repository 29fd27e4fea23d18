import numpy as np
import pytest

from face2voice.voice import Voice
from face2voice.voicespace import VoiceSpace
from savedmodels import CheckpointError, InputError


@pytest.fixture(scope="module")
def space() -> VoiceSpace:
    """Forty speakers whose first three numbers follow pitch, age and sex."""
    rng = np.random.default_rng(0)
    sexes = np.array(["m", "f"] * 20)
    f0 = np.where(sexes == "m", 115, 205) * 2 ** rng.uniform(-0.2, 0.2, 40)
    ages = rng.uniform(20, 80, 40)
    embeddings = rng.uniform(0.2, 0.3, (40, 256))
    embeddings[:, 0] = 0.5 + 0.8 * np.log2(f0 / 150)
    embeddings[:, 1] = 0.3 + 0.01 * (ages - 50)
    embeddings[:, 2] = sexes == "m"
    embeddings = np.maximum(embeddings, 0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = np.array([f"{sex}{i}" for i, sex in enumerate(sexes)])
    return VoiceSpace(names, sexes, ages, f0, embeddings.astype(np.float32))


def test_nearest_is_itself(space):
    (first, cosine), (second, _) = space.nearest(Voice(space.embeddings[7]), 2)
    assert first.source == space.names[7] and cosine == pytest.approx(1.0, abs=1e-5)
    assert second.source[0] == space.sexes[7]


def test_pitch_and_age_move_their_own_way(space):
    voice = Voice(space.embeddings[0])
    assert space.shifted(voice) is voice
    up, down = (space.shifted(voice, semitones=s).embedding for s in (3, -3))
    old, young = (space.shifted(voice, years=y).embedding for y in (20, -20))
    assert up[0] > voice.embedding[0] > down[0] and old[1] > voice.embedding[1] > young[1]
    assert abs(up[1] - down[1]) < 0.2 * (up[0] - down[0]) and abs(old[0] - young[0]) < 0.2 * (old[1] - young[1])
    assert np.linalg.norm(up) == pytest.approx(1.0, abs=1e-5) and up.min() >= 0


@pytest.mark.parametrize("options", [{"semitones": 13}, {"years": -41}, {"semitones": float("nan")}])
def test_too_far(space, options):
    with pytest.raises(InputError, match="choose"):
        space.shifted(Voice(space.embeddings[0]), **options)


def test_candidates_begin_with_the_voice_and_differ(space):
    voice = Voice(space.embeddings[3])
    first, *others = space.candidates(voice, 4, seed=1)
    assert first is voice and len(others) == 3
    assert all(0.8 < voice.similarity(other) < 0.9999 for other in others)
    again = space.candidates(voice, 4, seed=1)
    assert all(np.array_equal(a.embedding, b.embedding) for a, b in zip(again[1:], others, strict=True))
    with pytest.raises(InputError):
        space.candidates(voice, 0)


def test_saved_and_loaded(space, tmp_path):
    space.save(tmp_path / "voices.npz")
    loaded = VoiceSpace.load(tmp_path / "voices.npz")
    assert all(np.array_equal(value, getattr(space, name)) for name, value in vars(loaded).items())
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="bad.npz"):
        VoiceSpace.load(tmp_path / "bad.npz")
