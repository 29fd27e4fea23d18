"""A voice bank that any machine can make: WordNet's example sentences, spoken by flite, turned by
WORLD into pseudo-speakers of known sex, age and size.

flite's voices were built from recordings of real speakers and stay intelligible; WORLD (Morise et
al., 2016) moves their pitch and vocal-tract length, and colours them, which makes one voice into a
continuum. Of flite's voices rms is the clearest to a speech recogniser, even raised to a woman's
pitch. Pitch and length alone leave the pseudo-speakers much alike to a speaker encoder (mean
distance 0.02 to 0.17); a smooth curve on the spectrum sets them apart (0.3) and costs no words.
"""

import dataclasses
import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf

from face2voice.corpora import Utterance, write_manifest
from savedmodels import InputError
from synthesizer.audio import SAMPLE_RATE, to_level

log = logging.getLogger(__name__)

SOURCE = "rms"
"""flite's voice that all others are made from."""
SOURCE_F0 = 101.0
"""Its median pitch, Hz."""

_FRAME_PERIOD = 5.0  # ms, WORLD's own default
_APERIODICITY_EVERY = 2  # frames
_QUOTED = re.compile(r'"([^"]+)"')
_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,;'-]*[A-Za-z][.?!]?")


@dataclasses.dataclass(frozen=True)
class PseudoSpeaker:
    """A voice made from another.

    Attributes:
        f0: median pitch, Hz.
        f0_range: factor on the excursions around the median, on a logarithmic scale.
        stretch: factor on the formants' frequencies; above 1 is a shorter vocal tract.
        rate: factor on the tempo.
        colour: dB, amplitudes of 1, 2, ... half cosines over the mel scale from 0 to 8 kHz, put on the spectrum.
    """

    name: str
    sex: str
    age: int
    f0: float
    f0_range: float
    stretch: float
    rate: float
    colour: tuple[float, ...]


def pseudo_speakers(count: int = 64, seed: int = 0) -> list[PseudoSpeaker]:
    """`count` adults, half of them women, drawn so that pitch follows sex and age.

    Women's pitch falls over adult life; men's falls a little and rises again past sixty
    (Stathopoulos et al., 2011). Old people speak more slowly. What is left varies from one
    person to the next, so that two people of one age differ. Shorter vocal tracts would make women, and longer
    ones men, sound more like real ones to a speaker encoder; but longer ones cost men words.
    """
    rng = np.random.default_rng(seed)
    speakers = []
    for i in range(count):
        sex = "f" if i % 2 else "m"
        age = int(rng.integers(20, 86))
        size = np.clip(rng.normal(), -2, 2)  # of the body: the vocal tract's length goes with it, and some pitch
        if sex == "m":
            f0 = np.clip(116 + 14 * (age > 60) - 6 * size + rng.normal() * 11, 88, 148)
            stretch = 1.01 - 0.03 * size
        else:
            f0 = np.clip(215 - 0.45 * (age - 20) - 6 * size + rng.normal() * 13, 172, 245)
            stretch = 1.18 - 0.03 * size
        speakers.append(
            PseudoSpeaker(
                name=f"{sex}{age:02d}-{SOURCE}-{i:02d}",
                sex=sex,
                age=age,
                f0=float(f0),
                f0_range=float(rng.uniform(0.85, 1.2)),
                stretch=float(stretch),
                rate=float(1.05 - 0.0025 * max(age - 30, 0) + rng.normal() * 0.03),
                colour=tuple(float(x) for x in rng.normal(size=4) * (3.0, 4.0, 3.0, 2.0)),
            )
        )
    return speakers


def wordnet_sentences(folder: Path = Path("/usr/share/wordnet")) -> list[str]:
    """WordNet's example sentences made of plain words, 8 to 120 characters, in a fixed order.

    Raises:
        InputError: WordNet's data files are not there.
    """
    files = [folder / f"data.{part}" for part in ("adj", "adv", "noun", "verb")]
    if not all(file.is_file() for file in files):
        raise InputError(f"{folder}: no WordNet there; install Debian's package wordnet-base")
    found: dict[str, None] = {}
    for file in files:
        for quoted in _QUOTED.findall(file.read_text(encoding="ascii", errors="replace")):
            quoted = " ".join(quoted.split())
            if 8 <= len(quoted) <= 118 and _PLAIN.fullmatch(quoted):
                closed = quoted if quoted[-1] in ".?!" else quoted + "."
                found[closed[0].upper() + closed[1:]] = None
    return list(found)


def script(sentences: list[str], known: Callable[[str], bool], count: int, seed: int) -> list[str]:
    """`count` texts to speak: known words only, one in four made of two sentences, for length."""
    rng = np.random.default_rng(seed)
    usable = [s for s in sentences if all(known(w) for w in re.findall(r"[A-Za-z']+", s))]
    order = iter(rng.permutation(len(usable)))
    texts = []
    for i in order:
        text = usable[i]
        if rng.random() < 0.3:
            follower = usable[next(order, 0)]
            if len(text) + len(follower) < 120:
                text = (
                    f"{text[:-1]}{rng.choice(['.', ',', ';'])} {follower}"
                    if rng.random() < 0.5
                    else f"{text} {follower}"
                )
        texts.append(text)
        if len(texts) == count:
            break
    return texts


def speak_with_flite(text: str, voice: str = SOURCE) -> np.ndarray:
    """`text` in one of flite's voices: float64 samples at 16 kHz, silence at both ends cut to 40 ms."""
    if shutil.which("flite") is None:
        raise InputError("flite is not installed; install Debian's package flite")
    with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", wav.name], check=True, capture_output=True)
        samples, rate = sf.read(wav.name)
    if rate != SAMPLE_RATE:
        raise InputError(f"flite's voice {voice} speaks at {rate} Hz, {SAMPLE_RATE} expected")
    level = np.sqrt(np.convolve(samples**2, np.ones(160) / 160, mode="same"))
    active = np.flatnonzero(level > 0.02 * level.max())
    margin = int(0.04 * SAMPLE_RATE)
    return samples[max(active[0] - margin, 0) : active[-1] + margin]


class WorldVoice:
    """WORLD's analysis of one recording, to be spoken again by other pseudo-speakers.

    Args:
        samples: float64 (n,), 16 kHz.
    """

    def __init__(self, samples: np.ndarray):
        world = pyworld()
        samples = np.ascontiguousarray(samples)
        coarse, times = world.dio(samples, SAMPLE_RATE, frame_period=_FRAME_PERIOD)
        self.f0 = world.stonemask(samples, coarse, times, SAMPLE_RATE)
        self.envelope = world.cheaptrick(samples, self.f0, times, SAMPLE_RATE)
        # Aperiodicity changes slowly, and takes half of all the time at every frame.
        sparse = (np.ascontiguousarray(x[::_APERIODICITY_EVERY]) for x in (self.f0, times))
        aperiodicity = world.d4c(samples, *sparse, SAMPLE_RATE)
        self.aperiodicity = np.repeat(aperiodicity, _APERIODICITY_EVERY, axis=0)[: len(times)]

    def speak(self, speaker: PseudoSpeaker) -> np.ndarray:
        """float32 (m,) samples at 16 kHz in the voice of `speaker`, at the level of `to_level`."""
        voiced = self.f0 > 0
        f0 = np.zeros_like(self.f0)
        f0[voiced] = speaker.f0 * (self.f0[voiced] / SOURCE_F0) ** speaker.f0_range
        bins = np.arange(self.envelope.shape[1])
        warp = np.minimum(bins / speaker.stretch, bins[-1])
        low, fraction = warp.astype(int), warp % 1
        high = np.minimum(low + 1, bins[-1])

        def warped(frames: np.ndarray) -> np.ndarray:
            return frames[:, low] * (1 - fraction) + frames[:, high] * fraction

        envelope = np.exp(warped(np.log(self.envelope)) + _colouring(speaker.colour, len(bins)))
        period = _FRAME_PERIOD / speaker.rate
        # pyworld takes C order only, which indexing by columns does not keep
        spectrum = (np.ascontiguousarray(x) for x in (envelope, warped(self.aperiodicity)))
        return to_level(pyworld().synthesize(f0, *spectrum, SAMPLE_RATE, period))


def half_cosines(hertz: np.ndarray, count: int) -> np.ndarray:
    """(bands, count): 1, 2, ... half cosines over the mel scale from 0 to 8 kHz, at the frequencies (bands,)."""
    mel = np.log1p(hertz / 700) / np.log1p(SAMPLE_RATE / 2 / 700)
    return np.cos(np.pi * mel[:, None] * np.arange(1, count + 1))


def _colouring(amplitudes: Sequence[float], bins: int) -> np.ndarray:
    """What a speaker's colour adds to the natural logarithm of power (bins,) from 0 to 8 kHz."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, bins)
    return half_cosines(hertz, len(amplitudes)) @ np.array(amplitudes) * np.log(10) / 10


def build_bank(
    out: Path,
    texts: list[str],
    speakers: list[PseudoSpeaker],
    voices_per_text: int = 2,
    seed: int = 0,
    workers: int = 2,
) -> Path:
    """Speaks each text in `voices_per_text` pseudo-speakers, men and women by turns.

    A second run makes only what is missing.

    Returns:
        the manifest, ``out/manifest.jsonl``; sound is in ``out/flac/``.
    """
    (out / "flac").mkdir(parents=True, exist_ok=True)
    jobs = list(_plan(out, texts, speakers, voices_per_text, seed))
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(_speak_job, jobs, chunksize=16), start=1):
            if done % 500 == 0:
                log.info("voice bank: %d of %d texts spoken", done, len(jobs))
    utterances = [
        Utterance(path, text, speaker.name, speaker.sex, speaker.age)
        for text, cast in jobs
        for path, speaker in cast
        if path.is_file()
    ]
    write_manifest(out / "manifest.jsonl", utterances)
    return out / "manifest.jsonl"


def _plan(
    out: Path, texts: list[str], speakers: list[PseudoSpeaker], voices_per_text: int, seed: int
) -> Iterator[tuple[str, list[tuple[Path, PseudoSpeaker]]]]:
    rng = np.random.default_rng(seed)
    for number, text in enumerate(texts):
        cast = [speakers[rng.integers(len(speakers))]]
        while len(cast) < voices_per_text:
            # the other sex next, so that each text is heard across the whole range
            other = [s for s in speakers if s.sex != cast[-1].sex]
            cast.append(other[rng.integers(len(other))])
        yield text, [(out / "flac" / f"{number:05d}-{speaker.name}.flac", speaker) for speaker in cast]


def _speak_job(job: tuple[str, list[tuple[Path, PseudoSpeaker]]]) -> None:
    text, cast = job
    missing = [(path, speaker) for path, speaker in cast if not path.is_file()]
    if not missing:
        return
    voice = WorldVoice(speak_with_flite(text))
    for path, speaker in missing:
        partial = path.with_suffix(".partial")
        sf.write(partial, voice.speak(speaker), SAMPLE_RATE, format="FLAC")
        partial.rename(path)


def pyworld() -> types.ModuleType:
    """The package pyworld, made importable."""
    # pyworld asks pkg_resources, which setuptools has dropped, for its own version and for nothing else.
    if "pyworld" not in sys.modules and "pkg_resources" not in sys.modules:
        sys.modules["pkg_resources"] = types.SimpleNamespace(get_distribution=importlib.metadata.distribution)
    import pyworld

    return pyworld
