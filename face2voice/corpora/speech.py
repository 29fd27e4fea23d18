"""Readers of the corpora that hold speech alone."""

import re
from collections.abc import Iterator
from pathlib import Path

from .files import files, folders, lines, pairs, published_split, table_beside, text_beside
from .record import Utterance

_LIBRISPEECH_NAME = re.compile(r"(\d+)-\d+-\d+")
_LIBRITTS_NAME = re.compile(r"(\d+)_\d+_\d+_\d+")
_VCTK_NAME = re.compile(r"([ps]\d+)_\d+(_mic1)?")


def librispeech(root: Path) -> Iterator[Utterance]:
    """SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt (Panayotov et al., 2015); the transcripts may
    be missing. Word timings are read where *.alignment.txt lie beside them."""
    sexes = _readers(root)
    for folder, names in folders(root):
        texts, words = {}, {}
        for name in names:
            if name.endswith(".trans.txt"):
                texts |= pairs(folder / name)
            elif name.endswith(".alignment.txt"):
                words |= table_beside(folder / name, lambda rows: dict(map(_alignment, rows)), {})
        found = {name.removesuffix(".flac") for name in names if name.endswith(".flac")}
        for name in sorted(found | texts.keys()):
            if match := _LIBRISPEECH_NAME.fullmatch(name):
                yield Utterance(
                    folder / f"{name}.flac",
                    texts.get(name),
                    match[1],
                    sexes.get(match[1]),
                    split=published_split(folder.parent.parent.name),
                    words=words.get(name, ()),
                )


def libritts(root: Path) -> Iterator[Utterance]:
    """SUBSET/SPEAKER/CHAPTER/*.wav and *.normalized.txt (Zen et al., 2019)."""
    sexes = _readers(root)
    for folder, names in folders(root):
        # Transcripts alone make a record too, so that a missing sound is told of.
        for name in sorted({name.split(".")[0] for name in names if name.endswith((".wav", ".normalized.txt"))}):
            if match := _LIBRITTS_NAME.fullmatch(name):
                audio = folder / f"{name}.wav"
                text = text_beside(audio, ".normalized.txt") or text_beside(audio, ".original.txt")
                split = published_split(folder.parent.parent.name)
                yield Utterance(audio, text, match[1], sexes.get(match[1]), split=split)


def vctk(root: Path) -> Iterator[Utterance]:
    """0.80: wav48/SPEAKER/*.wav; 0.92: wav48_silence_trimmed/SPEAKER/*_mic1.flac (the second
    microphone says the same); txt/SPEAKER/*.txt and speaker-info.txt in both."""
    people = {}
    for row in (line.split() for line in lines(root / "speaker-info.txt")[1:]):
        people[row[0] if row[0][0] in "ps" else "p" + row[0]] = (row[2].lower(), float(row[1]))  # 0.80 drops the p
    for audio in files(root, (".wav", ".flac")):
        if match := _VCTK_NAME.fullmatch(audio.stem):
            name = audio.stem.removesuffix("_mic1")
            text = text_beside(root / "txt" / match[1] / name)
            yield Utterance(audio, text, match[1], *people.get(match[1], (None, None)))


def ljspeech(root: Path) -> Iterator[Utterance]:
    """wavs/*.wav and metadata.csv: name|text as written|text as read (Ito, 2017)."""
    for row in (line.split("|") for line in lines(root / "metadata.csv")):
        yield Utterance(root / "wavs" / f"{row[0]}.wav", row[-1].strip(), "LJ", "f")


def speechocean762(root: Path) -> Iterator[Utterance]:
    """train/ and test/ with Kaldi's wav.scp, text, utt2spk, spk2gender, spk2age (Zhang et al., 2021)."""
    for split in ("train", "test"):
        table = {name: pairs(root / split / name) for name in ("text", "utt2spk", "spk2gender", "spk2age")}
        for name, audio in pairs(root / split / "wav.scp").items():
            speaker = table["utt2spk"].get(name, name)
            age = table["spk2age"].get(speaker)
            yield Utterance(
                root / audio,
                table["text"].get(name),
                speaker,
                table["spk2gender"].get(speaker),
                float(age) if age else None,
                split=split,
            )


def _readers(root: Path) -> dict[str, str]:
    """LibriVox reader -> sex, from the table in `root` or above it."""
    for folder in (root, root.parent, root / "LibriSpeech", root / "LibriTTS"):
        for name in ("SPEAKERS.TXT", "SPEAKERS.txt", "speakers.tsv"):
            if (folder / name).is_file():
                rows = [re.split(r"\s*[|\t]\s*", line.strip()) for line in lines(folder / name)]
                return {row[0]: row[1].lower() for row in rows if len(row) > 1 and row[1] in ("F", "M")}
    return {}


def _alignment(line: str) -> tuple[str, tuple[tuple[str, float, float], ...]]:
    """A line NAME ",WORD,,WORD," "END,END,..." of the published alignments; the nameless words are silences."""
    name, words, ends = (part.strip('"') for part in line.split())
    seconds = [0.0, *map(float, ends.split(","))]
    return name, tuple(
        (word, start, end) for word, start, end in zip(words.split(","), seconds, seconds[1:], strict=False) if word
    )
