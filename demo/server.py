"""The page and, beside it, an endpoint in the manner of OpenAI's, on one server."""

import collections
import dataclasses
import os
import secrets
import signal
import sys
import tempfile
import threading
from pathlib import Path

import fastapi
import gradio as gr
import uvicorn
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from face2voice import Speech, Voice
from face2voice.limits import REQUEST_BYTES, UPLOAD_BYTES, VISITORS, VOICE_IDS_KEPT, WAITING
from face2voice.voicespace import VoiceSpace
from savedmodels import InputError

from .app import build
from .photos import find_photo
from .speak import Wishes, load_voice, speak_whole
from .studio import Studio
from .tabs.clone import voice_of_clip
from .theme import theme
from .words import in_words

_HERE = Path(__file__).parent
_MEDIA = {"wav": "audio/wav", "flac": "audio/flac"}
_SOUND = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


def serve(bundle: str | Path = "default", device: str = "auto", host: str = "127.0.0.1", port: int = 7860) -> None:
    """Runs the server until it is interrupted; what visitors left is then removed.

    Raises:
        CheckpointError: no such bundle.
        InputError: no such device.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    studio = Studio(bundle, device)
    studio.tts().warm_up()
    with tempfile.TemporaryDirectory(prefix="face2voice-demo-") as uploads:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by default nothing would be removed
        try:
            app = make_app(studio, Path(uploads))
            Server(uvicorn.Config(app, host, port, log_level="warning", timeout_graceful_shutdown=2)).run()
        finally:
            signal.signal(signal.SIGTERM, before)


class Server(uvicorn.Server):
    """Hangs up on pages that are open when it ends: they stay connected for as long as they are shown."""

    async def shutdown(self, sockets=None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)


def make_app(studio: Studio, uploads: Path, **kept: float) -> fastapi.FastAPI:
    """The web application; `kept` is handed to `demo.app.build`."""
    app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    add_speech_endpoint(app, studio)
    blocks = build(studio, uploads, **kept)
    blocks.state_session_capacity = VISITORS
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        show_error=False,
        max_file_size=UPLOAD_BYTES,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        allowed_paths=[],
        app_kwargs={"openapi_url": None, "docs_url": None, "redoc_url": None},
        theme=theme(),
        css_paths=[_HERE / "style.css"],
        head=f"<script>{(_HERE / 'player.js').read_text()}</script>",
    )


class BodyLimit:
    """Refuses requests that are larger than an upload may be, whatever they say of themselves."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        sentence = f"Too large: send at most {UPLOAD_BYTES // 10**6} MB at a time."
        refuse = JSONResponse({"detail": sentence}, 413)
        if not told.isdigit() or int(told) > REQUEST_BYTES:
            return await refuse(scope, receive, send)
        seen = 0

        async def limited():
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > REQUEST_BYTES:
                raise _TooLarge
            return message

        try:
            await self.app(scope, limited, send)
        except _TooLarge:  # nothing was answered yet: all of our endpoints read the whole body first
            await refuse(scope, receive, send)


class _TooLarge(Exception):
    pass


# ---- POST /v1/audio/speech


class VoiceIds:
    """Voices that programs sent, by ids that cannot be guessed; the oldest of many are dropped."""

    def __init__(self) -> None:
        self._voices: collections.OrderedDict[str, Voice] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, voice: Voice) -> str:
        """Keeps a voice and gives its id."""
        name = f"voice-{secrets.token_urlsafe(12)}"
        with self._lock:
            self._voices[name] = voice
            while len(self._voices) > VOICE_IDS_KEPT:
                self._voices.popitem(last=False)
        return name

    def find(self, name: object, space: VoiceSpace) -> Voice:
        """A voice by its id, or a known one by its name; InputError if there is neither."""
        if isinstance(name, str):
            with self._lock:
                if name in self._voices:
                    return self._voices[name]
            for known, embedding in zip(space.names, space.embeddings, strict=True):
                if name == known:
                    return Voice(embedding, name)
        raise InputError(f"there is no voice {str(name)[:40]!r}: GET /v1/audio/voices lists them")


@dataclasses.dataclass(frozen=True)
class SpeechRequest:
    """The body of a request for speech; fields of OpenAI's that mean nothing here are passed over."""

    wishes: Wishes
    voice: object
    response_format: str

    @classmethod
    def read(cls, body: object) -> "SpeechRequest":
        """From JSON; InputError if it asks for what cannot be done."""
        if not isinstance(body, dict):
            raise InputError("send a JSON object with input and voice")
        if (kind := body.get("response_format", "wav")) not in _MEDIA:
            raise InputError(f"response_format is {str(kind)[:20]!r}: choose wav or flac")
        return cls(Wishes(body.get("input"), body.get("seed", 0), body.get("speed", 1.0)), body.get("voice"), kind)


def add_speech_endpoint(app: fastapi.FastAPI, studio: Studio) -> None:
    """Adds `POST /v1/audio/speech`, and `/v1/audio/voices` to list and to send voices."""
    ids = VoiceIds()
    places = threading.BoundedSemaphore(WAITING)

    async def answered(work, *values) -> Response:
        """What `work` answers, or an error in the form that clients of OpenAI's endpoint read."""
        if not places.acquire(blocking=False):
            return _refusal("Too many requests at once: try again in a minute.", 503)
        try:
            return await run_in_threadpool(work, *values)
        except Exception as error:
            return _refusal(in_words(error), 400 if isinstance(error, InputError) else 500)
        finally:
            places.release()

    @app.post("/v1/audio/speech")
    async def speech(request: fastapi.Request) -> Response:
        try:
            body = await request.json()
        except ValueError:
            return _refusal("The body is not JSON: send an object with input and voice.", 400)
        return await answered(say, body)

    def say(body: object) -> Response:
        asked = SpeechRequest.read(body)
        voice = ids.find(asked.voice, studio.voice_space())
        spoken = speak_whole(studio, asked.wishes, lambda _: voice).speech
        return Response(_encoded(spoken, asked.response_format), media_type=_MEDIA[asked.response_format])

    @app.get("/v1/audio/voices")
    async def voices() -> dict:
        return {"voices": [str(name) for name in studio.voice_space().names]}

    @app.post("/v1/audio/voices")
    async def send_voice(file: fastapi.UploadFile) -> Response:
        return await answered(take, await file.read())

    def take(content: bytes) -> Response:
        with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
            path = Path(folder, "upload")
            path.write_bytes(content)
            return JSONResponse({"id": ids.add(_voice_of(studio, path, content))})


def _voice_of(studio: Studio, path: Path, content: bytes) -> Voice:
    """The voice of a saved voice, a clip or a photo, told apart by how the file begins."""
    if content.startswith(b"PK"):
        return load_voice(path)
    if content.startswith(_SOUND) and content[8:12] != b"WEBP":
        with studio.turn:
            return voice_of_clip(studio.tts(), path)
    photo, _ = find_photo(studio, path)
    with studio.turn:
        return photo.voice(studio.tts())


def _encoded(speech: Speech, kind: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="face2voice-") as folder:
        path = Path(folder, f"speech.{kind}")
        speech.save(path)
        return path.read_bytes()


def _refusal(sentence: str, status: int) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": sentence, "type": kind}}, status)
