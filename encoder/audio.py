"""A speech clip -> what the speech-speaker encoder hears.

The numbers are those of the published GE2E encoder (Wan et al. 2018, "Generalized End-to-End Loss for
Speaker Verification", section 3.1, as trained by Real-Time-Voice-Cloning); its weights know no others.
"""

import functools
import logging
import math
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import webrtcvad

from savedmodels import InputError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000  # Hz
N_FFT = SAMPLE_RATE * 25 // 1000  # samples, 25 ms
HOP = SAMPLE_RATE * 10 // 1000  # samples, 10 ms
MELS = 40  # bands, from 0 Hz to half the sample rate

PARTIAL_FRAMES = 160  # 1.6 s
PARTIAL_STEP = 77  # frames; 1.3 partial utterances a second, as the author's own package has it
MIN_COVERAGE = 0.75  # of the last partial utterance, or it is left out

LOUDNESS = -30.0  # dBFS; quieter clips are raised to it, louder ones are left alone
VAD_MODE = 3  # the strictest of webrtcvad
VAD_WINDOW = SAMPLE_RATE * 30 // 1000  # samples, 30 ms
VAD_SMOOTHING = 8  # windows of the moving average
VAD_DILATION = 7  # windows: a pause of up to 6 stays

MAX_SECONDS = 30.0  # read of a clip; a voice needs no more
MIN_SECONDS = 0.5
RATES = (8_000, 192_000)  # Hz
MAX_CHANNELS = 8
SILENCE = -70.0  # dBFS; below it there is nothing to raise
MAX_PEAK = 10.0  # float samples past this are in another scale than [-1, 1]

Clip = str | os.PathLike | tuple[np.ndarray, int]


def load_speech(source: Clip, seconds: float = MAX_SECONDS) -> np.ndarray:
    """Reads a clip as the encoder's kind of sound.

    Args:
        source: path of a WAV, FLAC, OGG or MP3 file (known by its content, not by its name), or
            (samples, rate in Hz) with samples of shape (n,) or (n, channels): floats in [-1, 1], or
            integers over their type's range.
        seconds: at most this much from the start is read, whatever the length of the clip.

    Returns:
        (n,) float32 in about [-1, 1], mono, 16 kHz.

    Raises:
        InputError: missing, not sound, damaged, outside 8 to 192 kHz or 8 channels, shorter than
            0.5 s, silent, or with values that are no sound.
    """
    name = _name(source)
    samples, rate = _from_array(*source, name, seconds) if _is_array(source) else _read(source, seconds)
    if len(samples) < MIN_SECONDS * rate:
        raise InputError(f"{name}: too short ({len(samples) / rate:.2f} s); give at least {MIN_SECONDS} s")
    peak = np.abs(samples).max()  # NaN if any is NaN
    if not peak <= MAX_PEAK:
        raise InputError(f"{name}: holds values that are no sound (NaN, infinite or huge); export it again")
    mono = samples.mean(axis=1, dtype=np.float32)
    if _dbfs(mono) < SILENCE:
        raise InputError(f"{name}: silent in its first {seconds:.0f} s; give a clip with speech in it")
    if np.mean(np.abs(mono) >= 0.999) > 0.01:
        logger.warning("%s: clipped by its recorder; the voice may come out rough", name)
    return mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)


def load_prepared(source: Clip) -> np.ndarray:
    """`load_speech`, then `prepare`; same errors."""
    return prepare(load_speech(source), _name(source))


def prepare(samples: np.ndarray, name: str = "the clip") -> np.ndarray:
    """Raises a quiet clip to -30 dBFS and cuts its pauses out.

    Args:
        samples: (n,) float32 mono 16 kHz.
        name: what to call the clip in an error.

    Returns:
        (m,) float32, m <= n, a whole number of 30 ms windows.

    Raises:
        InputError: no speech was heard in it.
    """
    gain = max(0.0, LOUDNESS - _dbfs(samples))
    samples = samples * np.float32(10 ** (gain / 20))
    windows = samples[: len(samples) // VAD_WINDOW * VAD_WINDOW].reshape(-1, VAD_WINDOW)
    speech = windows[_speech_windows(windows)].ravel()
    if not speech.size:
        raise InputError(f"{name}: no speech was heard in it; give a clip of one person talking")
    return speech


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Mel power spectrogram: centred frames, zero-padded edges, periodic Hann window, no logarithm.

    Equals librosa >= 0.10's `melspectrogram` (Slaney's scale and area norm); older librosa, with which
    the published encoder was trained, mirrors the edges, which changes the outermost frames only.

    Args:
        samples: (n,) float32 mono 16 kHz, n >= 1.

    Returns:
        (1 + n // 160, 40) float32, >= 0.
    """
    return _power_spectrum(samples, "constant") @ _filterbank().T


def legacy_mel(samples: np.ndarray) -> np.ndarray:
    """The mel spectrogram that the published face encoder's training fed to the published speech
    encoder, which was never trained on it: torchaudio's defaults, that is HTK's mel scale without
    area norm and mirrored edges. Only targets like the published ones are computed from it, in one
    pass over a whole clip that was neither raised nor cut.

    Args:
        samples: (n,) float32 mono 16 kHz, n > 200.

    Returns:
        (1 + n // 160, 40) float32, >= 0; some 46 to 504 times `mel_spectrogram`'s values.
    """
    return _power_spectrum(samples, "reflect") @ _legacy_filterbank().T


def partial_slices(n_samples: int, step: int = PARTIAL_STEP) -> list[tuple[slice, slice]]:
    """Where an utterance is cut into partial utterances of 160 frames.

    Args:
        n_samples: length of the utterance.
        step: frames from one start to the next; 80 as published, 77 for resemblyzer's 1.3 a second.

    Returns:
        (slice of samples, slice of frames) of each, at least one. The last may end after the
        utterance, which the caller then pads with zeros.
    """
    frames = math.ceil((n_samples + 1) / HOP)
    starts = list(range(0, max(1, frames - PARTIAL_FRAMES + step + 1), step))
    uncovered = 1 - (n_samples - starts[-1] * HOP) / (PARTIAL_FRAMES * HOP)
    if len(starts) > 1 and uncovered > 1 - MIN_COVERAGE:
        starts.pop()
    ends = [start + PARTIAL_FRAMES for start in starts]
    return [(slice(a * HOP, b * HOP), slice(a, b)) for a, b in zip(starts, ends, strict=True)]


def partial_mels(samples: np.ndarray, step: int = PARTIAL_STEP) -> np.ndarray:
    """The partial utterances of prepared samples: (partials, 160, 40) float32."""
    slices = partial_slices(len(samples), step)
    padding = max(0, slices[-1][0].stop - len(samples))
    mels = mel_spectrogram(np.pad(samples, (0, padding)))
    return np.stack([mels[frames] for _, frames in slices])


def _is_array(source: Clip) -> bool:
    return isinstance(source, tuple)


def _name(source: Clip) -> str:
    return "the clip" if _is_array(source) else os.fspath(source)


def _dbfs(samples: np.ndarray) -> float:
    return 10 * math.log10(max(1e-20, float(np.mean(np.square(samples, dtype=np.float64)))))


def _from_array(samples: np.ndarray, rate: int, name: str, seconds: float) -> tuple[np.ndarray, int]:
    """(n, channels) float32 and the rate, of a caller's array."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "iuf":
        raise InputError(f"{name}: give samples of shape (n,) or (n, channels), as floats or integers")
    samples = samples if samples.ndim == 2 else samples[:, None]
    _check_format(name, rate, samples.shape[1])
    samples = samples[: round(seconds * rate)]
    if samples.dtype.kind == "f":
        return samples.astype(np.float32), rate
    half_range = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half_range if samples.dtype.kind == "u" else 0.0
    return ((samples - middle) / half_range).astype(np.float32), rate


def _read(path: str | os.PathLike, seconds: float) -> tuple[np.ndarray, int]:
    """(n, channels) float32 and the rate, of the first seconds of a file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a WAV, FLAC, OGG or MP3 clip")
    try:
        with path.open("rb", buffering=0) as raw:  # unbuffered: the descriptor is shared below
            if not _is_sound(raw.read(12)):
                raise InputError(f"{path}: not a WAV, FLAC, OGG or MP3 file; convert it to one of them")
            raw.seek(0)
            # By descriptor: given a name, soundfile would trust its ending.
            with soundfile.SoundFile(raw.fileno(), closefd=False) as file:
                _check_format(str(path), file.samplerate, file.channels)
                if file.frames > seconds * file.samplerate:
                    logger.info("%s: only its first %.0f s are used", path, seconds)
                samples = file.read(round(seconds * file.samplerate), dtype="float32", always_2d=True)
                return samples, file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: damaged or an unknown kind of sound ({error}); export it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _is_sound(head: bytes) -> bool:
    wav = head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"
    mp3 = head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    return wav or mp3 or head[:4] in (b"fLaC", b"OggS")


def _check_format(name: str, rate: int, channels: int) -> None:
    low, high = RATES
    if not low <= rate <= high:
        raise InputError(f"{name}: {rate} samples a second; resample it to between {low} and {high}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels; give a clip with 1 to {MAX_CHANNELS}")


def _speech_windows(windows: np.ndarray) -> np.ndarray:
    """(count, 480) samples -> (count,) bool: webrtcvad's opinion, smoothed, then widened."""
    count = len(windows)
    vad = webrtcvad.Vad(VAD_MODE)
    pcm = (windows.clip(-1, 1) * 32767).round().astype("<i2")
    voiced = [vad.is_speech(window.tobytes(), SAMPLE_RATE) for window in pcm]
    ahead = VAD_SMOOTHING // 2  # the average reaches 3 windows back and 4 ahead
    votes = np.convolve(voiced, np.ones(VAD_SMOOTHING))[ahead : ahead + count]
    majority = votes > VAD_SMOOTHING / 2
    reach = VAD_DILATION // 2
    return np.convolve(majority, np.ones(VAD_DILATION))[reach : reach + count] > 0.5


@functools.cache
def _filterbank() -> np.ndarray:
    """(40, 201) float32: Slaney's mel triangles, each of unit area over Hz (Auditory Toolbox, 1998).

    The scale is linear up to 1 kHz (15 mel) and logarithmic above it, 27 mel per factor of 6.4.
    """
    top = 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000) / math.log(6.4)
    mels = np.linspace(0, top, MELS + 2)
    edges = np.where(mels < 15, mels * 1000 / 15, 1000 * 6.4 ** ((mels - 15) / 27))[:, None]
    return (_triangles(edges) * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


@functools.cache
def _legacy_filterbank() -> np.ndarray:
    """(40, 201) float32: HTK's mel triangles, each of height 1."""
    top = math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** np.linspace(0, top, MELS + 2) - 1)
    return _triangles(edges[:, None]).astype(np.float32)


def _power_spectrum(samples: np.ndarray, pad_mode: str) -> np.ndarray:
    """(n,) -> (1 + n // 160, 201) float32: centred frames, periodic Hann window, edges as of `torch.stft`."""
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)),
        N_FFT,
        HOP,
        window=torch.hann_window(N_FFT),
        center=True,
        pad_mode=pad_mode,
        return_complex=True,
    )
    return spectrum.abs().square().numpy().T


def _triangles(edges: np.ndarray) -> np.ndarray:
    """(42, 1) Hz -> (40, 201), each from one edge over the next, where it is 1, to the one behind."""
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    return np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0)
