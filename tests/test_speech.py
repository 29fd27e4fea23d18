"""Speech clip -> features -> embedding, and the training of a small encoder from a large one."""

import logging
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from synthetic import probe_inputs, published

from encoder import audio
from encoder.distil import DistilTask, Lessons, agreement, equal_error_rate
from encoder.speech_model import SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from savedmodels import InputError, write_checkpoint

RATE = audio.SAMPLE_RATE
TINY = SpeechSpeakerEncoderDims(hidden=8, layers=1, log_mels=True)
GOLDEN = Path(__file__).parent / "data" / "golden_seed1.npz"


def voice_like(seconds: float, pitch: float = 120.0, rate: int = RATE) -> np.ndarray:
    """A buzz through two moving resonances: enough of a voice for the voice activity detector."""
    time = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(time))
    for harmonic in range(1, int(4000 / pitch)):
        frequency = harmonic * pitch
        peaks = [500 + 200 * np.sin(9 * time), 1500 + 400 * np.sin(5 * time)]
        gain = sum(np.exp(-(((frequency - peak) / 150) ** 2)) for peak in peaks)
        sound += gain * np.sin(2 * np.pi * frequency * time)
    return (0.1 * sound * (1 + 0.5 * np.sin(25 * time))).astype(np.float32)


@pytest.fixture(scope="module")
def teacher() -> SpeechSpeakerEncoder:
    torch.manual_seed(0)
    return SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=16, layers=1)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def lessons(teacher) -> Lessons:
    """Three speakers, four utterances each, one of them shorter than a partial utterance."""
    pitches = {"low": 90.0, "middle": 150.0, "high": 240.0}
    lengths = (1.0, 1.7, 2.0, 2.5)
    return Lessons.collect(teacher, ((voice_like(s, hz), name) for name, hz in pitches.items() for s in lengths))


def test_mel_equals_librosa():
    samples = voice_like(1.3)
    reference = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=400, hop_length=160, n_mels=40).T
    mel = audio.mel_spectrogram(samples)
    assert mel.dtype == np.float32
    assert mel.shape == (1 + len(samples) // 160, 40)
    np.testing.assert_allclose(mel, reference, atol=1e-5 * reference.max())


@pytest.mark.parametrize("n_samples", [1, 8_000, 25_599, 25_600, 25_601, 40_000, 51_200, 480_000])
@pytest.mark.parametrize("step", [77, 80])
def test_partials_cover_the_utterance(n_samples, step):
    slices = audio.partial_slices(n_samples, step)
    for number, (samples, frames) in enumerate(slices):
        assert frames == slice(number * step, number * step + 160)
        assert samples == slice(frames.start * 160, frames.stop * 160)
    assert len(slices) == 1 or n_samples - slices[-1][0].start >= 0.75 * 25_600
    assert n_samples - slices[-1][0].stop < step * 160  # or one more would have fitted
    assert audio.partial_mels(np.zeros(n_samples, np.float32), step).shape == (len(slices), 160, 40)


def test_pauses_are_cut_and_quiet_speech_raised():
    speech = voice_like(2.0)
    silence = np.zeros(RATE, np.float32)
    quiet = 0.01 * np.concatenate([silence, speech, silence])
    prepared = audio.prepare(quiet)
    assert len(prepared) % audio.VAD_WINDOW == 0
    assert abs(len(prepared) - len(speech)) < 0.5 * RATE
    assert np.square(prepared).mean() == pytest.approx(1e-3 * len(quiet) / len(prepared), rel=0.05)
    loud = audio.prepare(speech)
    assert np.isin(loud, speech).all()  # left as loud as it was


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_kinds_of_file_whatever_their_name(tmp_path, suffix):
    path = tmp_path / "clip.raw"
    soundfile.write(path, voice_like(1.0), RATE, format=suffix)
    samples = audio.load_speech(path)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(RATE, rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_any_rate_and_channels(tmp_path, rate):
    path = tmp_path / "clip.wav"
    mono = voice_like(1.0, rate=rate)
    soundfile.write(path, np.stack([mono, 0 * mono], axis=1), rate, subtype="PCM_24")
    samples = audio.load_speech(path)
    assert samples.shape == (RATE,)
    expected = np.sqrt(np.square(mono).mean()) / 2
    assert np.sqrt(np.square(samples).mean()) == pytest.approx(expected, rel=0.05)


def test_arrays_of_integers_are_scaled():
    sound = voice_like(1.0)
    for dtype, middle, half in ((np.int16, 0, 2**15), (np.int32, 0, 2**31), (np.uint8, 128, 2**7)):
        whole = (sound.astype(np.float64) * (half - 1) + middle).round().astype(dtype)
        np.testing.assert_allclose(audio.load_speech((whole, RATE)), sound, atol=2 / half + 1e-6)


def test_only_the_start_of_a_long_clip_is_read(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(voice_like(1.0), 40), RATE)
    assert len(audio.load_speech(path)) == 30 * RATE
    assert len(audio.load_speech(path, seconds=5)) == 5 * RATE


def test_clipping_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        audio.load_speech((np.sign(voice_like(1.0)), RATE))
    assert "clipped" in caplog.text


def wav(tmp_path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    return path


def damaged_flac(tmp_path: Path) -> Path:
    path = tmp_path / "bad.flac"
    soundfile.write(path, voice_like(1.0), RATE)
    content = bytearray(path.read_bytes())
    content[5000:5200] = bytes(200)
    path.write_bytes(content)
    return path


BAD_FILES = {
    "missing": (lambda folder: folder / "bad.wav", "no such file"),
    "a folder": (lambda folder: folder, "no such file"),
    "empty": (lambda folder: written(folder, b""), "not a WAV"),
    "text": (lambda folder: written(folder, b"just some text\n" * 9), "not a WAV"),
    "cut in its header": (lambda folder: written(folder, b"RIFF\0\0\0\0WAVEfmt "), "damaged"),
    "damaged": (damaged_flac, "damaged"),
    "header only": (lambda folder: wav(folder, np.zeros(0)), "too short"),
    "too short": (lambda folder: wav(folder, voice_like(0.4)), "too short"),
    "silence": (lambda folder: wav(folder, np.zeros(RATE)), "silent"),
    "NaN": (lambda folder: wav(folder, np.append(voice_like(1.0), np.nan)), "no sound"),
    "infinite": (lambda folder: wav(folder, np.append(voice_like(1.0), np.inf)), "no sound"),
    "huge": (lambda folder: wav(folder, voice_like(1.0) * 1e30), "no sound"),
    "slow": (lambda folder: wav(folder, voice_like(1.0), 4_000), "4000 samples a second"),
    "many channels": (lambda folder: wav(folder, np.zeros((RATE, 9))), "9 channels"),
    "noise": (
        lambda folder: wav(folder, 0.001 * np.random.default_rng(0).standard_normal(2 * RATE)),
        "no speech",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_in_one_line(tmp_path, kind):
    make, reason = BAD_FILES[kind]
    path = make(tmp_path)
    with pytest.raises(InputError, match=reason) as error:
        audio.load_prepared(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 2, 2)), np.array(1.0), np.zeros(RATE, complex), np.zeros((2, RATE)), np.zeros(0)]
)
def test_bad_arrays_are_refused(samples):
    with pytest.raises(InputError, match="the clip"):
        audio.load_speech((samples, RATE))


def test_published_layout_gives_the_golden_output(tmp_path):
    path = tmp_path / "encoder.pt"
    torch.save({"step": 1, "model_state": published("encoder"), "optimizer_state": {}}, path)
    encoder = SpeechSpeakerEncoder.from_checkpoint(path)
    golden = np.load(GOLDEN)["speech_embed"]
    output = encoder(probe_inputs()["speech_mel"]).numpy()
    assert np.linalg.norm(output - golden) <= 1e-4 * np.linalg.norm(golden)


def test_embedding_survives_our_own_checkpoint(tmp_path, teacher):
    path = tmp_path / "encoder.safetensors"
    write_checkpoint(path, teacher)
    copy = SpeechSpeakerEncoder.from_checkpoint(path)
    assert copy.dims == teacher.dims
    clip = (voice_like(3.0), RATE)
    voice = copy.embed(clip)
    np.testing.assert_array_equal(voice, teacher.embed(clip))
    assert voice.shape == (256,)
    assert voice.dtype == np.float32
    assert voice.min() >= 0
    assert np.linalg.norm(voice) == pytest.approx(1, abs=1e-5)


def test_chunks_do_not_change_a_long_utterance(teacher):
    mels = np.random.default_rng(0).random((70, 160, 40), dtype=np.float32)
    mean = teacher(torch.from_numpy(mels)).mean(0)
    np.testing.assert_allclose(teacher.embed_partials(mels), mean / mean.norm(), atol=1e-5)


def test_equal_error_rate():
    speakers = np.array(["a", "a", "b", "b"])
    apart = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert equal_error_rate(apart, speakers) == 0
    rng = np.random.default_rng(0)
    guess = rng.standard_normal((300, 4))
    guess /= np.linalg.norm(guess, axis=1, keepdims=True)
    assert equal_error_rate(guess, rng.integers(5, size=300)) == pytest.approx(0.5, abs=0.02)
    assert np.isnan(equal_error_rate(apart[:1], speakers[:1]))


@torch.inference_mode()
def test_a_new_encoder_hears_the_beginning():
    """Its answer is read off the last step, and there is nothing to learn from what does not reach it."""
    torch.manual_seed(0)
    encoder = SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=32, layers=2, log_mels=True))
    mel = torch.rand(1, audio.PARTIAL_FRAMES, audio.MELS)
    other = mel.clone()
    other[:, : audio.PARTIAL_FRAMES // 8] *= 0.01
    assert (encoder.raw(mel) - encoder.raw(other)).norm() > 1e-3 * encoder.raw(mel).norm()


def test_lessons_survive_a_file(tmp_path, lessons):
    lessons.save(tmp_path / "lessons.npz")
    again = Lessons.load(tmp_path / "lessons.npz")
    assert all(np.array_equal(a, b) for a, b in zip(vars(again).values(), vars(lessons).values(), strict=True))
    learned, apart = lessons.split(share=1 / 3)
    assert len(set(apart.speakers)) == 1
    assert not set(learned.speakers) & set(apart.speakers)


def test_distilling_approaches_the_teacher(lessons):
    torch.manual_seed(0)
    student = SpeechSpeakerEncoder(TINY)
    task = DistilTask(student, lessons, batch_size=4)
    before = agreement(student, lessons)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for batch in [batch for epoch in range(10) for batch in task.batches(epoch, seed=0)]:
        loss, _ = task.loss(task.collate(batch), 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = agreement(student, lessons)
    assert after["cosine"] > before["cosine"]
    assert after["utterances"] == 12


def test_distilling_needs_utterances(teacher):
    with pytest.raises(InputError, match="no utterances"):
        Lessons.collect(teacher, [])
