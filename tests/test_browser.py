"""The page in a real browser: every tab, Cancel, every error, and what leaves the machine (nothing)."""

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import test_pipeline
from PIL import Image

pytest.importorskip("gradio", reason="the demo is not installed: pip install -e .[demo]")

import test_demo

from demo.examples import PORTRAIT
from demo.parts import FULL
from demo.tabs import explore, portraits
from face2voice import Face2Voice, Voice
from face2voice.pipeline import MADE_BY
from face2voice.speech2face import Speech2Face
from savedmodels import find_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[test]")

CHROMIUM = shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)

pytestmark = pytest.mark.timeout(600)  # more than one step's patience, whose failure tells more

tiny_bundle, whole_bundle = test_pipeline.bundle, test_demo.whole_bundle
SERVE = """
import sys, time
from face2voice import Face2Voice, limits
limits.WAITING = int(sys.argv[3])
speak_piece = Face2Voice._speak_piece
Face2Voice._speak_piece = lambda *given: time.sleep(float(sys.argv[4])) or speak_piece(*given)
from demo.server import serve
serve(sys.argv[1], "cpu", port=int(sys.argv[2]))
"""
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run", "--mute-audio"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PATIENCE = 120_000  # ms; machines that test are busy
MANY = "This sentence is one of many that are all the same. " * 9


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, waiting: int = 16, seconds: float = 0.0) -> Iterator[str]:
    """Where a server of its own process listens; when it ends, it has left no files and no complaints.

    Args:
        waiting: requests that may be in line.
        seconds: that it takes longer for each sentence.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(bundle), str(port), str(waiting), str(seconds)]
    root, environment = Path(__file__).parents[1], {**os.environ, "TMPDIR": str(folder)}
    log = folder / "server.log"
    with log.open("w") as complaints:  # not a pipe, which would stop the server once it is full
        server = subprocess.Popen(command, cwd=root, env=environment, stderr=complaints)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 2 * PATIENCE / 1000
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            break
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            pytest.fail(f"the server did not start: {log.read_text()}")
        time.sleep(0.2)
    yield address
    server.terminate()
    server.wait(PATIENCE / 1000)
    complaints = log.read_text()
    assert not re.search("Traceback|Error|Exception", complaints), complaints
    assert not list(folder.glob("face2voice-*"))


@pytest.fixture(scope="module")
def address(whole_bundle, tmp_path_factory):
    with serving(whole_bundle, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
    with visiting(browser, address) as page:
        yield page


@contextlib.contextmanager
def visiting(browser, address: str) -> Iterator:
    """The page on a phone's width; nothing it does may reach beyond this machine."""
    context = browser.new_context(service_workers="block", viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    foreign, failures = [], []
    page.on("request", lambda r: None if re.match(rf"{address}|data:|blob:", r.url) else foreign.append(r.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    page.locator("#speak-go").wait_for()
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
    assert not foreign and not failures


@pytest.fixture(scope="module")
def tts(whole_bundle) -> Face2Voice:
    return Face2Voice.load(whole_bundle, "cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds of something that sounds like speech to the detector of it."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    seconds = np.arange(32_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 140 * k * seconds) / k for k in range(1, 20))
    sf.write(path, 0.1 * tone * (1 + np.sin(2 * np.pi * 4 * seconds)), 16_000)
    return path


def says(page, place: str, words: str) -> None:
    playwright.expect(page.locator(place)).to_contain_text(words, timeout=PATIENCE)


def give_photo(page) -> None:
    page.locator("#speak-photo input[type=file]").set_input_files(PORTRAIT)
    says(page, "#speak-photo-note", "One face found")


def give_clip(page, place: str, path: Path) -> None:
    page.locator(f"{place} input[type=file]").set_input_files(path)
    page.locator(place).get_by_label("Clear").wait_for()


def go_to(page, tab: str) -> None:
    """By the bar of tabs, or the menu behind it where there is no room."""
    if page.get_by_role("tab", name=tab, exact=True).count() == 0:
        page.locator(".overflow-menu > button").click()
    page.get_by_role("tab", name=tab, exact=True).or_(page.get_by_role("button", name=tab, exact=True)).first.click()


def heard(page, player: str) -> bytes:
    """The file that the browser's player holds, once its length is known."""
    audio = page.locator(f"{player} audio")
    playwright.expect(audio).to_have_attribute("src", re.compile("http"), timeout=PATIENCE)
    return page.request.get(audio.get_attribute("src")).body()


def wav(speech) -> bytes:
    buffer = io.BytesIO()
    with sf.SoundFile(buffer, "w", 16_000, 1, format="WAV") as file:
        file.comment = MADE_BY
        file.write(speech.samples)
    return buffer.getvalue()


def test_speak(page, tts):
    give_photo(page)
    page.get_by_role("button", name="A recipe").first.click()
    says(page, "#speak-count", "of 500")
    page.get_by_label("Text", exact=True).first.fill(test_pipeline.LONG_TEXT)
    page.locator("#speak-more button").first.click()
    page.locator("#speak-seed input").fill("11")
    page.locator("#speak-go").click()
    says(page, "#speak-status", "Done")
    own = tts.speak(test_pipeline.LONG_TEXT, tts.voice_from_face(PORTRAIT), seed=11)
    assert heard(page, "#speak-speech") == wav(own)
    assert page.evaluate("window.face2voice.heard()") == len(own.texts)
    playing = page.evaluate(
        """async url => {
            const patience = AbortSignal.timeout(60_000);
            const file = await (await fetch(url, { signal: patience })).arrayBuffer();
            return (await new OfflineAudioContext(1, 1, 16000).decodeAudioData(file)).length;
        }""",
        page.locator("#speak-speech audio").get_attribute("src"),
    )
    assert playing == len(own.samples)
    assert page.locator("#speak-figures img[alt]").count() == 3
    says(page, "#speak-facts", "real-time factor")
    for button, ending in (("#speak-wav", ".wav"), ("#speak-voice", ".npz")):
        with page.expect_download() as download:
            page.locator(button).click()
        assert download.value.suggested_filename.endswith(ending)


def test_one_of_several_faces(page, tts, tmp_path):
    portrait = Image.open(PORTRAIT).convert("RGB")
    portrait = portrait.resize((2 * portrait.width, 2 * portrait.height))  # both are found at the first look
    both = Image.new("RGB", (2 * portrait.width, portrait.height), "white")
    both.paste(portrait)
    small = portrait.resize((portrait.width * 3 // 4, portrait.height * 3 // 4))
    both.paste(small, (portrait.width + portrait.width // 4, 0))
    both.save(tmp_path / "both.png")
    page.locator("#speak-photo input[type=file]").set_input_files(tmp_path / "both.png")
    says(page, "#speak-photo-note", "2 faces found")
    page.wait_for_function("document.querySelector('#speak-faces img')?.naturalWidth > 0")
    shown = page.locator("#speak-faces img").bounding_box()
    page.mouse.click(shown["x"] + 0.81 * shown["width"], shown["y"] + 0.32 * shown["height"])
    playwright.expect(page.get_by_label("2", exact=True)).to_be_checked(timeout=PATIENCE)
    page.locator("#speak-text textarea").fill("Hello there.")
    page.locator("#speak-go").click()
    says(page, "#speak-status", "Done")
    says(page, "#speak-facts", "face 2")
    assert heard(page, "#speak-speech") == wav(tts.speak("Hello there.", tts.voice_from_face(tmp_path / "both.png", 1)))
    page.locator("#speak-again").click()
    playwright.expect(page.locator("#speak-photo input[type=file]")).to_be_attached(timeout=PATIENCE)


def test_candidates_and_comparison(page):
    page.locator("#speak-example").click()
    says(page, "#speak-photo-note", "One face found")
    page.locator("#speak-text textarea").fill("Hello there.")
    page.locator("#speak-go").click()
    says(page, "#speak-status", "Done")
    first = heard(page, "#speak-speech")
    page.locator("#speak-candidates button").first.click()
    page.locator("#speak-offer").click()
    says(page, "#speak-offered", "Take the one")
    assert heard(page, "#speak-candidate-1") == first
    page.get_by_role("button", name="Take voice 2").click()
    says(page, "#speak-status", "voice 2")
    page.locator("#speak-go").click()
    says(page, "#speak-status", "Done")
    says(page, "#speak-facts", "candidate 2")
    assert heard(page, "#speak-speech") == heard(page, "#speak-candidate-2")
    page.locator("#speak-known input").first.check()
    says(page, "#speak-status", "-rms-")  # one of the known voices
    page.locator("#speak-compare button").first.click()
    page.locator("#compare-example").click()
    says(page, "#compare-photo-note", "One face found")
    page.locator("#compare-go").click()
    says(page, "#compare-status", "1.00 alike")
    assert heard(page, "#compare-first") == heard(page, "#compare-second")


def test_cancel(browser, whole_bundle, tmp_path):
    with serving(whole_bundle, tmp_path, seconds=1.0) as address, visiting(browser, address) as page:
        give_photo(page)
        page.locator("#speak-text textarea").fill(MANY)
        page.locator("#speak-go").click()
        says(page, "#speak-status", "Sentence 2")
        page.locator("#speak-cancel").click()
        says(page, "#speak-status", "Cancelled")
        page.wait_for_timeout(1500)
        assert page.locator("#speak-result").count() == 0
        says(page, "#speak-status", "Cancelled")
        page.locator("#speak-text textarea").fill("Short.")
        page.locator("#speak-go").click()
        says(page, "#speak-status", "Done")


def test_errors_are_sentences(page):
    page.locator("#speak-go").click()
    says(page, "#speak-status", "no text yet")
    page.locator("#speak-text textarea").fill("Hello.")
    page.locator("#speak-go").click()
    says(page, "#speak-status", "no photo yet")
    files = {
        "grey.png": (Image.new("L", (300, 300), 128), "face is larger"),
        "big.png": (Image.new("1", (13_000, 13_000)), "too large"),
    }
    for name, (image, words) in files.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        page.locator("#speak-photo input[type=file]").set_input_files(
            {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}
        )
        says(page, "#speak-photo-note", words)
    give_photo(page)
    page.locator("#speak-text textarea").fill("...!!!???")
    page.locator("#speak-go").click()
    says(page, "#speak-status", "Nothing to say")
    assert page.locator("[role=alert]").count() == 1
    assert not re.search(r"Traceback|/tmp/|/root|\.py\b", page.inner_text("body"))


def test_too_large_a_photo(page):
    page.locator("#speak-photo input[type=file]").set_input_files(
        {"name": "huge.png", "mimeType": "image/png", "buffer": bytes(11_000_000)}
    )
    toast = page.locator("[data-testid=toast-body]")
    playwright.expect(toast).to_contain_text(re.compile("exceed the maximum"), timeout=PATIENCE)


def test_clone(page, tts, clip, tmp_path):
    go_to(page, "Clone")
    page.locator("#clone-text textarea").fill("Hello there.")
    page.locator("#clone-go").click()
    says(page, "#clone-status", "no clip yet")
    give_clip(page, "#clone-clip", clip)
    page.locator("#clone-go").click()
    says(page, "#clone-status", "Done")
    own = tts.speak("Hello there.", tts.voice_from_speech(clip))
    assert heard(page, "#clone-speech") == wav(own)
    page.locator("#clone-clip").get_by_label("Clear").click()
    sf.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    give_clip(page, "#clone-clip", tmp_path / "silent.wav")
    page.locator("#clone-go").click()
    says(page, "#clone-status", "The clip: silent")


def test_speech_to_face(page, whole_bundle, tts, clip, tmp_path):
    go_to(page, "Speech to face")
    for folded in ("#faces-round", "#faces-there"):
        page.locator(f"{folded} button").first.click()
    for button, place, words in (
        ("#faces-go", "#faces-status", "no clip yet"),
        ("#faces-from-face", "#faces-status", "no photo yet"),
        ("#faces-face-trip", "#faces-trip-status", "no photo yet"),
    ):
        page.locator(button).click()
        says(page, place, words)
    give_clip(page, "#faces-clip", clip)
    page.locator("#faces-go").click()
    says(page, "#faces-status", "Done")
    s2f = Speech2Face.load(whole_bundle, "cpu")
    own = s2f.portrait_from_speech(clip)
    source = page.locator("#faces-portrait img").first.get_attribute("src")
    (tmp_path / "portrait.png").write_bytes(page.request.get(source).body())
    with Image.open(tmp_path / "portrait.png") as portrait:
        assert np.array_equal(np.array(portrait), own.image) and "AI-generated" in portrait.text["Comment"]
    shown = page.locator("#faces-figures figure")
    assert [shown.nth(i).locator("b").inner_text() for i in range(3)] == ["Spectrogram", "Landmarks", "Texture"]
    page.locator("#faces-hear").click()
    assert heard(page, "#faces-speech") == wav(tts.speak(portraits.SENTENCE, tts.voice_from_face(own.image)))
    page.locator("#faces-example").click()
    says(page, "#faces-photo-note", "One face found")
    page.locator("#faces-from-face").click()
    playwright.expect(page.locator("#faces-figures figure")).to_have_count(2, timeout=PATIENCE)
    page.locator("#faces-voice-trip").click()
    says(page, "#faces-trip-status", "too unclear to be heard")  # networks at random do not talk


def test_round_trips(browser, whole_bundle, clip, tmp_path):
    """Of networks that talk."""
    talking = shutil.copytree(find_bundle("default").folder, tmp_path / "talking")
    for part in ("face_decoder", "voice_encoder"):
        shutil.copy(whole_bundle / f"{part}.safetensors", talking)
    with serving(talking, tmp_path) as address, visiting(browser, address) as page:
        go_to(page, "Speech to face")
        for folded in ("#faces-round", "#faces-there"):
            page.locator(f"{folded} button").first.click()
        give_clip(page, "#faces-clip", clip)
        page.locator("#faces-example").click()
        says(page, "#faces-photo-note", "One face found")
        for button, step in (
            ("#faces-voice-trip", "voice, voice of the face"),
            ("#faces-face-trip", "face, face of the voice"),
        ):
            page.locator(button).click()
            says(page, "#faces-trip", step)
            cosines = [float(cell) for cell in page.locator("#faces-trip td").all_inner_texts()]
            assert len(cosines) == 4 and all(-1 <= cosine <= 1 for cosine in cosines)
            assert page.locator("#faces-trip img[alt]").count() == 3


def test_what_is_missing_is_said(browser, tiny_bundle, clip, tmp_path):
    """On a server without the reverse direction."""
    with serving(tiny_bundle, tmp_path) as address, visiting(browser, address) as page:
        go_to(page, "Speech to face")
        says(page, "#faces-missing", "no face decoder")
        give_clip(page, "#faces-clip", clip)
        page.locator("#faces-go").click()
        says(page, "#faces-status", "no face decoder")
        go_to(page, "Fine-tune")
        page.locator("#lessons-go").click()
        says(page, "#lessons-status", "consent")


def test_full_line(browser, tiny_bundle, tmp_path):
    with serving(tiny_bundle, tmp_path, waiting=0) as address, visiting(browser, address) as page:
        page.locator("#speak-go").click()
        says(page, "#speak-status", FULL)
        playwright.expect(page.locator("#speak-go")).to_be_enabled(timeout=PATIENCE)


def test_finetune(page, clip):
    pytest.importorskip("lightning", reason="training is not installed: pip install -e .[train]")
    go_to(page, "Fine-tune")
    page.locator("#lessons-files input[type=file]").set_input_files([PORTRAIT, clip])
    page.locator("#lessons-steps input[type=number]").fill("20")
    page.get_by_label("The person shown and heard agreed to this").check()
    page.locator("#lessons-go").click()
    says(page, "#lessons-status", "Done")
    says(page, "#lessons-curve", "after 20 steps")
    go_to(page, "Speak")
    give_photo(page)
    page.locator("#speak-text textarea").fill("Hello there.")
    page.locator("#speak-more button").first.click()
    playwright.expect(page.locator("#speak-bundle input")).to_have_value(re.compile("lesson-"), timeout=PATIENCE)
    page.locator("#speak-go").click()
    says(page, "#speak-status", "Done")


def test_explore_by_keyboard(page, tts):
    go_to(page, "Explore")
    dots = page.locator(".f2v-dot")
    name = dots.nth(3).get_attribute("data-voice")
    dots.nth(3).focus()
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_label("Voice", exact=True)).to_have_value(name, timeout=PATIENCE)
    space = tts.voice_space()
    own = Voice(dict(zip(map(str, space.names), space.embeddings, strict=True))[name])
    assert heard(page, "#explore-sample") == wav(tts.speak(explore.SAMPLE, own))
    page.locator("#explore-text textarea").fill("Hello there.")
    page.locator("#explore-go").click()
    says(page, "#explore-status", "Done")
    assert heard(page, "#explore-speech")[:4] == b"RIFF"
    page.locator("#explore-keep button").first.click()
    page.locator("#explore-average").click()
    says(page, "#explore-note", "two or more")
    several = page.locator("#explore-several input")
    for place in (0, 5):
        several.fill(dots.nth(place).get_attribute("data-voice"))
        page.keyboard.press("Enter")
    page.locator("#explore-mix").click()
    says(page, "#explore-note", "Made:")
    playwright.expect(page.locator(".f2v-dot.yours[aria-pressed=true]")).to_have_count(1, timeout=PATIENCE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2000)
    assert len(asked) < 5, "events keep setting each other off"
    with page.expect_download() as download:
        page.locator("#explore-save").click()
    saved = Path(download.value.path()).read_bytes()
    for content, words in ((saved[:50], "Not a voice file"), (saved, "Made:")):
        page.locator("#explore-keep input[type=file]").set_input_files(
            {"name": "v.npz", "mimeType": "application/octet-stream", "buffer": content}
        )
        says(page, "#explore-note", words)


def test_about_has_the_cards(page):
    go_to(page, "About")
    says(page, "#about-consent", "who agreed")
    says(page, "#about-cards", "Model cards")


def test_every_field_has_a_name(page):
    nameless = """() => [...document.querySelectorAll('input, textarea, button, audio, img, svg[role]')]
        .filter(e => e.offsetParent && !e.hidden && e.type !== 'file')
        .filter(e => !(e.labels?.length || e.ariaLabel || e.title || e.alt || e.textContent.trim()
            || e.getAttribute('aria-labelledby') || e.closest('label')))
        .map(e => e.outerHTML.slice(0, 200))"""
    for tab in ("Speak", "Clone", "Speech to face", "Explore", "Fine-tune", "About"):
        go_to(page, tab)
        for closed in page.locator("button.label-wrap:not(.open)").all():
            if closed.is_visible():
                closed.click()
        assert page.evaluate(nameless) == [], tab
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
