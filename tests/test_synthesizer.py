"""Tacotron and its audio: shapes, the published reference, batches, seeds."""

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import golden, probe_inputs, published, relative_error, write_published

from savedmodels import CheckpointError, write_checkpoint
from synthesizer import Tacotron, TacotronDims, audio
from synthesizer.attention import State, Weights, attend, attend_all
from synthesizer.equalizer import Equalizer
from synthesizer.gru import run_both_ways
from synthesizer.train import Example, TacotronTask

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
TINY = TacotronDims(
    embedding=8,
    encoder=8,
    encoder_kernels=2,
    decoder=8,
    lstm=8,
    postnet=8,
    postnet_kernels=2,
    highways=1,
    speaker=4,
    max_r=4,
)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return Tacotron(TINY).eval()


@pytest.fixture(scope="module")
def rtvc(tmp_path_factory):
    return write_published("synthesizer", tmp_path_factory.mktemp("published"))


def test_shapes(tiny):
    out = tiny(torch.randint(2, 60, (3, 7)), torch.zeros(3, 80, 12), torch.rand(3, 4))
    assert out.mel.shape == out.post_mel.shape == (3, 80, 12)
    assert out.alignments.shape == (3, 12 // TINY.r, 7)
    assert out.stop.shape == (3, 12)
    assert torch.allclose(out.alignments.sum(dim=2), torch.ones(3, 6))


def test_published_reference(rtvc, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *args, **kwargs: x)
    model = Tacotron.from_checkpoint(rtvc)
    assert sum(p.numel() for p in model.parameters()) == 30_870_177
    inputs = probe_inputs()
    out = model(inputs["taco_chars"], inputs["taco_mel"], inputs["embed"])
    for name, ours in {
        "taco_mel": out.mel,
        "taco_linear": out.post_mel,
        "taco_attn": out.alignments,
        "taco_stop": out.stop,
    }.items():
        assert relative_error(ours, golden()[name]) < 1e-4, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stretch", [None, 3])
def test_gradient_of_attention_is_that_of_its_steps(stretch, device):
    torch.manual_seed(0)
    items, places, steps, hidden, text, features, kernel = 2, 5, 4, 3, 4, 6, 3
    shapes = [(items, steps, 3 * hidden), (items, places, text), (items, places, features), (3 * hidden, text)]
    shapes += [(3 * hidden, hidden), (3 * hidden,), (features, hidden), (features, kernel), (features,)]
    values = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    outside = (torch.arange(places) >= torch.tensor([[places], [places - 2]])).to(device)
    gates, texts, keys, weights = *values[:3], Weights(*values[3:])
    state, steps_apart = State.start(hidden, texts), []
    for gate in gates.unbind(dim=1):
        state, share, _ = attend(state, gate, texts, keys, outside, weights)
        steps_apart.append((state.hidden, state.seen, share))
    apart = [torch.stack(x, dim=1) for x in zip(*steps_apart, strict=True)]
    at_once = attend_all(gates, texts, keys, outside, weights, stretch)
    for one, other in zip(apart, at_once, strict=True):
        assert relative_error(other.detach().cpu(), one.detach().cpu()) < 1e-6
        ours, theirs = (
            torch.autograd.grad(x.square().sum(), values, retain_graph=True, allow_unused=True) for x in (other, one)
        )
        for x, y in zip(ours, theirs, strict=True):
            assert y is None or relative_error(x.cpu(), y.cpu()) < 1e-5


def test_both_ways_at_once_are_the_library_s_gru_in_each_direction():
    torch.manual_seed(0)
    rnn = torch.nn.GRU(4, 3, batch_first=True, bidirectional=True)
    x, lengths = torch.randn(2, 5, 4, requires_grad=True), torch.tensor([5, 3])
    values = [x, *rnn.parameters()]
    ours = run_both_ways(rnn, x, lengths)
    for i, length in enumerate(lengths):
        alone = rnn(x[i : i + 1, :length])[0][0]
        assert torch.allclose(ours[i, :length], alone, atol=1e-6)
        assert not ours[i, length:].any()
        one, other = (torch.autograd.grad(y.square().sum(), values, retain_graph=True) for y in (ours[i], alone))
        assert all(relative_error(a, b) < 1e-5 for a, b in zip(one, other, strict=True))


def test_batch_equals_one_at_a_time(tiny):
    rng = np.random.default_rng(0)
    texts = [[*rng.integers(2, 60, n).tolist(), 1] for n in (3, 5, 8, 12, 17, 23, 30, 40)]
    voices = torch.rand(8, 4)
    together = tiny.generate(texts, voices, seeds=range(8), max_frames=60)
    for i, text in enumerate(texts):
        (alone,) = tiny.generate([text], voices[i : i + 1], seeds=[i], max_frames=60)
        assert alone.mel.shape == together[i].mel.shape
        assert torch.allclose(alone.mel, together[i].mel, atol=1e-4)
        assert torch.allclose(alone.alignment, together[i].alignment, atol=1e-4)


def test_teacher_forced_batch_equals_one_at_a_time(tiny, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *args, **kwargs: x)
    short, long = torch.randint(2, 60, (1, 4)), torch.randint(2, 60, (1, 9))
    mel, voices = torch.rand(2, 80, 8), torch.rand(2, 4)
    symbols = torch.cat([torch.nn.functional.pad(short, (0, 5)), long])
    together = tiny(symbols, mel, voices, torch.tensor([4, 8]))
    alone = tiny(short, mel[:1, :, :4], voices[:1])
    assert torch.allclose(together.mel[0, :, :4], alone.mel[0], atol=1e-5)
    assert torch.allclose(together.post_mel[0, :, :4], alone.post_mel[0], atol=1e-5)


def test_seed_decides(tiny):
    text, voice = [[5, 6, 7, 1]], torch.rand(1, 4)
    first, again, other = (tiny.generate(text, voice, seeds=[s], max_frames=20)[0].mel for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_generation_ends_and_says_so(tiny):
    (spoken,) = tiny.generate([[5, 1]], torch.rand(1, 4), seeds=[0], max_frames=30)
    assert spoken.mel.shape[1] <= 30
    assert spoken.finished or spoken.alignment.shape[0] == 15


def test_quiet_everywhere_keeps_a_frame(tiny):
    silent = Tacotron(dataclasses.replace(TINY, quiet=1e9)).eval()
    (spoken,) = silent.generate([[5, 1]], torch.rand(1, 4), seeds=[0], max_frames=20)
    assert spoken.mel.shape == (80, 1)


def test_own_checkpoint_round_trip(tiny, tmp_path):
    path = tmp_path / "t.safetensors"
    write_checkpoint(path, tiny)
    again = Tacotron.from_checkpoint(path)
    assert again.dims == TINY
    assert all(torch.equal(a, b) for a, b in zip(tiny.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("damage", ["missing", "truncated", "other", "text", "nan", "shape"])
def test_bad_checkpoints(rtvc, tmp_path, damage):
    path = tmp_path / "synthesizer.pt"
    weights = {k: v for k, v in published("synthesizer").items() if v.numel() < 10_000} if damage == "other" else {}
    if damage == "truncated":
        path.write_bytes(rtvc.read_bytes()[:1_000_000])
    elif damage == "text":
        path.write_text("<html>not found</html>")
    elif damage in ("nan", "shape"):
        weights = published("synthesizer")
        weights["post_proj.weight"] = (
            weights["post_proj.weight"][:, :-1] if damage == "shape" else weights["post_proj.weight"] * float("nan")
        )
    if weights:
        torch.save({"model_state": weights}, path)
    with pytest.raises(CheckpointError, match="synthesizer.pt"):
        Tacotron.from_checkpoint(path)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    examples = [Example([5, 6, 7, 1], rng.normal(size=(80, n)), np.full(4, 0.5, np.float32)) for n in (9, 10, 13, 14)]
    task = TacotronTask(Tacotron(dataclasses.replace(TINY, r=3)), examples, batch_size=2, schedule=((0.0, 3), (0.5, 2)))
    assert [len(b) for b in task.batches(0, seed=1)] == [2, 2]
    optimizer = torch.optim.Adam(task.module.parameters(), lr=0.01)
    losses = []
    for step in range(30):
        loss, parts = task.loss(task.collate(range(4)), progress=step / 30)
        assert set(parts) == {"mel", "post", "stop", "guide"}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert task.module.dims.r == 2
    assert losses[-1] < losses[0]


def test_level_is_common():
    """Whatever the gain and however much silence is around it; peaks stay below full scale."""
    tone = np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    for samples in (0.01 * tone, 3 * tone, np.pad(tone, 16_000)):
        levelled = audio.to_level(samples)
        assert levelled.dtype == np.float32
        assert np.sqrt((levelled[samples != 0] ** 2).mean()) == pytest.approx(audio.SPEECH_RMS, rel=0.05)
    click = np.where(np.arange(16_000) == 8_000, 1.0, 0.001 * tone)
    assert np.abs(audio.to_level(click)).max() < 1
    assert not audio.to_level(np.zeros(100)).any()


def test_mel_of_a_tone():
    samples = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    mel = audio.mel_spectrogram(samples)
    assert mel.shape == (80, 16_000 // 200 + 1)
    assert mel.dtype == np.float32
    assert mel.min() >= -4 and mel.max() <= 4
    peak = audio.mel_filters()[mel[:, 40].argmax()].argmax() * 16_000 / 800
    assert abs(peak - 1000) < 40


def test_griffin_lim_inverts():
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) * np.hanning(16_000)
    mel = audio.mel_spectrogram(samples)
    back = audio.griffin_lim(mel)
    assert back.shape == ((mel.shape[1] - 1) * 200,)
    assert np.abs(audio.mel_spectrogram(back)[:, 20:60] - mel[:, 20:60]).mean() < 0.5
    assert audio.griffin_lim(mel[:, :1]).shape == (0,)


def test_an_equalizer_gives_each_kind_of_voice_its_curve(tmp_path):
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.eye(2, 8), 20, axis=0)
    voices = kinds + 0.05 * rng.normal(size=kinds.shape)
    curves = rng.normal(size=(2, 80)) * 5
    write_checkpoint(tmp_path / "equalizer.safetensors", Equalizer.fit(voices, kinds[:, :2] @ curves))
    equalizer = Equalizer.from_checkpoint(tmp_path / "equalizer.safetensors")
    told = equalizer.curve(torch.eye(2, 8)).numpy()
    np.testing.assert_allclose(told, curves, atol=0.5)
    mel = torch.from_numpy(rng.uniform(-3, 3, (80, 5)).astype(np.float32))
    # 100 dB span the mel's 8 units
    torch.testing.assert_close(equalizer(mel, torch.eye(8)[0]), mel + 0.08 * torch.from_numpy(told[0])[:, None])
    assert equalizer(mel + 10, torch.eye(8)[0]).max() == 4
