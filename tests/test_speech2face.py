"""Speech2Face: sound in, portraits out, published weights, losses, and what users get wrong."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn import functional as F

from encoder.dlib_resnet import DlibResnet
from encoder.face import crop_from_photo, faces_to_tensor, find_faces, load_photo
from encoder.face_model import FaceSpeakerEncoder, FaceSpeakerEncoderDims
from face2voice.commands import speech2face as commands
from face2voice.commands.models import import_weights
from face2voice.speech2face import Portrait, Speech2Face, audio, decoder, voice_encoder
from face2voice.speech2face.decoder import Decoded, FaceDecoder, FaceDecoderDims, PatchDiscriminator
from face2voice.speech2face.face2speech import VoiceDecoder, VoiceDecoderDims
from face2voice.speech2face.frame import FrameDescriptor, crop_frame, frames_to_tensor
from face2voice.speech2face.judges import sex_classifier
from face2voice.speech2face.landmarks import FIVE_OF_68, mirror, register, template
from face2voice.speech2face.pairing import MODES, pair_by_sex_and_age, pair_people
from face2voice.speech2face.pipeline import similarity
from face2voice.speech2face.portraits import Portraits, read_portraits
from face2voice.speech2face.sheet import Tile, contact_sheet
from face2voice.speech2face.train import (
    FaceDecoderLoss,
    FaceDecoderTask,
    VoiceDecoderTask,
    VoiceEncoderLoss,
    VoiceEncoderTask,
    doubt,
    voice_loss,
)
from face2voice.speech2face.vggface import VGGFace, VGGFaceDims, import_keras, read_keras
from face2voice.speech2face.voice_encoder import (
    AstVoiceEncoder,
    AstVoiceEncoderDims,
    VoiceEncoder,
    VoiceEncoderDims,
    load_voice_encoder,
)
from savedmodels import CheckpointError, InputError, write_checkpoint

PORTRAIT = Path(__file__).parent / "data" / "portrait.jpg"

FEATURE = 16
VOICE = VoiceEncoderDims(channels=(4, 4, 8), strides=(2, 2, 2), pools=(2, 2, 1), hidden=16, feature=FEATURE, trim=False)
FACE = FaceDecoderDims(feature=FEATURE, shared=(16,), landmarks=(16,), channels=(8, 8, 4, 4, 4, 4))
SOUND = VoiceDecoderDims(feature=FEATURE, hidden=16, channels=(4, 4, 4, 4, 4), frames=100)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def speech_like(seconds: float, rate: int = 16_000) -> np.ndarray:
    """A gliding, pulsed tone with harmonics and some breath."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    pulses = 0.55 + 0.45 * np.sin(2 * np.pi * 3 * t)
    noise = np.random.default_rng(0).normal(size=len(t))
    return (0.1 * pulses * (tone + 0.1 * noise)).astype(np.float32)


# ---- the front-end


def test_six_seconds_make_598_frames_or_601_centred():
    samples = torch.from_numpy(speech_like(6))
    assert audio.spectrogram(samples).shape == (2, 257, 598)
    assert audio.spectrogram(samples, "polar").shape == (2, 257, 601)
    assert audio.spectrogram(samples.repeat(3, 1), "polar").shape == (3, 2, 257, 601)
    with pytest.raises(ValueError, match="complex or polar"):
        audio.spectrogram(samples, "mel")


def test_spectrogram_is_that_of_the_paper():
    samples = speech_like(1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frame = np.fft.rfft(np.pad(samples[320:720] * window, (0, 112)))
    made = audio.spectrogram(torch.from_numpy(samples))[:, :, 2].numpy()
    for channel, part in zip(made, (frame.real, frame.imag), strict=True):
        assert np.allclose(channel, np.sign(part) * np.abs(part) ** 0.3, atol=1e-3)


def test_polar_front_end_holds_magnitude_and_phase():
    made = audio.spectrogram(torch.from_numpy(speech_like(1)), "polar")
    assert made[0].min() >= 0 and made[1].abs().max() <= np.pi**0.3 + 1e-5 and made[1].min() < 0


@pytest.mark.parametrize("iterations", [0, 5])
def test_a_spectrogram_gives_its_sound_back(iterations):
    samples = torch.from_numpy(speech_like(2))
    again = audio.waveform(audio.spectrogram(samples), iterations)
    inner = slice(400, len(again) - 400)
    assert np.corrcoef(again[inner], samples[: len(again)][inner])[0, 1] > 0.99


def test_refinement_mends_phases():
    """Of sound whose phases were thrown away, refined phases make one that has the magnitudes."""
    true = audio.spectrogram(torch.from_numpy(speech_like(1)))
    magnitude = true.square().sum(0).sqrt()
    angle = torch.rand(magnitude.shape) * 6.28
    lost = torch.stack([angle.cos(), angle.sin()]) * (magnitude ** (1 / 0.3))
    lost = lost.sign() * lost.abs() ** 0.3

    def error(iterations: int) -> float:
        made = audio.spectrogram(audio.waveform(lost, iterations))
        given = (lost.sign() * lost.abs() ** (1 / 0.3)).square().sum(0).sqrt()
        return float(((made.sign() * made.abs() ** (1 / 0.3)).square().sum(0).sqrt() - given).norm() / given.norm())

    assert error(30) < 0.6 * error(0)


def test_short_clips_begin_anew():
    assert audio.fill(np.arange(3), 8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert audio.fill(np.arange(9), 4, start=2).tolist() == [2, 3, 4, 5]


def test_clips_of_every_kind_come_to_one_rate_and_loudness(tmp_path):
    sound = speech_like(1)
    stereo = np.stack([sound, sound], axis=1)
    soundfile.write(tmp_path / "low.wav", speech_like(1, 8_000) * 0.1, 8_000)
    soundfile.write(tmp_path / "long.wav", np.tile(speech_like(10), 60), 16_000)
    for clip in ((sound, 16_000), (stereo, 16_000), tmp_path / "low.wav", tmp_path / "long.wav"):
        samples = audio.load_clip(clip, trim=False)
        assert samples.ndim == 1 and len(samples) in (16_000, 30 * 16_000)
        assert 20 * np.log10(np.sqrt(np.mean(samples**2))) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(32_000, np.float32), "silent"),
        (speech_like(0.4), "too short"),
        (np.full(32_000, np.nan, np.float32), "no sound"),
        (np.zeros(0, np.float32), "too short"),
    ],
)
def test_clips_that_cannot_be_used(samples, message):
    with pytest.raises(InputError, match=message) as caught:
        audio.load_clip((samples, 16_000))
    assert "\n" not in str(caught.value)


# ---- voice encoders


def test_published_voice_encoder_layout():
    with torch.device("meta"):
        state = VoiceEncoder(voice_encoder.PUBLISHED).state_dict()
    assert len(state) == 67 and sum(v.numel() for k, v in state.items() if "num_batches" not in k) == 148_067_584
    shapes = {
        name: tuple(state[name].shape) for name in ("layer1.0.weight", "layer9.3.running_var", "layer10.1.weight")
    }
    assert shapes == {
        "layer1.0.weight": (64, 2, 4, 4),
        "layer9.3.running_var": (512,),
        "layer10.1.weight": (4096, 29184),
    }
    assert {"layer8.2.weight", "layer11.0.bias"} <= set(state)


def test_published_voice_encoder_is_known_by_its_keys(tmp_path, monkeypatch):
    published = replace(VOICE, final_relu=True, front_end="polar")
    monkeypatch.setattr(voice_encoder, "PUBLISHED", published)
    network = VoiceEncoder(published).eval()
    torch.save({"epoch": 3, "model_state_dict": network.state_dict()}, tmp_path / "voice_encoder.pt")
    again = VoiceEncoder.from_checkpoint(tmp_path / "voice_encoder.pt")
    heard = again.hear(speech_like(2))[None]
    assert heard.shape == (1, 2, 257, 601) and torch.equal(again(heard), network(heard)) and again(heard).min() >= 0
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no voice encoder in it"):
        load_voice_encoder(tmp_path / "other.pt")


def test_voice_encoder_takes_any_length(tmp_path):
    network = VoiceEncoder(VOICE).eval()
    for frames in (VOICE.least_frames, 100, 598):
        assert network(torch.rand(2, 2, 257, frames)).shape == (2, FEATURE)
    with pytest.raises(ValueError, match="at least"):
        network(torch.rand(1, 2, 257, VOICE.least_frames - 1))
    write_checkpoint(tmp_path / "v.safetensors", network)
    again = load_voice_encoder(tmp_path / "v.safetensors")
    clip = (speech_like(1), 16_000)
    assert again.dims == VOICE and torch.equal(again.feature_of(clip), network.feature_of(clip))


def test_default_voice_encoder_is_narrow():
    with torch.device("meta"):
        assert sum(p.numel() for p in VoiceEncoder(VoiceEncoderDims()).parameters()) < 1e6
    with pytest.raises(ValueError, match="every convolution"):
        VoiceEncoderDims(pools=(1,))
    with pytest.raises(ValueError, match="must be 1"):
        VoiceEncoderDims(pools=(1, 1, 1, 1, 1, 2))


def test_ast_voice_encoder(tmp_path):
    pytest.importorskip("transformers", reason="the AST voice encoder needs the package transformers")
    dims = AstVoiceEncoderDims(hidden=16, layers=1, heads=2, inner=16, frames=64, feature=FEATURE)
    network = AstVoiceEncoder(dims).eval()
    write_checkpoint(tmp_path / "ast.safetensors", network)
    again = load_voice_encoder(tmp_path / "ast.safetensors")
    clip = (speech_like(1), 16_000)
    assert torch.allclose(again.feature_of(clip), network.feature_of(clip)) and again.feature_of(clip).shape == (
        FEATURE,
    )


def test_ast_without_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        AstVoiceEncoder(AstVoiceEncoderDims())


# ---- VGG-Face


def keras_file(path: Path, layout: str, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """A narrow VGG-Face on 64 x 64 pixels as either program saves it: its kernels and biases."""
    widths = [4, 4, 6, 6, 8, 8, 8, 10, 10, 10, 10, 10, 10]
    kernels = [(3, 3, a, b) for a, b in zip([3, *widths], widths, strict=False)]
    if layout == "serengil":
        kernels += [(2, 2, 10, 12), (1, 1, 12, 12), (1, 1, 12, 7)]
    else:
        kernels += [(40, 12), (12, 12), (12, 7)]
    weights = [rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) * 1.4 for shape in kernels]
    biases = [rng.normal(size=shape[-1]) * 0.1 for shape in kernels]
    with h5py.File(path, "w") as file:
        names = []
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            names += [f"padding_{i}", f"conv_{i}"]  # layers without weights lie between
            file.create_group(f"padding_{i}").attrs["weight_names"] = []
            group = file.create_group(f"conv_{i}")
            group.create_dataset(f"conv_{i}/kernel:0", data=weight.astype("f4"))
            group.create_dataset(f"conv_{i}/bias:0", data=bias.astype("f4"))
            group.attrs["weight_names"] = [f"conv_{i}/kernel:0".encode(), f"conv_{i}/bias:0".encode()]
        file.attrs["layer_names"] = [name.encode() for name in names]
    return {"kernels": weights, "biases": biases}


def keras_answer(saved: dict[str, list[np.ndarray]], pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """fc7 and fc8 of pictures (B, H, W, 3), computed as Keras would, channels last."""
    x = fc7 = pictures
    for i, (kernel, bias) in enumerate(zip(saved["kernels"], saved["biases"], strict=True)):
        fc7 = x
        if i < 13:
            x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        if kernel.ndim == 2:
            x = x.reshape(len(x), -1) @ kernel + bias
        else:
            windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
            x = np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias
        if i == 15:
            return fc7.reshape(len(x), -1), x.reshape(len(x), -1)
        x = np.maximum(x, 0)
        if i in (1, 3, 6, 9, 12):
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))


@pytest.mark.parametrize("layout", ["serengil", "rcmalli"])
@pytest.mark.parametrize("preprocessing", ["unit", "mean"])
def test_keras_weights_answer_as_in_keras(tmp_path, layout, preprocessing):
    rng = np.random.default_rng(0)
    saved = keras_file(tmp_path / "vgg.h5", layout, rng)
    dims = import_keras(tmp_path / "vgg.h5", tmp_path / "vgg.safetensors", preprocessing)
    network = VGGFace.from_checkpoint(tmp_path / "vgg.safetensors")
    assert network.dims == dims == VGGFaceDims((4, 6, 8, 10, 10), 12, 7, 64, preprocessing)
    pictures = rng.random((2, 64, 64, 3))
    fed = pictures if preprocessing == "unit" else pictures[..., ::-1] * 255 - (93.5940, 104.7624, 129.1863)
    fc7, fc8 = keras_answer(saved, fed)
    with torch.no_grad():
        features = network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())
        logits = network.logits(features)
    assert fc7.max() > 0 and np.abs(features.numpy() - fc7).max() < 1e-4 * np.abs(fc7).max()
    assert np.abs(logits.numpy() - fc8).max() < 1e-4 * np.abs(fc8).max()


def test_full_vgg_face():
    with torch.device("meta"):
        assert sum(p.numel() for p in VGGFace().parameters()) == 145_002_878


def test_keras_files_that_are_not_vgg_face(tmp_path):
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_keras(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(CheckpointError, match="text.h5: damaged"):
        read_keras(tmp_path / "text.h5")
    keras_file(tmp_path / "top.h5", "rcmalli", np.random.default_rng(0))
    with h5py.File(tmp_path / "top.h5", "a") as file:
        file.attrs["layer_names"] = [f"conv_{i}" for i in range(13)]
    with pytest.raises(CheckpointError, match="13 layers with weights"):
        read_keras(tmp_path / "top.h5")
    keras_file(tmp_path / "odd.h5", "serengil", np.random.default_rng(0))
    with h5py.File(tmp_path / "odd.h5", "a") as file:
        file.attrs["layer_names"] = [f"conv_{i}" for i in (1, 0, *range(2, 16))]
    with pytest.raises(CheckpointError, match="not VGG-Face"):
        read_keras(tmp_path / "odd.h5")
    with pytest.raises(InputError, match="end the name in .safetensors"):
        import_weights(tmp_path / "odd.h5", tmp_path / "out.pt")


# ---- frames and landmarks


def test_template_is_a_mirrored_face():
    points = template()
    assert points.shape == (68, 2) and template(72).shape == (72, 2) and np.allclose(mirror(points), points)
    assert np.allclose(mirror(template(72)), template(72)) and len(np.unique(template(72), axis=0)) == 68
    assert points[8, 1] == points[:, 1].max() and points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[30, 1] < points[33, 1] < points[51, 1] < points[62, 1] < points[66, 1] < points[57, 1]
    with pytest.raises(ValueError, match="68 and of 72"):
        template(5)


def test_a_frame_shows_the_crop_and_more():
    photo = load_photo(PORTRAIT)
    face = find_faces(photo)[0]
    frame, five = crop_frame(photo, face)
    assert frame.shape == (224, 224, 3) and np.abs(five - template()[list(FIVE_OF_68)]).max() < 8
    again = find_faces(frame)[0]  # a detector finds the face in it, where it should be
    assert np.abs(again.points - five).max() < 4
    crop = faces_to_tensor(crop_from_photo(PORTRAIT))
    seen = []
    FrameDescriptor(lambda chips: seen.append(chips) or chips.mean((2, 3)))(frames_to_tensor(frame))
    shrunk = F.interpolate(crop, (150, 150), mode="bilinear", align_corners=True)
    assert (seen[0] - shrunk).abs().mean() < 0.03


def test_registration_finds_moved_features():
    """The portraits are one face with its mouth moved; registration must find by how much."""
    frame, _ = crop_frame(load_photo(PORTRAIT), find_faces(load_photo(PORTRAIT))[0])
    picture, mean = frames_to_tensor(frame), torch.from_numpy(template()).float()
    moved = np.zeros((6, 68, 2))
    moved[:, 48:, 1] = np.linspace(-5, 5, 6)[:, None]  # the mouth, up and down
    frames = [decoder.warp(picture, mean, mean[None] + torch.from_numpy(m).float())[0] for m in moved]
    frames = np.stack([(f.permute(1, 2, 0) * 255).byte().numpy() for f in frames])
    found = register(frames, np.repeat(template()[None, list(FIVE_OF_68)], 6, 0), rounds=2)
    heights = found[:, 48:, 1].mean(1)
    assert np.corrcoef(heights, moved[:, 48, 1])[0, 1] > 0.95 and np.ptp(heights) > 4
    eyes = found[:, 36:48] - found[:, 36:48].mean(0)
    assert np.abs(eyes).mean() < 0.5


# ---- the face decoder


def test_published_face_decoder_layout():
    with torch.device("meta"):
        state = FaceDecoder(decoder.PUBLISHED).state_dict()
    del state["mean_landmarks"]
    assert len(state) == 49 and sum(v.numel() for k, v in state.items() if "num_batches" not in k) == 125_610_227
    assert state["texture_layers.0.0.weight"].shape == (50176, 2048)
    assert state["texture_layers.1.1.weight"].shape == (256, 128, 5, 5)
    assert state["texture_layers.5.0.weight"].shape == (3, 32, 1, 1)
    assert state["landmark_layers.3.0.weight"].shape == (144, 256) and "pre_layers.1.1.running_mean" in state


def test_published_face_decoder_is_known_by_its_keys(tmp_path, monkeypatch):
    published = FaceDecoderDims(FEATURE, (16, 8), (8,), 72, (8, 4, 4, 4, 4), 14, "absolute")
    monkeypatch.setattr(decoder, "PUBLISHED", published)
    network = FaceDecoder(published).eval()
    state = {name: value for name, value in network.state_dict().items() if name != "mean_landmarks"}
    torch.save({"model_state_dict": state}, tmp_path / "face_decoder.pt")
    again, features = FaceDecoder.from_checkpoint(tmp_path / "face_decoder.pt"), torch.rand(2, FEATURE)
    assert torch.equal(again.mean_landmarks, torch.from_numpy(template(72)).float())
    assert torch.equal(again(features).texture, network(features).texture)
    assert again(features).landmarks.shape == (2, 72, 2)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no face decoder in it"):
        FaceDecoder.from_checkpoint(tmp_path / "other.pt")


def test_untrained_default_draws_the_mean_face(tmp_path):
    with torch.device("meta"):
        assert sum(p.numel() for p in FaceDecoder(FaceDecoderDims()).parameters()) < 3e6
    network = FaceDecoder(FACE)
    mean = F.interpolate(torch.rand(1, 3, 7, 7) * 0.8 + 0.1, (224, 224), mode="bilinear")
    network.set_means(torch.randn(9, FEATURE), mean, torch.from_numpy(template()))
    assert (network.render(torch.randn(2, FEATURE)) - mean).abs().max() < 1e-3
    write_checkpoint(tmp_path / "f.safetensors", network)
    again = FaceDecoder.from_checkpoint(tmp_path / "f.safetensors")
    assert again.dims == FACE and torch.equal(again.mean_texture, network.mean_texture)


def test_dims_that_do_not_fit():
    with pytest.raises(ValueError, match="are not 224"):
        FaceDecoderDims(start=14)
    with pytest.raises(ValueError, match="choose residual or absolute"):
        FaceDecoderDims(style="other")


def portraits(count: int = 6) -> Portraits:
    rng = np.random.default_rng(0)
    landmarks = template() + rng.normal(size=(count, 68, 2))
    textures = rng.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)
    features = rng.normal(size=(count, 2, FEATURE)).astype(np.float32)
    mean = template().astype(np.float32)
    return Portraits(np.arange(count), features, textures, landmarks.astype(np.float32), mean)


class Average(torch.nn.Module):
    """A descriptor: the means of 16 parts of a picture."""

    def forward(self, frames):
        return F.adaptive_avg_pool2d(frames.mean(1), 4).flatten(1)


def test_face_decoder_learns_a_lesson_by_heart():
    task = FaceDecoderTask(FaceDecoder(FACE), portraits(2), Average(), batch_size=2, mixing=0)
    optimizer = torch.optim.Adam(task.module.parameters(), lr=1e-2)
    batch = task.collate([item._replace(mirrored=False) for item in next(task.batches(0, 0))])
    losses = []
    for _ in range(15):
        loss, parts = task.loss(batch, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(parts["landmarks"]))
    assert losses[-1] < 0.8 * losses[0] and set(parts) == {"landmarks", "texture"}
    assert set(task.loss(batch, 0.5)[1]) == {"landmarks", "texture", "identity", "distinction"}


def test_embedding_of_the_portrait_has_a_gradient():
    """It reaches landmarks and texture: the warp lies inside training."""
    only = FaceDecoderLoss(landmarks=0, texture=0, identity=1, distinction=0, onset=0.5)
    task = FaceDecoderTask(FaceDecoder(FACE), portraits(), Average(), only, batch_size=2)
    for layer in (task.module.landmark_layers[-1][0], task.module.texture_layers[-1][0]):
        torch.nn.init.normal_(layer.weight, std=0.1)
    batch = task.collate(next(task.batches(0, 0)))
    assert task.loss(batch, 0.4)[0] == 0  # not yet
    task.loss(batch, 0.75)[0].backward()
    assert task.module.landmark_layers[-1][0].weight.grad.abs().sum() > 0
    assert task.module.texture_layers[-1][0].weight.grad.abs().sum() > 0


def test_batches_depend_on_epoch_and_seed_alone():
    task = FaceDecoderTask(FaceDecoder(FACE), portraits(), Average(), batch_size=4)
    assert list(task.batches(1, 2)) == list(task.batches(1, 2)) != list(task.batches(2, 2))
    assert sorted(draw.first for batch in task.batches(0, 0) for draw in batch) == list(range(6))


def test_a_mirrored_lesson_is_the_mirrored_portrait():
    p = portraits()
    task = FaceDecoderTask(FaceDecoder(FACE), p, Average())
    draw = next(task.batches(0, 0))[0]._replace(share=1.0)
    plain, mirrored = (task.collate([draw._replace(mirrored=m)]) for m in (False, True))
    assert torch.equal(mirrored[1], plain[1].flip(3)) and not torch.equal(mirrored[0], plain[0])
    assert torch.equal(mirrored[0][0], torch.from_numpy(p.features[draw.first, 1]))
    assert np.allclose(mirrored[2][0], mirror(p.landmarks[draw.first]), atol=1e-4)


def test_adversary_and_maker_learn_each_from_its_part():
    loss = FaceDecoderLoss(landmarks=0, texture=0, identity=0, distinction=0, adversarial=1)
    task = FaceDecoderTask(FaceDecoder(FACE), portraits(), Average(), loss, batch_size=2)
    assert isinstance(task.helpers, PatchDiscriminator)
    torch.nn.init.normal_(task.module.texture_layers[-1][0].weight)
    batch = task.collate(next(task.batches(0, 0)))
    total, parts = task.loss(batch, 0.0)
    total.backward()
    judged = [p.grad.clone() for p in task.helpers.parameters()]
    assert task.module.texture_layers[-1][0].weight.grad.abs().sum() > 0 and judged[0].abs().sum() > 0
    task.helpers.zero_grad()
    doubt(task.helpers, torch.rand(1, 3, 224, 224, requires_grad=True)).backward()
    assert all(p.grad is None for p in task.helpers.parameters()) and "judge" in parts


def test_evaluation_on_portraits_held_out():
    p = portraits(12)
    task = FaceDecoderTask(FaceDecoder(FACE), p, Average(), held_out=p.only(np.arange(11)))
    figures = task.evaluate()
    assert list(figures)[0] == "distance" and 0 <= figures["recall_at_10"] <= 1
    assert FaceDecoderTask(FaceDecoder(FACE), p, Average()).evaluate() == {}


def test_portraits_from_photos(tmp_path):
    found = read_portraits(
        [PORTRAIT, tmp_path / "none.jpg", np.zeros((200, 200, 3), np.uint8)],
        Average(),
        landmarks=lambda frame: template(),
    )
    assert len(found) == 1 and found.which.tolist() == [0] and found.features.shape == (1, 2, 16)
    assert np.allclose(found.mean_landmarks, template(), atol=1e-3)
    frame, _ = crop_frame(load_photo(PORTRAIT), find_faces(load_photo(PORTRAIT))[0])
    assert np.abs(found.textures[0].astype(int) - frame).max() <= 1
    found.save(tmp_path / "p.npz")
    assert np.array_equal(Portraits.load(tmp_path / "p.npz").textures, found.textures)
    with pytest.raises(InputError, match="no face found in any"):
        read_portraits([np.zeros((200, 200, 3), np.uint8)], Average())


# ---- voices and faces


def test_pairing_of_people():
    clips, faces = ["a", "b", "a", "c"], ["a", "a", "b", "d"]
    tables = {mode: pair_people(clips, faces, mode).toarray().tolist() for mode in MODES}
    assert tables["one-to-one"] == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0] * 4]
    assert tables["all-to-one"] == [[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0] * 4]
    assert tables["all-to-all"] == [[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0], [0] * 4]
    with pytest.raises(ValueError, match="one-to-one, all-to-one or all-to-all"):
        pair_people(clips, faces, "some")


def test_pairing_by_sex_and_age():
    table = pair_by_sex_and_age([("f", 30), ("m", None), (None, 30), ("f", 400)], [("f", 30), ("f", 50), ("m", 60)])
    assert np.allclose(table.sum(1), [1, 1, 0, 1]) and table[0, 0] > 0.9 and table[0, 2] == 0
    assert table[1].tolist() == [0, 0, 1] and np.allclose(table[3], [0.5, 0.5, 0])


def test_voice_loss_is_the_papers():
    rng = torch.Generator().manual_seed(1)
    heard, seen = (torch.rand(3, FEATURE, generator=rng) for _ in range(2))
    network, head = FaceDecoder(FACE).eval(), torch.nn.Linear(FEATURE, 5)
    total, parts = voice_loss(heard, seen, VoiceEncoderLoss(), network, head)
    by_hand = []
    for v, s in zip(heard, seen, strict=True):
        first = (network.first_layers(v[None]) - network.first_layers(s[None])).abs().sum()
        apart = (v / v.norm() - s / s.norm()).square().sum()
        told, said = (head(x) / 2 for x in (s, v))
        distilled = -(told.softmax(0) * said.softmax(0).log()).sum()
        by_hand.append(first + 0.025 * apart + 200 * distilled)
    assert torch.allclose(total, torch.stack(by_hand).mean(), rtol=1e-5)
    assert set(voice_loss(heard, seen, VoiceEncoderLoss(0, 1, 0))[1]) == {"normalised"}


def test_voice_encoder_task():
    clips = [speech_like(seconds) for seconds in (1, 7, 2)]
    faces = np.random.default_rng(0).normal(size=(4, FEATURE)).astype(np.float32)
    table = pair_people(["a", "b", "c"], ["a", "a", "b", "d"])
    judge = sex_classifier(faces, ["f", "f", "m", "m"])
    task = VoiceEncoderTask(
        VoiceEncoder(VOICE), clips, faces, table, FaceDecoder(FACE), held_out=(clips[:2], table[:2]), sex=judge
    )
    pairs = [pair for batch in task.batches(0, 0) for pair in batch]
    assert sorted(pair.clip for pair in pairs) == [0, 1] and all(table[pair.clip, pair.face] > 0 for pair in pairs)
    assert list(task.batches(0, 0)) == list(task.batches(0, 0))
    task.loss(task.collate(pairs), 0.0)[0].backward()
    assert task.module.layer1[0].weight.grad.abs().sum() > 0
    task.module.eval()
    figures = task.evaluate()
    assert list(figures) == ["distance", "right_sex"] and 0 <= figures["distance"] <= 4
    with pytest.raises(ValueError, match="needs a face decoder"):
        VoiceEncoderTask(VoiceEncoder(VOICE), clips, faces, table)
    with pytest.raises(ValueError, match="no clip has a face"):
        VoiceEncoderTask(VoiceEncoder(VOICE), clips, faces, 0 * table, FaceDecoder(FACE))


def test_sex_classifier_counts_both_sexes_alike():
    rng = np.random.default_rng(0)
    women, men = rng.normal(1, 1, (20, 8)), rng.normal(-1, 1, (200, 8))
    judge = sex_classifier(np.concatenate([women, men]), ["f"] * 20 + ["m"] * 200)
    assert (judge(torch.from_numpy(women).float()) > 0).float().mean() > 0.9
    assert (judge(torch.from_numpy(men).float()) < 0).float().mean() > 0.9


def test_voice_decoder_makes_either_sign_and_any_length():
    network = VoiceDecoder(SOUND).eval()
    feature = torch.randn(2, FEATURE)
    made = network(feature)
    assert made.shape == (2, 2, 257, 100)
    with torch.no_grad():
        network.last.weight.neg_()
        network.last.bias.neg_()
    assert torch.equal(network(feature), -made)  # a ReLU at the end would make zeros of one of them
    with torch.device("meta"):
        assert VoiceDecoder(VoiceDecoderDims())(torch.zeros(1, 128)).shape == (1, 2, 257, 598)
    assert network.speak(torch.randn(1, FEATURE), 2).shape == (1, 99 * 160 + 400)
    task = VoiceDecoderTask(VoiceDecoder(SOUND), [speech_like(2)], np.ones((1, FEATURE)), np.ones((1, 1)))
    loss, _ = task.loss(task.collate(next(task.batches(0, 0))), 0.0)
    loss.backward()
    assert torch.isfinite(loss)


# ---- the pipeline and the commands


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    dims = FaceSpeakerEncoderDims("dlib_resnet", features=FEATURE, hidden=8, embedding=256)
    write_checkpoint(folder / "face_encoder.safetensors", FaceSpeakerEncoder(dims), torch.float16)
    write_checkpoint(folder / "voice_encoder.safetensors", VoiceEncoder(VOICE))
    write_checkpoint(folder / "face_decoder.safetensors", FaceDecoder(FACE))
    write_checkpoint(folder / "voice_decoder.safetensors", VoiceDecoder(SOUND))
    return folder


@pytest.fixture
def clip(tmp_path) -> Path:
    soundfile.write(tmp_path / "clip.wav", speech_like(1), 16_000)
    return tmp_path / "clip.wav"


def test_speech_to_portrait_to_file(bundle, clip, tmp_path):
    s2f = Speech2Face.load(bundle, "cpu")
    portrait = s2f.portrait_from_speech(clip)
    assert portrait.image.shape == (224, 224, 3) and portrait.image.dtype == np.uint8
    assert portrait.landmarks.shape == (68, 2) and portrait.feature.shape == (FEATURE,)
    samples, rate = soundfile.read(clip, dtype="float32")
    assert np.array_equal(s2f.portrait_from_speech((samples, rate)).image, portrait.image)
    portrait.save(tmp_path / "face.png")
    with Image.open(tmp_path / "face.png") as image:
        assert "AI-generated" in image.text["Comment"] and np.array_equal(np.array(image), portrait.image)


def test_face_to_portrait(bundle):
    s2f = Speech2Face.load(bundle, "cpu")
    portrait = s2f.portrait_from_face(PORTRAIT)
    assert similarity(portrait.feature, portrait.feature) == pytest.approx(1)
    assert s2f.describe(portrait.image).shape == (FEATURE,)
    frame, _ = crop_frame(load_photo(PORTRAIT), find_faces(load_photo(PORTRAIT))[0])
    assert similarity(s2f.describe(frame), portrait.feature) > 0.99  # both ways to a feature agree
    with pytest.raises(InputError, match="no face found"):
        s2f.portrait_from_face(np.zeros((200, 200, 3), np.uint8))


def test_gradient_through_the_whole_way_back():
    """From a feature through texture, landmarks, warp and dlib's network."""
    descriptor = FrameDescriptor(DlibResnet(FEATURE)).requires_grad_(False)
    network = FaceDecoder(FACE)
    for layer in (network.landmark_layers[-1][0], network.texture_layers[-1][0]):
        torch.nn.init.normal_(layer.weight, std=0.1)
    feature = torch.randn(1, FEATURE, requires_grad=True)
    descriptor(network.render(feature), torch.tensor([[0.01, 0.0, 0.02]])).square().sum().backward()
    assert feature.grad.abs().sum() > 0


def test_commands(bundle, clip, tmp_path, capsys):
    commands.speech2face([clip], tmp_path / "one.png", str(bundle), "cpu")
    commands.speech2face([clip, clip], tmp_path / "two.png", str(bundle), "cpu")
    commands.face2face(PORTRAIT, tmp_path / "face.png", None, str(bundle), "cpu")
    commands.face2speech(PORTRAIT, tmp_path / "voice.wav", None, str(bundle), "cpu")
    assert soundfile.info(tmp_path / "voice.wav").samplerate == 16_000
    with Image.open(tmp_path / "two.png") as sheet:
        assert sheet.width > 448 and "AI-generated" in sheet.text["Comment"]
    assert "identifies nobody" in capsys.readouterr().err


def test_what_cannot_be_done_leaves_no_file(bundle, clip, tmp_path):
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    bare = tmp_path / "bare"
    bare.mkdir()
    write_checkpoint(bare / "face_decoder.safetensors", FaceDecoder(FACE))
    write_checkpoint(bare / "face_encoder.safetensors", FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", 8)))
    out, wav, on = tmp_path / "out.png", tmp_path / "out.wav", {"bundle": str(bundle), "device": "cpu"}
    lacking = on | {"bundle": str(bare)}
    for message, command, arguments in (
        ("silent.wav: silent", commands.speech2face, {"speech": [silent], "out": out, **on}),
        ("none.wav: no such file", commands.speech2face, {"speech": [clip, tmp_path / "none.wav"], "out": out, **on}),
        ("end the name in .png", commands.speech2face, {"speech": [clip], "out": tmp_path / "out.jpg", **on}),
        ("no voice encoder in this bundle", commands.speech2face, {"speech": [clip], "out": out, **lacking}),
        ("no voice decoder in this bundle", commands.face2speech, {"face": PORTRAIT, "out": wav, **lacking}),
        ("takes 16 numbers, the bundle's faces have 8", commands.face2face, {"face": PORTRAIT, "out": out, **lacking}),
        ("with --face, or a clip", commands.round_trip, {"out": out}),
    ):
        with pytest.raises((InputError, CheckpointError), match=message):
            command(**arguments)
    assert not list(tmp_path.glob("*out.*"))


def test_contact_sheet():
    tiles = [Tile(np.full((224, 224, 3), i, np.uint8), f"tile {i}\nsecond line") for i in range(7)]
    sheet = contact_sheet(tiles, columns=3)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 3 * 232 + 8 and sheet.shape[0] > 3 * 232
    assert contact_sheet(tiles[:1]).shape[1] == 232 + 8


def test_portrait_is_what_was_decoded(bundle):
    s2f = Speech2Face.load(bundle, "cpu")
    feature = torch.randn(FEATURE).numpy()
    portrait = s2f.portrait(feature)
    decoded = FaceDecoder.from_checkpoint(bundle / "face_decoder.safetensors")(torch.from_numpy(feature)[None])
    assert isinstance(decoded, Decoded) and decoded.texture.shape == (1, 3, 224, 224)
    assert isinstance(portrait, Portrait) and np.array_equal(portrait.landmarks, decoded.landmarks[0].numpy())
    assert portrait.texture.dtype == np.uint8 and portrait.texture.shape == (224, 224, 3)
    assert np.abs(portrait.texture - 255 * decoded.texture[0].permute(1, 2, 0).numpy()).max() <= 0.51
