"""The demo without a browser: what its functions and endpoints answer, on tiny networks."""

import base64
import io
import os
import re
import shutil
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile as sf
from PIL import Image

pytest.importorskip("gradio", reason="the demo is not installed: pip install -e .[demo]")

import gradio_client
import test_pipeline
import torch
import uvicorn
from fastapi.testclient import TestClient

from demo import benchmark, pictures, server, speak, studio, words
from demo.examples import PARAGRAPH, PORTRAIT, SENTENCES
from demo.form import Chosen, kept_with
from demo.photos import find_photo
from demo.tabs import about, explore, lessons, portraits
from encoder.face import Face, find_faces, load_photo
from face2voice import Voice, limits
from face2voice.pipeline import MADE_BY
from face2voice.speech2face.decoder import FaceDecoder, FaceDecoderDims
from face2voice.speech2face.frame import crop_frame, frames_to_tensor
from face2voice.speech2face.round_trip import RoundTrip
from face2voice.speech2face.sheet import Tile
from face2voice.speech2face.voice_encoder import VoiceEncoder, VoiceEncoderDims
from savedmodels import InputError, write_checkpoint

tiny_bundle = test_pipeline.bundle
TEXT = "Hello there."
PATIENT = {"verbose": False, "httpx_kwargs": {"timeout": 120}}
README = Path(__file__).parents[1] / "README.md"
NO_SECRETS = re.compile(r"Traceback|site-packages|/tmp|/home|/root|\.py\b")


@pytest.fixture(scope="session")
def whole_bundle(tiny_bundle, tmp_path_factory) -> Path:
    """The tiny bundle and the reverse direction, which draws one and the same face whatever it hears."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiny_bundle, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    decoder, photo = FaceDecoder(FaceDecoderDims()), load_photo(PORTRAIT)
    frame, _ = crop_frame(photo, find_faces(photo)[0])
    decoder.mean_texture.copy_(frames_to_tensor(frame)[0])
    write_checkpoint(folder / "face_decoder.safetensors", decoder)
    write_checkpoint(folder / "voice_encoder.safetensors", VoiceEncoder(VoiceEncoderDims()))
    return folder


@pytest.fixture(scope="module")
def shop(whole_bundle) -> studio.Studio:
    made = studio.Studio(whole_bundle, "cpu")
    made.tts().warm_up()
    return made


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(shop, uploads):
    """Where a server with the demo listens."""
    config = uvicorn.Config(server.make_app(shop, uploads), port=0, log_level="warning", timeout_graceful_shutdown=1)
    running = server.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A second of something that sounds like speech to the detector of it."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    time_ = np.arange(32_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 140 * k * time_) / k for k in range(1, 20))
    sf.write(path, 0.1 * tone * (1 + np.sin(2 * np.pi * 4 * time_)), 16_000)
    return path


def find_example(tts) -> Voice:
    return tts.voice_from_face(PORTRAIT)


# ---- speaking


def test_speech_is_the_pipelines_and_comes_piece_by_piece(shop):
    wishes = speak.Wishes(test_pipeline.LONG_TEXT, seed=7, speed=1.5)
    steps = list(speak.speak(shop, wishes, find_example))
    assert [len(step.pieces) for step in steps] == list(range(steps[0].total + 1))
    tts = shop.tts()
    whole = tts.speak(wishes.text, find_example(tts), seed=7, speed=1.5)
    assert np.array_equal(steps[-1].speech.samples, whole.samples)


def test_closing_ends_the_work(shop):
    steps = speak.speak(shop, speak.Wishes(PARAGRAPH), find_example)
    next(steps), next(steps)
    steps.close()
    assert shop.turn.acquire(timeout=1)
    shop.turn.release()


def test_too_long_a_computation_is_stopped(shop, monkeypatch):
    monkeypatch.setattr(speak, "SPEAKING_SECONDS", 0.0)
    with pytest.raises(InputError, match="shorter text"):
        list(speak.speak(shop, speak.Wishes(PARAGRAPH), find_example))


def test_pitch_and_age_move_the_voice(shop):
    plain, moved = (speak.speak_whole(shop, speak.Wishes(TEXT, pitch=p, older=p), find_example) for p in (0, 4))
    assert moved.voice.similarity(plain.voice) < 0.9999
    assert "semitones" in moved.voice.source


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"text": ""}, "no text"),
        ({"text": 123}, "no text"),
        ({"text": None}, "no text"),
        ({"text": "a" * 501}, "501 characters"),
        ({"text": "a" * 1_000_000}, "500"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"speed": 3}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"pause": None}, "pause"),
        ({"pitch": 13}, "pitch"),
        ({"older": True}, "age"),
        ({"bundle": ["a"]}, "bundle"),
    ],
)
def test_wishes_are_checked(wishes, message):
    with pytest.raises(InputError, match=message):
        speak.Wishes(**{"text": TEXT, **wishes})


@pytest.mark.parametrize("bundle", ["nowhere", "/etc", "../savedmodels", "lesson-x"])
def test_only_listed_bundles_are_opened(shop, bundle):
    with pytest.raises(InputError, match="no bundle"):
        shop.tts(bundle)


def test_models_are_loaded_once(shop, tiny_bundle):
    assert shop.tts() is shop.tts(shop.bundles[0], "cpu")
    assert shop.speech2face() is shop.speech2face()
    with pytest.raises(InputError, match="no face decoder"):
        studio.Studio(tiny_bundle, "cpu").speech2face()
    names = [shop.adopt(tiny_bundle) for _ in range(limits.LESSONS_KEPT + 1)]
    assert shop.tts(names[-1]) is not shop.tts()
    with pytest.raises(InputError, match="no bundle"):
        shop.tts(names[0])


def test_examples_fit():
    assert all(len(text) <= limits.TEXT_CHARACTERS for text in (*SENTENCES.values(), PARAGRAPH))


# ---- photos, pictures, voices


def test_faces_are_found_framed_and_used(shop):
    photo, pixels = find_photo(shop, PORTRAIT)
    picture, scale = pictures.marked(pixels, photo.faces)
    assert len(photo.faces) == 1 and max(picture.size) == round(scale * max(pixels.shape[:2]))
    assert np.array_equal(photo.voice(shop.tts()).embedding, find_example(shop.tts()).embedding)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"hello", "not a picture"), ("grey", "No face found"), ("bomb", "too large")],
)
def test_bad_photos(shop, tmp_path, content, message):
    path = tmp_path / "photo.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        (Image.new("L", (200, 200), 128) if content == "grey" else Image.new("1", (13_000, 13_000))).save(path)
    with pytest.raises(InputError) as caught:
        find_photo(shop, path)
    sentence = words.in_words(caught.value)
    assert message in sentence and not NO_SECRETS.search(sentence) and str(tmp_path) not in sentence


def test_words_never_show_paths_or_traces(caplog):
    sentence = words.in_words(RuntimeError("secret in /srv/models/x.py"))
    assert "secret" not in sentence and sentence.endswith(".")
    assert "secret" in caplog.text
    assert words.in_words(InputError("/srv/models/face.safetensors: damaged")) == "Face.safetensors: damaged."


def test_pictures_show_speech(shop):
    speech = shop.tts().speak(test_pipeline.LONG_TEXT, find_example(shop.tts()))
    assert pictures.alignment(speech.alignments).shape == tuple(
        np.sum([a.shape[::-1] for a in speech.alignments], axis=0)
    )
    shown = pictures.figures(speech)
    assert shown.count("<img") == 3 == shown.count("alt=")
    crowd = [Face((10, 10, 90, 90), np.zeros((5, 2)), 1.0), Face((-20, 50, 30, 99), np.zeros((5, 2)), 1.0)]
    assert pictures.marked(np.zeros((100, 200, 3), np.uint8), crowd, 1)[0].size == (800, 400)
    assert pictures.with_points(np.zeros((224, 224, 3), np.uint8), np.full((68, 2), 100)).size == (448, 448)
    assert "from 2.000 to 1.000" in lessons.draw_curve([2.0, 1.5, 1.0])


def test_voices_are_kept_mapped_and_escaped(shop):
    space = shop.voice_space()
    made = [Voice(np.abs(np.random.default_rng(i).normal(size=256)), f"<b>{i}</b>") for i in range(30)]
    kept = kept_with([], *made, made[5])
    assert len(kept) == limits.VOICES_KEPT and kept[-1] is made[5]
    drawn = explore.draw_map(space, kept, explore.names(space, kept)[0])
    assert drawn.count("data-voice=") == len(space.names) + len(kept)
    assert "<b>" not in drawn and drawn.count('aria-pressed="true"') == 1
    places = explore.plane(space, kept)
    assert places.min() >= 0 and places.max() <= 1
    assert explore.find(space, kept, explore.names(space, kept)[0]) is kept[-1]
    with pytest.raises(InputError, match="no such voice"):
        explore.find(space, kept, "nobody")


def test_a_preferred_voice_lasts_as_long_as_the_photo():
    first, second, third = (Voice(np.eye(256)[i]) for i in range(3))
    chosen = Chosen(first, second)
    assert chosen.in_place_of(first) is second and chosen.in_place_of(third) is third


def test_bad_voice_files(tmp_path):
    path = tmp_path / "v.npz"
    cases = [b"hello", b"PK\3\4"]
    for numbers in (np.ones(100), np.full(256, np.nan), np.zeros(256), np.array("x" * 256)):
        np.savez(path, embedding=numbers, source="x")
        cases.append(path.read_bytes())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("embedding.npy", bytes(10**7))
    for content in (*cases, path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a voice"):
            speak.load_voice(path)


# ---- POST /v1/audio/speech


def test_speech_endpoint(client, shop):
    body = {"model": "tts-1", "input": TEXT, "voice": client.get("/v1/audio/voices").json()["voices"][0], "seed": 3}
    for kind in ("wav", "flac"):
        answer = client.post("/v1/audio/speech", json={**body, "response_format": kind})
        assert answer.status_code == 200 and answer.headers["content-type"] == f"audio/{kind}"
        with sf.SoundFile(io.BytesIO(answer.content)) as file:
            assert file.comment == MADE_BY
            samples = file.read(dtype="int16")
    space = shop.voice_space()
    own = shop.tts().speak(TEXT, Voice(space.embeddings[0]), seed=3)
    assert np.abs(samples - np.round(own.samples * 32767)).max() <= 1


def test_voices_are_sent_by_photo_clip_and_file(client, clip, tmp_path):
    Voice(np.eye(256)[3], "x").save(tmp_path / "v.npz")
    ids = []
    for path in (PORTRAIT, clip, tmp_path / "v.npz"):
        answer = client.post("/v1/audio/voices", files={"file": path.read_bytes()})
        assert answer.status_code == 200, answer.text
        ids.append(answer.json()["id"])
        assert client.post("/v1/audio/speech", json={"input": TEXT, "voice": ids[-1]}).status_code == 200
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("nonsense", "JSON"),
        ([], "JSON object"),
        ({}, "no text"),
        ({"input": TEXT}, "no voice"),
        ({"input": TEXT, "voice": "nobody"}, "no voice"),
        ({"input": TEXT, "voice": "nobody", "response_format": "mp3"}, "wav or flac"),
        ({"input": "a" * 501, "voice": "nobody"}, "501"),
        ({"input": TEXT, "voice": "nobody", "speed": 9}, "Speed"),
    ],
)
def test_speech_endpoint_says_what_is_wrong(client, body, message):
    sent = {"content": body} if isinstance(body, str) else {"json": body}
    answer = client.post("/v1/audio/speech", **sent)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert not NO_SECRETS.search(answer.text)


def test_bad_uploads_of_voices(client):
    for content in (b"", b"hello", b"PK\3\4nonsense", b"RIFF" + bytes(100)):
        answer = client.post("/v1/audio/voices", files={"file": content})
        assert answer.status_code == 400
        assert not NO_SECRETS.search(answer.text)


def test_too_many_requests_are_refused(client, shop, monkeypatch):
    with shop.turn:
        body = {"input": TEXT, "voice": "nobody"}
        say = lambda: answers.append(client.post("/v1/audio/speech", json=body).status_code)  # noqa: E731
        answers: list[int] = []
        threads = [threading.Thread(target=say) for _ in range(limits.WAITING + 3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(answers) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert sorted(answers) == [400] * limits.WAITING + [503] * 3


# ---- what the server gives away, and keeps


def test_large_requests_are_refused(client):
    assert client.post("/gradio_api/upload", files={"files": bytes(11_000_000)}).status_code == 413
    assert client.post("/v1/audio/voices", files={"file": bytes(11_000_000)}).status_code == 413
    assert client.post("/v1/audio/speech", content=iter([bytes(4_000_000)] * 3)).status_code == 413


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "..%2f..%2fetc/passwd", "demo/server.py"])
def test_files_of_the_machine_are_not_given_away(client, path):
    answer = client.get(f"/gradio_api/file={path}")
    assert answer.status_code in (403, 404) and "root:" not in answer.text


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/").text
    sources = re.findall(r"""(?:src|href)=["'](https?://[^"']+)""", page)
    assert not [source for source in sources if "127.0.0.1" not in source]
    config = client.get("/config").json()
    assert not config.get("analytics_enabled") and not config.get("run_history")
    named = {
        dependency["api_name"] for dependency in config["dependencies"] if dependency["api_visibility"] == "public"
    }
    assert named == {"speak", "clone", "speech2face"}


def test_uploads_are_removed(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # the other server wants its own back
    with TestClient(server.make_app(shop, tmp_path, files_kept=2, swept_every=1)) as client:
        answer = client.post("/gradio_api/upload", files={"files": PORTRAIT.read_bytes()})
        path = Path(answer.json()[0])
        assert tmp_path in path.parents
        deadline = time.monotonic() + 60
        while path.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not path.exists()


# ---- gradio_client


@pytest.fixture(scope="module")
def program(address, tmp_path_factory):
    return gradio_client.Client(address, download_files=tmp_path_factory.mktemp("down"), **PATIENT)


def test_named_endpoints(program, shop, clip):
    for endpoint, path in (("/speak", PORTRAIT), ("/clone", clip)):
        sound, report = program.predict(gradio_client.handle_file(str(path)), TEXT, seed=5, api_name=endpoint)
        tts = shop.tts()
        voice = tts.voice_from_face(path) if endpoint == "/speak" else tts.voice_from_speech(path)
        with sf.SoundFile(sound) as file:
            assert file.comment == MADE_BY
            got = file.read(dtype="int16")
        assert np.abs(got - np.round(tts.speak(TEXT, voice, seed=5).samples * 32767)).max() <= 1
        assert report["seconds"] == pytest.approx(len(got) / 16_000)


def test_portrait_endpoint(program, shop, clip):
    own = shop.speech2face().portrait_from_speech(clip)
    with Image.open(program.predict(gradio_client.handle_file(str(clip)), api_name="/speech2face")) as picture:
        assert np.array_equal(np.array(picture), own.image) and "AI-generated" in picture.text["Comment"]
    parts = portraits.parts_of(own)
    for data in re.findall('base64,([^"]+)', parts):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert "AI-generated" in picture.text["Comment"]
    assert parts.count("<img") == 2
    trip = RoundTrip({"voice, <b>face</b>": 0.5}, (Tile(own.image, "photo\nand more"), Tile(own.texture, "face")))
    shown = portraits.stations_of(trip)
    assert shown.count("<img") == 2 and "0.50" in shown and "<b>face" not in shown


def test_examples_for_programs_run(address, clip, tmp_path, monkeypatch):
    """Those of the README, which the page's tab About shows as well."""
    (tmp_path / "photo.jpg").write_bytes(PORTRAIT.read_bytes())
    (tmp_path / "clip.wav").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    readme = README.read_text()
    examples = re.findall(r"```(python|sh)\n(.*?)```", about.PROGRAMS.replace("NAME", "f44-rms-09"), re.DOTALL)
    assert [kind for kind, _ in examples] == ["python", "sh"]
    for kind, example in examples:
        assert example in readme
        example = example.replace("http://127.0.0.1:7860", address)
        if kind == "python":
            made: dict = {}
            exec(example, made)
            assert sf.info(made["wav"]).samplerate == 16_000 and made["report"]["seconds"] > 0
            assert Image.open(made["portrait"]).size == (224, 224)
        elif shutil.which("curl"):
            environment = {**os.environ, "no_proxy": "127.0.0.1"}
            done = subprocess.run(["sh", "-ec", example], env=environment, capture_output=True, text=True, timeout=120)
            assert sf.info("hello.wav").samplerate == 16_000 and '"id":"voice-' in done.stdout


def test_named_endpoints_answer_in_sentences(program, clip, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"hello")
    cases = [
        ("/speak", (str(tmp_path / "x.jpg"), TEXT), "The photo: not a picture"),
        ("/speak", (str(PORTRAIT), "a" * 501), "501"),
        ("/clone", (str(tmp_path / "x.jpg"), TEXT), "The clip"),
        ("/speech2face", (str(tmp_path / "x.jpg"),), "The clip"),
    ]
    for endpoint, (path, *rest), message in cases:
        with pytest.raises(gradio_client.exceptions.AppError, match=message) as caught:
            program.predict(gradio_client.handle_file(path), *rest, api_name=endpoint)
        assert not NO_SECRETS.search(str(caught.value))


def test_files_that_were_not_uploaded_are_refused(client):
    for given in (
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        "/etc/passwd",
    ):
        event = client.post("/gradio_api/call/speak", json={"data": [given, TEXT]})
        if event.status_code == 200:
            told = client.get(f"/gradio_api/call/speak/{event.json()['event_id']}").text
            assert "event: error" in told and "root:" not in told


def test_each_of_many_gets_his_own(tiny_bundle):
    met = benchmark.crowd(tiny_bundle, "cpu", users=2, seconds=2, idle=0)
    assert len(met.waits) >= 4 and not met.wrong and not met.errors
    assert 0 < met.resident[2] <= met.resident[1]
    lost = benchmark._Errand(lambda: 1 / 0, np.zeros(1))
    assert benchmark._visit([[lost]], 0)[2] == ["division by zero"]


def test_a_mixed_up_answer_is_noticed(shop):
    speech = shop.tts().speak(TEXT, find_example(shop.tts()), seed=1)
    buffer = io.BytesIO()
    sf.write(buffer, speech.samples, 16_000, format="WAV")
    own, other = (benchmark._spoken(shop.tts(), find_example(shop.tts()), TEXT, seed) for seed in (1, 2))
    errands = [benchmark._Errand(buffer.getvalue, expected) for expected in (own, other)]
    assert [errand.is_answered_by(errand.ask()) for errand in errands] == [True, False]
