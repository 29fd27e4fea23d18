"""The product on tiny networks: speaking, streaming, voices, the command line, bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from encoder import FaceSpeakerEncoder, FaceSpeakerEncoderDims, SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from face2voice import Face2Voice, Speech, Voice
from face2voice.batch import read_jobs, run_jobs
from face2voice.pipeline import MADE_BY, attended_in_order
from savedmodels import Bundle, CheckpointError, InputError, find_bundle, write_checkpoint
from synthesizer import Tacotron, TacotronDims
from synthesizer.equalizer import Equalizer
from vocoder import WaveRNN, WaveRNNDims

PORTRAIT = Path(__file__).parent / "data" / "portrait.jpg"
LONG_TEXT = "The first sentence is long enough to stand alone. The second one, too, is spoken by itself!\nAnd a third?"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """A bundle of networks with random weights, small enough to speak in no time."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    small = {"embedding": 8, "encoder": 8, "encoder_kernels": 1, "decoder": 8, "lstm": 8, "postnet": 8}
    synthesizer = Tacotron(TacotronDims(**small, postnet_kernels=1, highways=1, max_r=5, r=5))
    torch.nn.init.constant_(synthesizer.decoder.stop_proj.bias, 20.0)  # ends as soon as it is listened to
    parts = {
        "face_encoder": FaceSpeakerEncoder(FaceSpeakerEncoderDims("dlib_resnet", features=128)),
        "speech_encoder": SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(hidden=8, layers=1)),
        "synthesizer": synthesizer,
        "vocoder": WaveRNN(WaveRNNDims(rnn=8, fc=8, compute=8, res_out=8, res_blocks=1, bits=4)),
    }
    for name, part in parts.items():
        write_checkpoint(folder / f"{name}.safetensors", part)
    Bundle("tiny", folder).record()
    return folder


@pytest.fixture(scope="module")
def tts(bundle) -> Face2Voice:
    return Face2Voice.load(bundle, device="cpu")


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice(np.abs(np.random.default_rng(0).normal(size=256)), "a test")


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "face2voice", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


# ---- speaking


def test_speech_has_what_it_promises(tts, voice):
    speech = tts.speak(LONG_TEXT, voice, seed=1)
    assert speech.sample_rate == 16_000
    assert speech.samples.dtype == np.float32
    assert np.abs(speech.samples).max() <= 1
    assert speech.mel.shape[0] == 80
    assert len(speech.alignments) == len(speech.texts) == len(tts.pieces(LONG_TEXT))
    assert set(speech.seconds) == {"synthesizer", "vocoder"}


def test_an_equalizer_is_put_on_what_is_spoken(tts, voice, bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    equalizer = Equalizer()
    torch.nn.init.zeros_(equalizer.affine.weight)
    torch.nn.init.constant_(equalizer.affine.bias, 10.0)  # decibels
    write_checkpoint(folder / "equalizer.safetensors", equalizer)
    plain, raised = (one.speak("Hello.", voice, seed=1).mel for one in (tts, Face2Voice.load(folder, device="cpu")))
    np.testing.assert_allclose(raised, np.clip(plain + 0.8, -4, 4), atol=1e-5)


def test_streamed_pieces_are_the_whole(tts, voice):
    pieces = list(tts.stream(LONG_TEXT, voice, seed=1))
    assert len(pieces) > 1
    joined = Speech.join(pieces)
    assert np.array_equal(joined.samples, tts.speak(LONG_TEXT, voice, seed=1).samples)


def test_seed_decides(tts, voice):
    first, again, other = (tts.speak("One sentence to compare.", voice, seed=s).samples for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_speed_and_pause(tts, voice):
    plain = tts.speak(LONG_TEXT, voice)
    slow = tts.speak(LONG_TEXT, voice, speed=0.5)
    still = tts.speak(LONG_TEXT, voice, pause=0)
    assert slow.mel.shape[1] == pytest.approx(2 * plain.mel.shape[1], abs=len(plain.texts))
    assert still.duration < plain.duration
    assert still.mel.shape == plain.mel.shape


def test_pieces_are_equally_loud(tts, voice):
    levels = [np.sqrt((p.samples[p.samples != 0] ** 2).mean()) for p in tts.stream(LONG_TEXT, voice)]
    assert max(levels) < 1.6 * min(levels)


def test_griffin_lim_needs_no_vocoder(bundle, voice, tmp_path):
    for name in ("synthesizer.safetensors",):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    tts = Face2Voice.load(tmp_path)
    assert tts.speak("Hello there.", voice, vocoder="griffin-lim").duration > 0
    with pytest.raises(CheckpointError, match="vocoder"):
        tts.speak("Hello there.", voice)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speed": 3}, "speed"), ({"pause": -1}, "pause"), ({"vocoder": "lpc"}, "vocoder")],
)
def test_options_out_of_range(tts, voice, options, message):
    with pytest.raises(InputError, match=message):
        tts.speak("Hello there.", voice, **options)


@pytest.mark.parametrize("text", ["", "   ", "...!!!???", "\U0001f600\U0001f44d"])
def test_nothing_to_say(tts, voice, text):
    with pytest.raises(InputError):
        tts.speak(text, voice)


def test_saved_sound_is_tagged(tts, voice, tmp_path):
    speech = tts.speak("Hello there.", voice)
    for name in ("a.wav", "a.flac", "a.ogg"):
        speech.save(tmp_path / "new folder" / name)
        with sf.SoundFile(tmp_path / "new folder" / name) as file:
            assert file.comment == MADE_BY
            assert file.samplerate == 16_000
            assert file.frames == len(speech.samples)
    with pytest.raises(InputError, match="a.mid"):
        speech.save(tmp_path / "a.mid")


def test_attention_in_order():
    diagonal = torch.eye(40).repeat_interleave(2, dim=0)
    assert attended_in_order(diagonal)
    assert not attended_in_order(diagonal[:50])  # stops before the end
    assert not attended_in_order(torch.cat([diagonal[:20], diagonal[50:]]))  # skips
    assert not attended_in_order(torch.cat([diagonal[:60], diagonal[20:]]))  # repeats


# ---- voices


def test_voice_of_a_face(tts):
    voice = tts.voice_from_face(PORTRAIT)
    assert voice.embedding.shape == (256,)
    assert np.linalg.norm(voice.embedding) == pytest.approx(1, abs=1e-5)
    assert (voice.embedding >= 0).all()
    assert tts.voice_from_face([PORTRAIT, PORTRAIT]).similarity(voice) == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="1 face"):
        tts.voice_from_face(PORTRAIT, face=1)


def test_voices_are_saved_and_mixed(voice, tmp_path):
    voice.save(tmp_path / "v.npz")
    again = Voice.load(tmp_path / "v.npz")
    assert np.array_equal(again.embedding, voice.embedding)
    assert again.source == "a test"
    assert "AI-generated" in str(np.load(tmp_path / "v.npz")["comment"])
    other = Voice(np.eye(256)[0])
    assert Voice.mix([voice, other], [1, 0]).similarity(voice) == pytest.approx(1)
    assert Voice.mix([voice, other]).similarity(other) > voice.similarity(other)
    for wrong in ([], [voice]):
        with pytest.raises(InputError):
            Voice.mix(wrong, [1, 2])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.zeros(256), "all zero"),
        (np.ones(255), "255 numbers"),
        (np.ones((2, 256)), "512 numbers"),
        (1.0, "1 numbers"),
        (np.full(256, np.nan), "not finite"),
        (np.full(256, 1e300), "not finite"),
        (np.r_[np.ones(255), np.inf], "not finite"),
        (["loud"] * 256, "something other than numbers"),
        (None, "1 numbers"),
    ],
)
def test_a_voice_is_256_finite_numbers(numbers, message, tmp_path):
    with pytest.raises(InputError, match=f"^a test: not a voice.*{message}"):
        Voice(numbers, "a test")
    if isinstance(numbers, np.ndarray):
        np.savez(tmp_path / "v.npz", embedding=numbers, source="a test")
        with pytest.raises(InputError, match=f"v.npz: not a voice.*{message}"):
            Voice.load(tmp_path / "v.npz")


def test_files_that_hold_no_voice(voice, tmp_path):
    path = tmp_path / "v.npz"
    with pytest.raises(InputError, match="no such"):
        Voice.load(path)
    voice.save(path)
    whole = path.read_bytes()
    np.save(tmp_path / "v.npy", voice.embedding)
    rng = np.random.default_rng(0)
    damaged = [b"", b"hello", whole[:50], whole[: len(whole) // 2], (tmp_path / "v.npy").read_bytes()]
    for _ in range(200):
        bytes_ = bytearray(whole)
        for place in rng.integers(len(whole), size=4):
            bytes_[place] = rng.integers(256)
        damaged.append(bytes(bytes_))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            Voice.load(path)
        except InputError as error:
            assert "v.npz" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 150


# ---- bundles


def test_bundles(bundle, tmp_path):
    assert all(find_bundle(bundle).verify().values())
    with pytest.raises(CheckpointError, match="no weights"):
        find_bundle(tmp_path)
    with pytest.raises(CheckpointError, match="bundles here"):
        find_bundle(tmp_path / "nowhere")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in bundle.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "vocoder.safetensors").write_bytes(b"\0" * 100)
    results = Bundle("damaged", damaged).verify()
    assert [path.name for path, good in results.items() if not good] == ["vocoder.safetensors"]


# ---- the command line


def test_speak_clone_and_embed(bundle, tmp_path):
    spoken = run("speak", "--bundle", bundle, "--face", PORTRAIT, "--text", "Hello there.", "-o", tmp_path / "a.wav")
    assert spoken.returncode == 0, spoken.stderr
    assert "real-time factor" in spoken.stderr
    made = run("embed", "--bundle", bundle, "--face", PORTRAIT, "-o", tmp_path / "v.npz")
    assert made.returncode == 0, made.stderr
    (tmp_path / "text.txt").write_text("Hello there.")
    again = run(
        *("speak", "--bundle", bundle, "--voice", tmp_path / "v.npz"),
        *("--text-file", tmp_path / "text.txt", "-o", tmp_path / "b.wav"),
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_a_file_that_cannot_be_written_is_one_line(bundle, tmp_path):
    (tmp_path / "file").touch()
    made = run("embed", "--bundle", bundle, "--face", PORTRAIT, "-o", tmp_path / "file" / "v.npz")
    assert made.returncode == 2
    assert made.stderr.strip() == f"face2voice: {tmp_path / 'file'}: File exists"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--face", "nowhere.jpg", "--text", "Hello."), "nowhere.jpg"),
        (("--face", "empty.jpg", "--text", "Hello."), "empty.jpg"),
        (("--face", "text.jpg", "--text", "Hello."), "text.jpg"),
        (("--face", "grey.png", "--text", "Hello."), "grey.png"),
        (("--face", PORTRAIT, "--text", ""), "text"),
        (("--face", PORTRAIT, "--text", "...!!!"), "say"),
        (("--face", PORTRAIT), "--text"),
        (("--face", PORTRAIT, "--face", "3", "--text", "Hello."), "1 face"),
        (("--face", PORTRAIT, "--text", "Hello.", "--bundle", "nowhere"), "nowhere"),
        (("--face", PORTRAIT, "--text", "Hello.", "--bundle", "cut"), "synthesizer"),
        (("--voice", "text.jpg", "--text", "Hello."), "text.jpg"),
        (("--face", PORTRAIT, "--text", "Hello.", "--no-such-option"), "--no-such-option"),
    ],
)
def test_bad_input_is_one_line(bundle, tmp_path, monkeypatch, capsys, arguments, named):
    from face2voice import cli

    monkeypatch.chdir(tmp_path)
    Path("empty.jpg").touch()
    Path("text.jpg").write_text("hello")
    from PIL import Image

    Image.new("L", (200, 200), 128).save("grey.png")
    Path("cut").mkdir()
    Path("cut/synthesizer.safetensors").write_bytes((bundle / "synthesizer.safetensors").read_bytes()[:500])
    if "--bundle" not in arguments:
        arguments = (*arguments, "--bundle", bundle)
    monkeypatch.setattr(sys, "argv", ["face2voice", "speak", "-o", "out.wav", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert len(error.splitlines()) == 1
    assert named in error
    assert not Path("out.wav").exists()


def test_the_command_line_answers_before_anything_heavy_is_loaded():
    code = "import sys, face2voice.cli; assert not {'torch', 'scipy', 'gradio', 'lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models(monkeypatch, capsys, bundle):
    from face2voice import cli

    for command, status in ((("list",), 0), (("verify", str(bundle)), 0), (("verify", "nowhere"), 2)):
        monkeypatch.setattr(sys, "argv", ["face2voice", "models", *command])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert (exit_.value.code or 0) == status
    assert "good" in capsys.readouterr().out


def test_published_names_are_a_bundle(tmp_path):
    """A folder with the four published files speaks; their weights are rebuilt from a seed."""
    from synthetic import FILES, write_published

    for network in FILES:
        write_published(network, tmp_path, prefix="vgg_face." if network == "lip2speech" else "")
    done = run(
        *("speak", "--bundle", tmp_path, "--face", PORTRAIT, "--text", "Hi.", "--vocoder", "griffin-lim"),
        *("-o", tmp_path / "out.wav"),
    )
    assert done.returncode == 0, done.stderr
    assert sf.info(tmp_path / "out.wav").duration > 0


def test_manifest_round_trip(tmp_path):
    from face2voice.corpora import Utterance, read_manifest, write_manifest

    utterances = [
        Utterance(tmp_path / "a.flac", "Hello.", "anna", "f", 30.0, (tmp_path / "a.jpg",), "test"),
        Utterance(Path("/elsewhere/b.wav"), speaker="ben"),
    ]
    write_manifest(tmp_path / "m.jsonl", utterances)
    assert read_manifest(tmp_path / "m.jsonl") == utterances
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])["audio"] == "a.flac"
    (tmp_path / "m.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="line 1"):
        read_manifest(tmp_path / "m.jsonl")


def test_batch_speaks_what_is_missing_and_names_what_fails(bundle, tts, voice, tmp_path):
    voice.save(tmp_path / "v.npz")
    (tmp_path / "jobs.csv").write_text("text,voice,face,out,seed\nHello.,v.npz,,,\nHello.,,nobody.jpg,b/x.wav,3\n")
    jobs = read_jobs(tmp_path / "jobs.csv", tmp_path / "out")
    assert [job.out.name for job in jobs] == ["0001.wav", "x.wav"] and jobs[1].seed == 3
    ((failed, reason),) = run_jobs(tts, jobs)
    assert failed is jobs[1] and "nobody.jpg" in reason
    before = jobs[0].out.stat().st_mtime_ns
    assert len(run_jobs(tts, jobs)) == 1 and jobs[0].out.stat().st_mtime_ns == before
    for bad in ("text\nHello.\n", "text,voice,face\nHello.,v.npz,f.jpg\n", "", "text,voice,seed\nHello.,v.npz,x\n"):
        (tmp_path / "jobs.csv").write_text(bad)
        with pytest.raises(InputError, match=r"jobs\.csv"):
            read_jobs(tmp_path / "jobs.csv", tmp_path)
