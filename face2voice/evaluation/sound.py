"""How it sounds: distortion of copies, and what no listener should hear."""

import functools
import importlib.util
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import butter, sosfiltfilt

from face2voice.corpora import Utterance
from synthesizer import audio
from synthesizer.text import load_lexicon
from synthesizer.text.phonemes import to_phones

from .figures import Figure, Player, Section, mean, ratio
from .intelligibility import Heard, transcribe
from .material import read_clip
from .takes import Take

SAMPLE_RATE = 16_000
COPY_SECONDS = 8.0  # of each original
_SPEAKING_DB = 40.0  # below the loud parts, a frame still counts as speech
_FLOOR = 1e-4  # of the loudest band, 80 dB down: below it nothing is heard, and nothing is compared
_LOWEST, _HIGHEST = 65, 400  # Hz, of pitch
_PITCH_BAND = (70.0, 1200.0)  # Hz; leaves out mains hum, and what is above the first formant
_OCTAVE_COST, _VOICED = 0.08, 0.6  # the former per octave, both in units of correlation
_GROSS = 0.2  # relative error in pitch
_VOICED_DB = 25.0  # likewise, for pitch: mains hum in a pause is not a voice
_CLICK = 3.0  # times as sharp as all that is near
_CLICK_FLOOR = 0.05  # of full scale, where the loudest sample is 0.5
_LOST = 0.5  # word error rate of an original that tells nothing of its copy
_NEAR = np.array([abs(ms) > 2 for ms in range(-20, 21)])  # which milliseconds around one are compared with it


def measure(takes: Sequence[Take]) -> dict[str, Figure]:
    """Figures of what was said, whatever was said."""
    figures = natural_figures([take.speech.samples for take in takes], [take.person for take in takes])
    seconds = [take.speech.duration for take in takes]
    people = [take.person for take in takes]
    for unit, count in (("words", word_count), ("syllables", syllable_count)):
        counts = [count(" ".join(take.speech.texts)) for take in takes]
        figures[f"{unit}_per_second"] = ratio(counts, seconds, people, of="sentences", unit="/s")
    return figures


def natural_figures(clips: Sequence[np.ndarray], people: Sequence[str]) -> dict[str, Figure]:
    """Clicks, silence and clipping; as good for recordings as for what was made."""
    seconds = [len(clip) / SAMPLE_RATE for clip in clips]
    return {
        "clicks": ratio([clicks(clip) for clip in clips], seconds, people, of="sentences", unit="/s"),
        "silence_share": mean([silence_share(clip) for clip in clips], people, of="sentences"),
        "longest_silence": mean([longest_silence(clip) for clip in clips], people, of="sentences", unit="s"),
        "clipped_share": mean([clipped_share(clip) for clip in clips], people, of="sentences"),
    }


def measure_originals(utterances: Sequence[Utterance]) -> Section:
    """Clicks, silence and clipping of real recordings."""
    clips = {utterance.audio.stem: read_clip(utterance, COPY_SECONDS) for utterance in utterances}
    clips = {name: clip for name, clip in clips.items() if clip is not None}
    return Section(natural_figures(list(clips.values()), list(clips)))


def measure_copies(
    copy: Callable[[np.ndarray], np.ndarray], originals: Sequence[Utterance], tick: Callable[[], None] = lambda: None
) -> Section:
    """Copy synthesis, true mel to vocoder, of real speakers whom the vocoder has not heard."""
    rows, players = [], []
    optional = _optional_measures()
    for utterance in originals:
        original, path = read_clip(utterance, COPY_SECONDS), utterance.audio
        if original is None:
            continue
        made = copy(original)
        length = min(len(original), len(made))
        original, made = original[:length], made[:length]
        row = {
            "original": path.name,
            "mel_cepstral_distortion_13": mel_cepstral_distortion(original, made, 13),
            "mel_cepstral_distortion_24": mel_cepstral_distortion(original, made, 24),
        } | f0_errors(original, made)
        rows.append(row | {name: score(original, made) for name, score in optional.items()})
        if len(players) < 6:
            players += [Player(f"{path.stem}, original", original), Player(f"{path.stem}, copy", made)]
        tick()
    units = {"mel_cepstral_distortion_13": "dB", "mel_cepstral_distortion_24": "dB", "f0_error": "Hz"}
    names = [name for name in (rows[0] if rows else ()) if name != "original"]
    figures = {n: mean([row[n] for row in rows], of="people", unit=units.get(n, "")) for n in names}
    notes = [
        "Mel-cepstral distortion is that of copies, frame by frame, on frames where the original speaks: 10 / ln 10 x "
        "sqrt(2 x sum of squared differences of mel-cepstral coefficients 1 to 13, or 24) on 80 mel bands, "
        "the loudness (coefficient 0) left out, bands held at 80 dB below the loudest at least; "
        "no time warping, since copies keep their originals' timing. "
        "F0 error is the root mean square where both are voiced, gross errors (a fifth and more) apart. "
        f"First {COPY_SECONDS:.0f} s of: " + ", ".join(row["original"] for row in rows) + "."
    ]
    for package, what in (("pystoi", "STOI and ESTOI"), ("pesq", "PESQ")):
        if not importlib.util.find_spec(package):
            notes.append(f"{what} of copies: not measured, the package {package} is not installed.")
    return Section(figures, rows, notes, players)


def measure_copied_words(
    copy: Callable[[np.ndarray], np.ndarray], said: Sequence[Heard], tick: Callable[[], None] = lambda: None
) -> Section:
    """How many more words the recogniser gets wrong in copies than in their originals.

    Args:
        said: originals of which it is known what is said.
    """
    rows = []
    for voice, text, sex, original in said:
        before, after = transcribe((voice, text, sex, clip) for clip in (original, copy(original)))
        rows.append({**before, "heard_in_copy": after["heard"], "errors_in_copy": after["errors"]})
        tick()
    if not rows:
        return Section(notes=["Words in copies: not measured, nothing is known of what the originals say."])
    voices = [row["voice"] for row in rows]
    factors = (voices,) if len(set(voices)) > 2 else ()  # of one or two voices, sentences are resampled
    errors, in_copy, words = ([row[key] for row in rows] for key in ("errors", "errors_in_copy", "words"))
    of = f"sentences by {len(set(voices))} voices"
    figures = {
        "copied_word_error_ratio": ratio(in_copy, errors, *factors, of=of),
        "word_error_rate_of_copies": ratio(in_copy, words, *factors, of=of),
        "word_error_rate_of_originals": ratio(errors, words, *factors, of=of),
    }
    rate = figures["word_error_rate_of_originals"].value
    note = f"Of the originals the recogniser gets {rate:.0%} of the words wrong"
    return Section(figures, rows, [note + ("; the ratio says next to nothing." if rate > _LOST else ".")])


# ---- measures of a waveform; float (n,) in [-1, 1], 16 kHz


def median_f0(samples: np.ndarray) -> float:
    """Median pitch of the loud voiced parts, Hz; NaN where nothing is voiced."""
    f0 = f0_track(samples)
    return float(np.nanmedian(f0)) if np.isfinite(f0).any() else float("nan")


def f0_track(samples: np.ndarray) -> np.ndarray:
    """Pitch every 12.5 ms, (n // 200 + 1,) Hz, 65 to 400, NaN where unvoiced or soft.

    By autocorrelation over that of the window (Boersma 1993, sections 3 and 4) in windows of 50 ms, of the band
    from 70 to 1,200 Hz, without his search for a path. Over the first 4 s of 20 LibriSpeech clips and 5 of the
    voice bank, medians were within 3.5 % of those of WORLD's Harvest, and 2.4 % of the frames that are
    voiced in both were off by more than a fifth.
    """
    band = sosfiltfilt(butter(4, _PITCH_BAND, "bandpass", fs=SAMPLE_RATE, output="sos"), samples)
    padded = np.pad(band, audio.N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, audio.N_FFT)[:: audio.HOP]
    window = np.hanning(audio.N_FFT + 2)[1:-1]
    own = _autocorrelation(window)
    product = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    shortest, longest = SAMPLE_RATE // _HIGHEST, SAMPLE_RATE // _LOWEST
    lags = np.arange(shortest, longest + 1)
    around = slice(shortest - 1, longest + 2)
    strength = product[:, around] / np.maximum(product[:, :1], 1e-12) / (own[around] / own[0])
    left, middle, right = strength[:, :-2], strength[:, 1:-1], strength[:, 2:]
    # A period fits twice as well as once; the cost prefers the shorter.
    score = np.where((middle >= left) & (middle >= right), middle - _OCTAVE_COST * np.log2(lags), -np.inf)
    best = score.argmax(axis=1)[:, None]
    before, peak, after = (np.take_along_axis(side, best, axis=1)[:, 0] for side in (left, middle, right))
    bend = np.minimum(before - 2 * peak + after, -1e-9)  # of the parabola through the three
    f0 = SAMPLE_RATE / (lags[best[:, 0]] + np.clip(0.5 * (before - after) / bend, -1, 1))
    level = _levels(samples)
    loud = level > max(np.percentile(level, 95) - _VOICED_DB, -100.0)
    return np.where((peak > _VOICED) & np.isfinite(score.max(axis=1)) & loud, f0, np.nan)


def f0_errors(original: np.ndarray, copy: np.ndarray) -> dict[str, float]:
    """Of a copy's pitch (terms as of Chu & Alwan, 2009), NaN where nothing is voiced in both:

    - ``f0_error``: root mean square difference in Hz, gross errors left out;
    - ``gross_pitch_error``: share of frames voiced in both that are off by more than a fifth;
    - ``voicing_error``: share of all frames that are voiced in one alone.
    """
    one, other = f0_track(original), f0_track(copy)
    frames = min(len(one), len(other))
    one, other = one[:frames], other[:frames]
    both = np.isfinite(one) & np.isfinite(other)
    gross = np.abs(other[both] / one[both] - 1) > _GROSS
    fine = (one - other)[both][~gross]
    return {
        "f0_error": math.sqrt(np.mean(fine**2)) if len(fine) else float("nan"),
        "gross_pitch_error": float(gross.mean()) if both.any() else float("nan"),
        "voicing_error": float(np.mean(np.isfinite(one) != np.isfinite(other))),
    }


def mel_cepstral_distortion(original: np.ndarray, copy: np.ndarray, order: int = 13) -> float:
    """Mel-cepstral distortion in dB (Kubichek, 1993) of an aligned copy, over frames that speak.

    With c_k = 2/M sum_m ln|H_m| cos(pi k (m + 1/2) / M) over M = 80 mel bands (50 ms windows every
    12.5 ms), as SPTK scales them, it is 10 / ln 10 sqrt(2 sum_{k=1..order} (c_k - c'_k)^2): the root
    mean square difference of the two smoothed mel spectra in decibels, but for their loudness. |H_m|
    is kept from falling more than 80 dB below the recording's loudest.
    """
    cepstra = [_mel_cepstrum(samples, order) for samples in (original, copy)]
    frames = min(len(c) for c in cepstra)
    level = _levels(original)[:frames]
    speaking = level > np.percentile(level, 95) - _SPEAKING_DB
    difference = (cepstra[0][:frames] - cepstra[1][:frames])[speaking]
    return float(np.mean(10 / math.log(10) * np.sqrt(2 * (difference**2).sum(axis=1))))


def clicks(samples: np.ndarray) -> int:
    """Milliseconds in which the waveform's second difference peaks three times as high as anywhere
    else within 20 ms. Consonants last longer and pitch pulses come again; a click stands alone."""
    from scipy.ndimage import maximum_filter

    peak = np.abs(samples).max(initial=0.0)
    if not peak:
        return 0
    bend = np.abs(np.diff(samples / peak / 2, n=2, prepend=[0.0, 0.0]))
    sharpest = np.pad(bend, (0, -len(bend) % 16)).reshape(-1, 16).max(axis=1)  # of every ms
    near = maximum_filter(sharpest, footprint=_NEAR, mode="constant")
    alone = (sharpest > _CLICK * near) & (sharpest > _CLICK_FLOOR)
    return int(np.sum(alone & ~np.roll(alone, 1)))  # one on the border of two is one


def silence_share(samples: np.ndarray) -> float:
    """Share of 12.5 ms frames that are more than 40 dB below the loud parts."""
    return float(np.mean(_silent(samples)))


def longest_silence(samples: np.ndarray) -> float:
    """Seconds of the longest silence inside, those at both ends not counted."""
    speaking = np.flatnonzero(~_silent(samples))
    return float(max(np.diff(speaking).max(initial=1) - 1, 0) * audio.HOP / SAMPLE_RATE)


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples at full scale."""
    return float(np.mean(np.abs(samples) >= 0.999))


def word_count(text: str) -> int:
    """Words of a text with numbers written out."""
    return len(re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text))


def syllable_count(text: str) -> int:
    """Syllables of a text with numbers written out: vowels in the lexicon's pronunciation, or groups
    of vowel letters in words that it lacks."""
    total = 0
    for word in re.findall(r"[a-z']+", text.lower()):
        if load_lexicon().lookup(word):
            total += sum(phone[-1].isdigit() for phone in to_phones(word))
        else:
            total += max(1, len(re.findall(r"[aeiouy]+", word)))
    return total


def _mel_cepstrum(samples: np.ndarray, order: int) -> np.ndarray:
    """(frames, order): coefficients 1 to order."""
    import librosa

    spectrum = np.abs(librosa.stft(np.asarray(samples, np.float32), n_fft=audio.N_FFT, hop_length=audio.HOP))
    bands = audio.mel_filters() @ spectrum
    logarithm = np.log(np.maximum(bands, max(_FLOOR * bands.max(), 1e-9)))
    return (_cosines(order) @ logarithm).T


@functools.cache
def _cosines(order: int) -> np.ndarray:
    bands = np.arange(audio.N_MELS) + 0.5
    return 2 / audio.N_MELS * np.cos(np.pi / audio.N_MELS * np.arange(1, order + 1)[:, None] * bands)


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    """(..., 800) -> (..., 1024)."""
    return np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[..., :1024]


def _levels(samples: np.ndarray) -> np.ndarray:
    """(n // 200 + 1,) dB of 50 ms windows every 12.5 ms."""
    energy = np.cumsum(np.pad(np.square(samples, dtype=float), (audio.N_FFT // 2 + 1, audio.N_FFT // 2)))
    power = (energy[audio.N_FFT :] - energy[: -audio.N_FFT])[:: audio.HOP] / audio.N_FFT
    return 10 * np.log10(np.maximum(power, 1e-12))


def _silent(samples: np.ndarray) -> np.ndarray:
    level = _levels(samples)
    return level < max(np.percentile(level, 95) - _SPEAKING_DB, -100.0)


def _optional_measures() -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    """Measures whose packages are installed: name -> of (original, copy)."""
    found = {}
    if importlib.util.find_spec("pystoi"):
        from pystoi import stoi

        found["stoi"] = lambda one, other: float(stoi(one, other, SAMPLE_RATE))
        found["estoi"] = lambda one, other: float(stoi(one, other, SAMPLE_RATE, extended=True))
    if importlib.util.find_spec("pesq"):
        from pesq import pesq

        found["pesq"] = lambda one, other: float(pesq(SAMPLE_RATE, one, other, "wb"))
    return found
