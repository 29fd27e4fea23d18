"""The page in a real browser: every tab, Cancel, every error, and what leaves the machine (nothing)."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import test_pipeline
from PIL import Image

from demo.examples import PORTRAIT
from face2voice import Face2Voice
from face2voice.pipeline import MADE_BY

pytest.importorskip("gradio", reason="the demo is not installed: pip install -e .[demo]")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[test]")

CHROMIUM = shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)

tiny_bundle = test_pipeline.bundle
SERVE = "import sys; from demo.server import serve; serve(sys.argv[1], 'cpu', port=int(sys.argv[2]))"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run", "--mute-audio"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PATIENCE = 120_000  # ms; machines that test are busy
MANY = "This sentence is one of many that are all the same. " * 9


@pytest.fixture(scope="module")
def address(tiny_bundle, tmp_path_factory):
    """Where a server of its own process listens; when it ends, it has left no files and no complaints."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(tiny_bundle), str(port)]
    root, environment = Path(__file__).parents[1], {**os.environ, "TMPDIR": str(folder)}
    server = subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    for _ in range(1000):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    else:
        server.kill()
        pytest.fail(f"the server did not start: {server.communicate()[1]}")
    yield address
    server.terminate()
    complaints = server.communicate(timeout=30)[1]
    assert not re.search("Traceback|Error|Exception", complaints), complaints
    assert not list(folder.glob("face2voice-*"))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
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
def tts(tiny_bundle) -> Face2Voice:
    return Face2Voice.load(tiny_bundle, "cpu")


def says(page, place: str, words: str) -> None:
    playwright.expect(page.locator(place)).to_contain_text(words, timeout=PATIENCE)


def give_photo(page) -> None:
    page.locator("#speak-photo input[type=file]").set_input_files(PORTRAIT)
    says(page, "#speak-photo-note", "One face found")


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
            const file = await (await fetch(url)).arrayBuffer();
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
    page.locator("#speak-compare button").first.click()
    page.locator("#compare-example").click()
    says(page, "#compare-photo-note", "One face found")
    page.locator("#compare-go").click()
    says(page, "#compare-status", "1.00 alike")
    assert heard(page, "#compare-first") == heard(page, "#compare-second")


def test_cancel(page):
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


def test_clone(page, tts, tmp_path):
    seconds = np.arange(32_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 140 * k * seconds) / k for k in range(1, 20))
    sf.write(tmp_path / "clip.wav", 0.1 * tone * (1 + np.sin(2 * np.pi * 4 * seconds)), 16_000)
    (tmp_path / "text.wav").write_text("hello")
    go_to(page, "Clone")
    page.locator("#clone-text textarea").fill("Hello there.")
    page.locator("#clone-go").click()
    says(page, "#clone-status", "no clip yet")
    page.locator("#clone-clip input[type=file]").set_input_files(tmp_path / "clip.wav")
    page.wait_for_timeout(500)
    page.locator("#clone-go").click()
    says(page, "#clone-status", "Done")
    own = tts.speak("Hello there.", tts.voice_from_speech(tmp_path / "clip.wav"))
    assert heard(page, "#clone-speech") == wav(own)


def test_speech_to_face_and_lessons_say_what_is_missing(page):
    go_to(page, "Speech to face")
    says(page, "#faces-missing", "no face decoder")
    page.locator("#faces-go").click()
    says(page, "#faces-status", "no clip yet")
    go_to(page, "Fine-tune")
    page.locator("#lessons-go").click()
    says(page, "#lessons-status", "consent")


def test_explore_by_keyboard(page):
    go_to(page, "Explore")
    dots = page.locator(".f2v-dot")
    name = dots.nth(3).get_attribute("data-voice")
    dots.nth(3).focus()
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_label("Voice", exact=True)).to_have_value(name, timeout=PATIENCE)
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
    page.locator("#explore-keep input[type=file]").set_input_files(
        {
            "name": "v.npz",
            "mimeType": "application/octet-stream",
            "buffer": Path(download.value.path()).read_bytes()[:50],
        }
    )
    says(page, "#explore-note", "Not a voice file")


def test_about_has_the_cards(page):
    go_to(page, "About")
    says(page, "#about-consent", "who agreed")
    says(page, "#about-cards", "Model cards")


def test_every_field_has_a_name(page):
    nameless = """() => [...document.querySelectorAll('input, textarea, button, audio, img')]
        .filter(e => e.offsetParent && !e.hidden && e.type !== 'file')
        .filter(e => !(e.labels?.length || e.ariaLabel || e.title || e.alt || e.textContent.trim()
            || e.getAttribute('aria-labelledby') || e.closest('label')))
        .map(e => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(nameless) == []
