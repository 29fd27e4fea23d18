"""WaveRNN: shapes, the published reference, folding, linear prediction, any length."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from synthetic import golden, probe_inputs, relative_error, write_published

from savedmodels import write_checkpoint
from synthesizer import audio
from vocoder import WaveRNN, WaveRNNDims, linear_prediction, sequential
from vocoder.folding import fold, unfold
from vocoder.mu_law import label_to_coded, mu_law_encode, mu_law_expand
from vocoder.refinement import refine
from vocoder.train import Recording, WaveRNNTask, logistic_mixture_loss

SMALL = {"rnn": 8, "fc": 8, "compute": 8, "res_out": 8, "res_blocks": 1}
MODES = {
    "raw": WaveRNNDims(**SMALL, bits=6),
    "mol": WaveRNNDims(**SMALL, mode="MOL", mixtures=2),
    "prediction": WaveRNNDims(**SMALL, bits=6, prediction_order=8, pitch_reach=2, refinements=2),
}


@pytest.fixture(params=MODES, scope="module")
def model(request):
    torch.manual_seed(0)
    return WaveRNN(MODES[request.param]).eval()


def test_shapes(model):
    d = model.dims
    samples = torch.zeros(2, 600) if d.inputs == 1 else torch.zeros(2, 600, d.inputs)
    assert model(samples, torch.zeros(2, 80, 600 // d.hop + 2 * d.pad)).shape == (2, 600, d.outputs)


def test_published_reference(tmp_path):
    model = WaveRNN.from_checkpoint(write_published("vocoder", tmp_path))
    assert model.dims == WaveRNNDims()
    assert sum(p.numel() for p in model.parameters()) == 4_480_935
    inputs = probe_inputs()
    logits = model(inputs["vocoder_x"], inputs["vocoder_mel"])
    assert relative_error(logits[:, ::50], golden()["vocoder_logits"]) < 1e-4


@pytest.mark.parametrize("engine", ["auto", "folded"])
@pytest.mark.parametrize("frames", [1, 2, 3, 19])
def test_any_length(model, frames, engine):
    samples = model.generate(torch.randn(80, frames), engine=engine, target=1000, overlap=200)
    assert samples.shape == (max(frames - 1, 1) * 200,)
    assert samples.dtype == torch.float32
    assert samples.abs().max() <= 1


def test_seed_decides(model):
    mel = torch.randn(80, 4)
    first, again, other = (model.generate(mel, seed=s, target=200, overlap=50) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mode", ["raw", "prediction"])
def test_engines_are_one_network(mode):
    """In one fold, with draws that are nearly certain, both engines make the same samples."""
    torch.manual_seed(0)
    model = WaveRNN(MODES[mode]).eval()
    torch.nn.init.normal_(model.fc3.weight, std=1e4)
    mel = torch.randn(80, 6)
    one = model.generate(mel, engine="sequential")
    other = model.generate(mel, engine="folded", target=2000, overlap=100)
    assert (one - other).abs().median() < 1e-4


def test_compiled_tanh_and_exp():
    x = np.linspace(-12, 12, 2001, dtype=np.float32)
    assert np.allclose([sequential._tanh(v) for v in x], np.tanh(x), atol=1e-6)
    x = np.linspace(-15, 0, 2001, dtype=np.float32)
    assert np.allclose([sequential._exp_of_negative(v) for v in x], np.exp(x), rtol=4e-5, atol=0)
    assert sequential._exp_of_negative(np.float32(-1e9)) < 1e-17


def test_generation_agrees_with_teacher_forcing():
    """Draws that are nearly certain, told to the network again, are what it finds most likely."""
    torch.manual_seed(0)
    model = WaveRNN(MODES["raw"]).eval().requires_grad_(False)
    torch.nn.init.normal_(model.fc3.weight, std=1e4)
    mel = torch.randn(1, 80, 3 + 4) / 4
    mels, features = model.upsample(mel)
    drawn = sequential.draw(model, mels[0], features[0, ::200], None, seed=0)
    labels = mu_law_encode(drawn[None], 6)
    told = torch.nn.functional.pad(label_to_coded(labels, 6), (1, -1))  # nothing is told to the first step
    assert (model(told, mel).argmax(dim=2) == labels).float().mean() > 0.95


def test_fold_and_unfold():
    x = torch.arange(1.0, 1001)[:, None]
    folds = fold(x, target=200, overlap=40)
    assert folds.shape == (4, 280, 1)
    assert torch.equal(folds[1, :, 0], x[240:520, 0])
    back = unfold(folds[:, :, 0], overlap=40)[:1000]
    whole = torch.ones(1000, dtype=bool)
    for start in (240, 480, 720):  # cross-faded, and there alone
        whole[start : start + 40] = False
    assert torch.equal(back[whole], x[:1000, 0][whole])


def test_mu_law_round_trip():
    x = torch.linspace(-1, 1, 1001)
    back = mu_law_expand(label_to_coded(mu_law_encode(x, 9), 9), 9)
    assert (back - x).abs().max() < 0.02
    assert mu_law_encode(torch.tensor([-1.0, 0.0, 1.0]), 9).tolist() == [0, 256, 511]


def test_prediction_leaves_a_small_unit_excitation():
    t = np.arange(32_000) / 16_000
    pulses = (np.diff(np.floor(t * 110), prepend=0) > 0).astype(float)
    vowel = lfilter([1], [1, -1.7, 0.9], pulses) * 0.05  # one strong formant
    mel = torch.from_numpy(audio.mel_spectrogram(vowel))[None] / 4
    known = linear_prediction.predict(mel, 16, 200)
    samples = lfilter([1, -0.97], [1], vowel)
    order, excitation = 16, []
    coefficients = known.coefficients[0].repeat_interleave(50, dim=0).numpy()
    for n in range(order, len(samples)):
        excitation.append(samples[n] - coefficients[n] @ samples[n - order : n][::-1])
    assert np.var(excitation) < 0.2 * np.var(samples)
    scaled = np.array(excitation) / known.level[0].repeat_interleave(50).numpy()[order:]
    assert 0.7 < scaled[2000:-2000].std() < 1.4
    assert abs(float(known.period[0, 40:120].float().median()) - 16_000 / 110) < 8


def test_prediction_hears_the_mel_as_the_synthesizer_makes_it():
    for name in ("SAMPLE_RATE", "N_FFT", "F_MIN", "F_MAX", "MIN_DB", "REFERENCE_DB"):
        assert getattr(linear_prediction, name) == getattr(audio, name)


def test_refinement_brings_the_mel_that_was_asked_for():
    """Noise becomes a chord of its spectrum; what has that spectrum already stays."""
    at = np.arange(8000) / 16_000
    chord = sum(np.sin(2 * np.pi * f * at) for f in (220, 900, 2500)) / 10
    chord[2000:4000] = 0
    mel = audio.mel_spectrogram(lfilter([1.0], [1.0, -audio.PREEMPHASIS], chord))
    noise = np.random.default_rng(0).normal(size=8000) / 10

    def off(samples):
        made = audio.mel_spectrogram(lfilter([1.0], [1.0, -audio.PREEMPHASIS], samples))
        return np.abs(made - mel).mean()

    def refined(samples, rounds):
        return refine(torch.from_numpy(samples).float(), torch.from_numpy(mel) / 4, 200, rounds).numpy()

    assert off(refined(noise, 10)) < 0.2 * off(noise)
    assert np.abs(refined(chord, 3) - chord).max() < 1e-3
    assert np.array_equal(refined(noise, 0), noise.astype(np.float32))


def test_round_trip_and_wrong_network(model, tmp_path):
    path = tmp_path / "v.safetensors"
    write_checkpoint(path, model)
    assert WaveRNN.from_checkpoint(path).dims == model.dims


def test_training_lowers_the_loss(model):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    samples = (np.sin(np.arange(16_000) / 20) * 8000 + rng.normal(size=16_000) * 100).astype(np.int16)
    recording = Recording(samples, audio.mel_spectrogram(samples / 32768))
    module = WaveRNN(model.dims)
    task = WaveRNNTask(module, [recording], batch_size=4, hops=2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.005)
    batch = task.collate(next(task.batches(0, seed=0)))
    losses = []
    for _ in range(12):
        loss, _ = task.loss(batch, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_mixture_loss_is_a_probability():
    """Summed over all 16-bit levels, the mass is one."""
    outputs = torch.tensor([0.3, -0.2, 0.1, -0.4, -3.0, -2.0]).repeat(1, 65_536, 1)
    levels = torch.linspace(-1, 1, 65_536)[None]
    masses = [-logistic_mixture_loss(outputs[:, i : i + 1], levels[:, i : i + 1]) for i in range(128, 65_536, 257)]
    assert abs(float(torch.stack(masses).exp().sum()) * 257 - 1) < 0.05


def test_bad_dimensions():
    for wrong in ({"mode": "RNN"}, {"res_out": 6}, {"mode": "MOL", "prediction_order": 4}):
        with pytest.raises(ValueError):
            WaveRNNDims(**wrong)
