"""The face-speaker encoder: the published weights run exactly, and dlib's network is dlib's."""

import os
import struct
from pathlib import Path

import dlib
import numpy as np
import pytest
import synthetic
import torch
from safetensors import safe_open

from encoder.dlib_resnet import DlibResnet, read_dlib_dat
from encoder.face import DlibDetector, find_faces, load_photo
from encoder.face_model import FaceSpeakerEncoder, FaceSpeakerEncoderDims, legacy_app_input, unit
from savedmodels import CheckpointError, write_checkpoint

DATA = Path(__file__).parent / "data"
DEFAULT_BUNDLE = Path(__file__).parent.parent / "savedmodels" / "default"

torch.manual_seed(0)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return synthetic.write_published("lip2speech", tmp_path_factory.mktemp("published"), prefix="vgg_face.")


@pytest.fixture(scope="module")
def small() -> FaceSpeakerEncoder:
    dims = FaceSpeakerEncoderDims("dlib_resnet", features=16, hidden=8, embedding=12)
    return FaceSpeakerEncoder(dims).eval()


# ---- the published file


def test_published_weights_give_the_published_answers(published):
    network = FaceSpeakerEncoder.from_checkpoint(published)
    faces, golden = synthetic.probe_inputs()["face"], synthetic.golden()
    with torch.no_grad():
        assert synthetic.relative_error(network.features(faces), golden["face_raw"]) < 1e-4
        assert synthetic.relative_error(network.embed(faces), golden["face_embed"]) < 1e-4
        assert torch.equal(network.embed(faces, legacy_app=True), network.embed(legacy_app_input(faces)))
        assert not torch.allclose(network.embed(faces, legacy_app=True), network.embed(faces), atol=1e-3)


def test_published_names_and_shapes():
    with torch.device("meta"):
        own = {f"vgg_face.{k}": list(v.shape) for k, v in FaceSpeakerEncoder().state_dict().items()}
    layout = synthetic.layout("lip2speech")
    assert own == {k: s for k, (s, _) in layout.items() if k.startswith("vgg_face.") and "logits" not in k}


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("prefix", ["vgg_face.", ""])
@pytest.mark.parametrize("logits", [True, False])
def test_variants_of_the_published_file(tmp_path, monkeypatch, wrapped, prefix, logits):
    built = {}
    monkeypatch.setattr(  # what would be built from, without the time to copy 24 million weights
        "savedmodels.Checkpoint.build",
        lambda self, module, dims, ignore=(): built.update(names=set(self.tensors) - set(ignore)) or built,
    )
    names = [k.removeprefix("vgg_face.") for k in synthetic.layout("lip2speech") if k.startswith("vgg_face.")]
    state = {prefix + k: torch.zeros(1) for k in names if logits or "logits" not in k}
    if prefix:
        state["encoder.other"] = torch.zeros(1)
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "lip2speech_final.pth")
    FaceSpeakerEncoder.from_checkpoint(tmp_path / "lip2speech_final.pth")
    assert built["names"] == {k for k in names if "logits" not in k}


def test_another_file_is_refused(tmp_path):
    other = synthetic.write_published("encoder", tmp_path)
    with pytest.raises(CheckpointError, match="no face-speaker encoder in it"):
        FaceSpeakerEncoder.from_checkpoint(other)


# ---- our own file


def test_own_file_gives_the_same_network(small, tmp_path):
    write_checkpoint(tmp_path / "face.safetensors", small)
    again = FaceSpeakerEncoder.from_checkpoint(tmp_path / "face.safetensors")
    faces = torch.rand(2, 3, 160, 160) * 2 - 1
    assert again.dims == small.dims and torch.equal(again.embed(faces), small.embed(faces))


def test_unknown_backbone():
    with pytest.raises(ValueError, match="inception_resnet_v1, dlib_resnet"):
        FaceSpeakerEncoderDims("vgg16")


def test_embeddings_are_unit_vectors_and_never_nan(small):
    embeddings = small.embed(torch.rand(3, 3, 160, 160) * 2 - 1)
    assert embeddings.shape == (3, 12) and (embeddings >= 0).all()
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.equal(unit(-torch.ones(2, 12)), torch.zeros(2, 12))


def test_legacy_input_is_that_of_the_old_app_to_the_bit():
    crop = torch.randint(0, 256, (1, 160, 160, 3), dtype=torch.uint8)
    ours = (crop.permute(0, 3, 1, 2).float() - 127.5) / 128
    theirs = crop.flip(3).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(legacy_app_input(ours), theirs)


# ---- dlib's network


def dlib_integer(value: int) -> bytes:
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "little")


def dlib_tensor(values: np.ndarray) -> bytes:
    shape = (*values.shape, *[1] * (4 - values.ndim))
    return b"".join(map(dlib_integer, (2, *shape))) + values.astype("<f4").tobytes()


def write_dat(path: Path, network: DlibResnet, gain: float) -> None:
    """`network` as dlib would dump it, its convolutions divided by `gain` and scaled back."""
    content = b"\x01\x01"
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            values = torch.cat([module.weight.flatten() / gain, torch.zeros_like(module.bias)])
            content += b"\x01\x05con_4" + dlib_tensor(values.detach().numpy()) + struct.pack("<3d", 1, 2, 3)
            values = torch.cat([torch.full_like(module.bias, gain), module.bias])
            content += b"\x01\x07affine_" + dlib_tensor(values.detach().numpy())
    weight = network.fc.weight.detach().numpy().T
    content += b"\x01\x04fc_2" + dlib_integer(128) + dlib_integer(256) + dlib_tensor(weight)
    path.write_bytes(content)


def test_reading_a_dat_file_folds_the_scaling(tmp_path):
    network = DlibResnet()
    write_dat(tmp_path / "net.dat", network, gain=4.0)
    state = read_dlib_dat(tmp_path / "net.dat")
    for name, value in network.state_dict().items():
        assert torch.allclose(state[name], value), name


def test_damaged_dat_files(tmp_path):
    write_dat(tmp_path / "net.dat", DlibResnet(), gain=1.0)
    whole = (tmp_path / "net.dat").read_bytes()
    for content in (
        b"",
        b"hello",
        whole[: len(whole) // 2],
        whole[:-4],
        whole.replace(b"con_4", b"con_9", 1),
    ):
        (tmp_path / "cut.dat").write_bytes(content)
        with pytest.raises(CheckpointError, match="cut.dat"):
            read_dlib_dat(tmp_path / "cut.dat")
    with pytest.raises(CheckpointError, match="missing.dat"):
        read_dlib_dat(tmp_path / "missing.dat")


def dlib_weights() -> DlibResnet | None:
    """dlib's weights: from DLIB_RESNET_DAT if that names the .dat file, else from the default bundle."""
    if dat := os.environ.get("DLIB_RESNET_DAT"):
        network = DlibResnet()
        network.load_state_dict(read_dlib_dat(dat))
        return network.eval()
    for path in sorted(DEFAULT_BUNDLE.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            is_face = (file.metadata() or {}).get("network") == "FaceSpeakerEncoder"
        if is_face:
            return FaceSpeakerEncoder.from_checkpoint(path).resnet
    return None


def test_descriptor_is_that_of_dlib():
    network = dlib_weights()
    if network is None:
        pytest.skip("neither DLIB_RESNET_DAT nor a default bundle with a face-speaker encoder")
    photo = load_photo(DATA / "portrait.jpg")
    points = [dlib.point(int(x), int(y)) for x, y in np.rint(find_faces(photo, DlibDetector())[0].points)]
    face = dlib.full_object_detection(dlib.rectangle(0, 0, 1, 1), points)
    reference = torch.from_numpy(np.load(DATA / "portrait_descriptor.npy"))
    tolerance = 1e-5 if "DLIB_RESNET_DAT" in os.environ else 1e-3  # the bundle may be in half precision
    for side, limit in ((150, tolerance), (160, 0.03)):  # the second is resized
        chip = torch.from_numpy(dlib.get_face_chip(photo, face, side, 0.25)).permute(2, 0, 1)[None]
        with torch.no_grad():
            answer = network((chip.float() - 127.5) / 128)[0]
        assert synthetic.relative_error(answer, reference) < limit
