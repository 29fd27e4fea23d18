"""There and back again: how much of a face outlives a voice, and of a voice a face."""

import dataclasses

import numpy as np

from encoder.audio import Clip
from encoder.face import Photo, find_detector, find_faces, load_photo, photo_name, pick_face
from face2voice.pipeline import SAMPLE_RATE, Face2Voice

from .audio import load_clip
from .frame import crop_frame
from .pipeline import Speech2Face, similarity
from .sheet import Tile, contact_sheet, sound_picture

SENTENCE = "The small boat sailed along the coast, and in the evening we all came home for supper."


@dataclasses.dataclass(frozen=True, eq=False)
class RoundTrip:
    """One way there and back.

    Attributes:
        similarities: step -> cosine, in the order of the steps; faces are compared by the bundle's
            face feature, voices by its speech-speaker encoder.
        tiles: a picture of every station.
    """

    similarities: dict[str, float]
    tiles: tuple[Tile, ...]

    def sheet(self) -> np.ndarray:
        """The stations side by side: uint8 RGB (H, W, 3)."""
        return contact_sheet(self.tiles)


def from_face(s2f: Speech2Face, tts: Face2Voice, photo: Photo, face: int | None = None, seed: int = 0) -> RoundTrip:
    """Face -> voice -> face: the photo's voice says a sentence, and a portrait is made of it.

    Raises:
        InputError: the photo cannot be read or shows no such face.
        CheckpointError: the bundle lacks a part.
    """
    pixels = load_photo(photo)
    found = pick_face(find_faces(pixels, find_detector(device=s2f.device)), face, photo_name(photo))
    frame, _ = crop_frame(pixels, found)
    seen = s2f.feature_from_face(photo, face)
    voice = tts.voice_from_face(photo, face)
    speech = tts.speak(SENTENCE, voice, seed)
    clip = (speech.samples, speech.sample_rate)
    spoken = similarity(voice.embedding, tts.voice_from_speech(clip).embedding)
    portrait = s2f.portrait_from_speech(clip)
    made = s2f.describe(portrait.image)
    similarities = {
        "voice of the face, voice as spoken": spoken,
        "face, face of the voice": similarity(seen, portrait.feature),
        "face of the voice, face as drawn": similarity(portrait.feature, made),
        "face, face as drawn": similarity(seen, made),
    }
    _, heard, drawn, whole = similarities.values()
    tiles = (
        Tile(frame, "photo"),
        Tile(sound_picture(speech.samples), f"its voice speaks\nvoice kept: {spoken:.2f}"),
        Tile(portrait.image, f"face of that voice\nheard {heard:.2f}, drawn {drawn:.2f}, photo {whole:.2f}"),
    )
    return RoundTrip(similarities, tiles)


def from_speech(s2f: Speech2Face, tts: Face2Voice, clip: Clip, seed: int = 0) -> RoundTrip:
    """Speech -> face -> voice: the clip's portrait is given a voice, which says a sentence.

    Raises:
        InputError: the clip cannot be read or holds no speech.
        CheckpointError: the bundle lacks a part.
    """
    own = tts.voice_from_speech(clip)
    portrait = s2f.portrait_from_speech(clip)
    drawn = similarity(portrait.feature, s2f.describe(portrait.image))
    voice = tts.voice_from_face(portrait.image)
    speech = tts.speak(SENTENCE, voice, seed)
    again = tts.voice_from_speech((speech.samples, SAMPLE_RATE))
    similarities = {
        "face of the voice, face as drawn": drawn,
        "voice, voice of the face": similarity(own.embedding, voice.embedding),
        "voice of the face, voice as spoken": similarity(voice.embedding, again.embedding),
        "voice, voice as spoken": similarity(own.embedding, again.embedding),
    }
    _, suited, spoken, whole = similarities.values()
    tiles = (
        Tile(sound_picture(load_clip(clip)), "clip"),
        Tile(portrait.image, f"face of that voice\ndrawn: {drawn:.2f}"),
        Tile(
            sound_picture(speech.samples), f"the face speaks\nclip {suited:.2f}, spoken {spoken:.2f}, both {whole:.2f}"
        ),
    )
    return RoundTrip(similarities, tiles)
