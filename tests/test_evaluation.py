"""The harness: every measure on made signals with known answers, the report on a stub that buzzes."""

import json
import math
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import typer

from face2voice import Speech, Voice
from face2voice.corpora import Utterance, write_manifest
from face2voice.evaluation import (
    QUICK,
    Judge,
    Material,
    Settings,
    attention,
    evaluate,
    figures,
    find_material,
    intelligibility,
    material,
    sound,
    speech2face,
    to_html,
    to_json,
    voices,
)
from face2voice.evaluation.charts import intervals, scatter
from face2voice.evaluation.judge import cross_validate
from face2voice.evaluation.takes import altered
from face2voice.evaluation.texts import harvard_sentences, long_text, varied_sentences
from face2voice.recipes.sources import Portrait
from face2voice.recipes.voicebank import speak_with_flite
from savedmodels import Bundle, InputError

PORTRAIT = Path(__file__).parent / "data" / "portrait.jpg"
RATE = 16_000


def buzz(f0: float, seconds: float = 1.0) -> np.ndarray:
    """A vowel-like sound of that pitch."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, int(3500 / f0))) * 0.1).astype(np.float32)


# ---- figures


def test_interval_holds_the_mean():
    figure = figures.mean([0, 1] * 50, of="people", chance=0.5)
    assert 0.3 < figure.low < figure.value == 0.5 < figure.high < 0.7
    assert (figure.n, figure.chance) == (100, 0.5)
    assert math.isnan(figures.mean([1.0], of="people").low)
    assert figures.mean([1.0, math.nan, 3.0], of="people").value == 2.0
    assert math.isnan(figures.mean([], of="people").value)


def test_errors_of_one_voice_go_together():
    voice = np.repeat(np.arange(6), 20)
    errors = np.where(voice < 3, 0.0, 1.0)
    alone = figures.ratio(errors, np.ones(120), of="sentences")
    together = figures.ratio(errors, np.ones(120), voice, of="sentences")
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_all_right_is_not_certain():
    figure = figures.share([True] * 30, "people", 0.5)
    assert figure.value == figure.high == 1.0
    assert figure.low == pytest.approx(0.886, abs=0.001)  # Wilson's, as tabulated


def test_rank_correlation():
    ages = np.arange(40)
    assert figures.rank_correlation(ages, ages**2, "people").value == pytest.approx(1)
    falling = figures.rank_correlation(ages, -ages + np.random.default_rng(0).normal(size=40), "people")
    assert falling.high < -0.8
    assert math.isnan(figures.rank_correlation([1, 2], [1, 1], "people").value)


# ---- intelligibility


def test_errors_are_counted():
    assert intelligibility.word_errors("It's a test.", "its a test")[1] == 3
    assert intelligibility.word_errors("The boy ran.", "the boy ran") == (0, 3)
    assert intelligibility.word_errors("The boy ran.", "") == (3, 3)
    assert intelligibility.word_errors("The boy ran.", "the big boy can") == (2, 3)
    assert intelligibility.character_errors("The boy.", "the bay") == (1, 7)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_is_understood():
    assert sound.median_f0(speak_with_flite("one two three four five", "rms")) == pytest.approx(101, abs=20)
    section = intelligibility.measure_flite("rms", ["one two three four five"])
    assert section.rows[0]["words"] == 5
    assert section.figures["word_error_rate"].value <= 0.4


def test_texts():
    lengths = [len(text) for text in varied_sentences()]
    assert len(set(varied_sentences())) == 200
    assert 5 <= min(lengths) < 10
    assert 110 < max(lengths) <= 120
    assert len(harvard_sentences()) == 40
    assert not set(varied_sentences()) & set(harvard_sentences())
    assert 2950 < len(long_text()) < 3050


# ---- sound


def test_pitch():
    assert sound.median_f0(buzz(120)) == pytest.approx(120, rel=0.02)
    for f0 in (80, 200, 300):
        assert sound.median_f0(buzz(f0)) == pytest.approx(f0, rel=0.02)
    near, far = sound.f0_errors(buzz(120), buzz(130)), sound.f0_errors(buzz(120), buzz(180))
    assert near["f0_error"] == pytest.approx(10, abs=2)
    assert (near["gross_pitch_error"], far["gross_pitch_error"]) == pytest.approx((0, 1), abs=0.05)
    assert near["voicing_error"] < 0.1
    hum = buzz(190) + 0.3 * np.sin(2 * np.pi * 60 * np.arange(RATE) / RATE)
    assert sound.median_f0(hum) == pytest.approx(190, rel=0.02)
    assert math.isnan(sound.median_f0(np.zeros(RATE, np.float32)))


def test_mel_cepstral_distortion_is_decibels():
    noise = np.random.default_rng(0).normal(size=2 * RATE).astype(np.float32) * 0.1
    assert sound.mel_cepstral_distortion(noise, noise) == 0
    assert sound.mel_cepstral_distortion(noise, 3 * noise) == pytest.approx(0, abs=1e-3)  # loudness is left out
    tilted = np.convolve(noise, [1, -0.9])[: len(noise)]
    response = np.abs(1 - 0.9 * np.exp(-1j * np.pi * np.arange(401) / 400))
    decibels = 20 * np.log10(sound.audio.mel_filters() @ response / sound.audio.mel_filters().sum(axis=1))
    expected = decibels.std()  # root mean square but for the loudness
    assert sound.mel_cepstral_distortion(noise, tilted, 40) == pytest.approx(expected, rel=0.1)


def test_clicks():
    speech = buzz(110, 2.0) * np.clip(np.sin(2 * np.pi * 2 * np.arange(2 * RATE) / RATE), 0, 1)
    assert sound.clicks(speech) == 0
    speech[[5000, 15_000, 25_000]] += 0.3
    assert sound.clicks(speech) == 3
    assert sound.clicks(np.zeros(RATE)) == 0


def test_silence_and_clipping():
    gap = np.concatenate([np.zeros(RATE), buzz(120), np.zeros(RATE), buzz(120)])
    assert sound.silence_share(gap) == pytest.approx(0.5, abs=0.03)
    assert sound.longest_silence(gap) == pytest.approx(1.0, abs=0.06)
    assert sound.silence_share(buzz(120)) < 0.05
    assert sound.clipped_share(np.array([0.0, 1.0, -1.0, 0.5])) == 0.5


def test_words_and_syllables():
    assert sound.word_count("It's twenty-one, isn't it?") == 5
    assert sound.syllable_count("The banana was expensive.") == 1 + 3 + 1 + 3
    assert sound.syllable_count("Zyxgrop") >= 1


# ---- attention


def test_attention_faults():
    diagonal = np.eye(60).repeat(2, axis=0)
    assert attention.faults(diagonal) == []
    assert attention.faults(np.concatenate([diagonal[:40], diagonal[60:]])) == ["skips"]
    assert attention.faults(np.concatenate([diagonal[:80], diagonal[30:]])) == ["repeats"]
    assert attention.faults(diagonal[:80]) == ["stops early"]
    back_at_the_end = np.concatenate([diagonal, diagonal[70:75]])
    assert attention.faults(back_at_the_end) == []
    assert attention.faults(np.eye(3)) == []


# ---- voices


def test_matching():
    assert voices.matching(np.eye(8)).tolist() == [1.0] * 8
    assert voices.matching(np.eye(8)[::-1]).max() == 0
    table = np.random.default_rng(0).random((300, 300))
    assert voices.matching(table).mean() == pytest.approx(0.2, abs=0.05)  # chance


def test_matching_figures():
    similarity = np.full((6, 6), 0.5) + np.eye(6) * 0.1
    found = voices.matching_figures(similarity, ["f", "m"] * 3)
    assert found["secs"].value == pytest.approx(0.6)
    assert found["secs"].chance == pytest.approx(0.5)
    assert found["secs_margin"].value == found["secs_margin_same_sex"].value == pytest.approx(0.1)
    assert found["matching_5_way"].value == 1.0
    assert "matching_5_way" not in voices.matching_figures(np.eye(3), ["f"] * 3)


def test_diversity():
    assert voices.diversity(np.eye(4), "people").value == 1.0
    assert voices.diversity(np.ones((4, 1)), "people").value == 0.0
    assert voices.diversity(np.zeros((0, 4)), "people").n == 0


def test_likeness():
    women, men = np.eye(4)[:2], np.eye(4)[2:]
    half = (women[:1] + women[1:]) / np.sqrt(2)
    figure = voices.likeness(half, women, men, "women")
    assert (figure.value, figure.chance) == (pytest.approx(np.sqrt(0.5)), 0.0)
    assert voices.likeness(women, women, men, "women").value == 0.0  # not to oneself
    assert voices.likeness(np.zeros((0, 4)), women, men, "women").n == 0


def test_sex_of_voices_not_heard_before():
    rng = np.random.default_rng(0)
    sexes = ["f", "m"] * 30
    voices = rng.normal(size=(60, 32)) + np.array([2.0, -2.0] * 30)[:, None] * np.eye(32)[0]
    assert cross_validate(voices, sexes).mean() > 0.9
    assert cross_validate(rng.normal(size=(60, 32)), sexes).mean() < 0.75


def test_altered_photos():
    variants = altered(PORTRAIT)
    assert len(variants) == 5
    assert all(v.dtype == np.uint8 and v.shape[2] == 3 for v in variants.values())
    assert variants["cropped"].shape[0] < variants["mirrored"].shape[0]


# ---- Speech2Face


def test_speech2face_figures():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(40, 16))
    near = speech2face.measure(true + 0.1 * rng.normal(size=true.shape), true).figures
    assert near["feature_cosine"].value > 0.95 > abs(near["feature_cosine"].chance)
    assert near["retrieval_at_1"].value == 1.0
    assert near["feature_l1"].value < near["feature_l1"].chance
    far = speech2face.measure(rng.normal(size=true.shape), true, sexes=("fm", "ff"), ages=([30, 50], [40, 50])).figures
    assert far["retrieval_at_10"].chance == 0.25
    assert far["retrieval_at_10"].value == pytest.approx(0.25, abs=0.2)
    assert far["sex_agreement"].value == 0.5
    assert far["age_off"].value == 5.0
    assert speech2face.retrieval_ranks(np.ones((3, 2)), np.ones((3, 2))).tolist() == [2, 2, 2]


def test_landmark_ratios():
    points = np.random.default_rng(0).random((20, 68, 2))
    ratios = speech2face.landmark_ratios(points)
    assert ratios.shape == (20, 4)
    assert speech2face.landmark_ratios(points * 3 + 1) == pytest.approx(ratios)
    same = speech2face.measure(np.eye(20), np.eye(20), landmarks=(points, points)).figures
    assert same["landmark_ratio_correlation"].value == pytest.approx(1)


# ---- plots


def test_plots_escape_and_bear_gaps():
    figure = figures.Figure(0.5, 0.4, 0.6, 10, "people", 0.5)
    drawn = intervals([("<b>", 0, figure), ("b", 1, figures.share([], "people"))], aim=0.9)
    assert drawn.count("<circle") == 1
    assert "&lt;b&gt;" in drawn
    assert intervals([("a", 0, figures.share([], "people"))]) == ""
    assert scatter([(1.0, 5.0, 0, "one & only"), (None, 1.0, 0, "")], "x", "y").count("<circle") == 1
    assert scatter([], "x", "y") == ""


# ---- the whole, on a stub


class Buzzer:
    """Stands in for `Face2Voice`: says every text as a buzz of as many syllables' length."""

    def __init__(self, folder: Path):
        self.bundle = Bundle("buzzer", folder)
        self.device = torch.device("cpu")

    def warm_up(self, vocoder: str) -> None:
        pass

    def voice_from_face(self, photo) -> Voice:
        woman = isinstance(photo, Path) and "f" in photo.stem
        return Voice(np.eye(256)[int(woman)] + 0.01, str(photo))

    def speak(self, text: str, voice: Voice, seed: int, vocoder: str) -> Speech:
        samples = buzz(200.0 if voice.embedding[1] > 0.5 else 120.0, 0.1 + 0.02 * len(text))
        mel = np.zeros((80, len(samples) // 200), np.float32)
        attended = np.eye(len(text), dtype=np.float32).repeat(2, axis=0)
        return Speech(samples, mel, (attended,), (text,), False, {"synthesizer": 0.01, "vocoder": 0.02})


@pytest.fixture
def stub(tmp_path):
    """A stub bundle, a judge that tells pitch, and people."""
    people = []
    for number in range(4):
        photo = tmp_path / f"{'fm'[number % 2]}{number}.jpg"
        shutil.copy(PORTRAIT, photo)
        people.append(Portrait(photo, "fm"[number % 2], 40.0 + number, True))

    def embed(clip):
        pitch = np.abs(np.fft.rfft(clip[0], RATE))[60:400].argmax() + 60
        return np.array([pitch < 160, pitch >= 160], np.float32)

    return Buzzer(tmp_path), Judge("pitch <alone>", SimpleNamespace(embed=embed)), Material(people)


def test_report_of_a_stub(stub):
    tts, judge, found = stub
    settings = Settings(
        sentences=1, voices=2, people=4, varied=2, long_text=100, natural=0, vocoder="griffin-lim",
        parts=("intelligibility", "voices", "pairs", "sound", "attention", "speech2face", "speed"),
    )  # fmt: skip
    shares = []
    results = evaluate({"one <&> only": tts, "other": tts}, found, settings, judge, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    told = json.loads(to_json(results), parse_constant=pytest.fail)
    for name in ("one <&> only", "other"):
        measured = {part: section["figures"] for part, section in told["bundles"][name].items()}
        assert measured["voices"]["sex_agreement"]["value"] == 1.0
        assert measured["voices"]["median_f0_men"]["value"] == pytest.approx(120, rel=0.02)
        assert measured["attention"]["attention_failures"]["value"] == 0
        assert measured["sound"]["clipped_share"]["value"] == 0
        assert measured["speed"]["real_time_factor"]["value"] > 0
        assert measured["intelligibility"]["word_error_rate"]["value"] > 0.5
    assert [person["photo"] for person in told["about"]["people"]] == ["f0.jpg", "m1.jpg", "f2.jpg", "m3.jpg"]
    assert told["about"]["harvard_sentences"] == list(harvard_sentences()[:1])
    page = to_html(results)
    assert "one &lt;&amp;&gt; only" in page
    assert "<alone>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "data:audio/ogg;base64," in page
    assert page.count("<svg") == page.count("</svg>") > 10
    check_nesting(page)


def check_nesting(page: str) -> None:
    stack = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br"):
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Checker().feed(page)
    assert not stack


def test_pairs_of_a_stub(stub, tmp_path):
    tts, judge, found = stub
    together = tmp_path / "all.wav"  # two seconds of each person
    soundfile.write(together, np.concatenate([buzz(f0, 2.0) for f0 in (210.0, 130.0, 190.0, 110.0)]), RATE)
    pairs = [
        Utterance(together, None, p.photo.stem, p.sex, faces=(p.photo, p.photo), span=(2.0 * i, 2.0 * i + 2.0))
        for i, p in enumerate(found.people)
    ]
    pairs.append(Utterance(tmp_path / "none.wav", speaker="x", sex="f", faces=(found.people[0].photo,)))
    results = evaluate({"b": tts}, Material(found.people, pairs=pairs), Settings(parts=("pairs",)), judge)
    measured = results.bundles["b"]["pairs"].figures
    assert measured["secs"].value == 1.0
    assert measured["secs_margin"].value == pytest.approx(2 / 3)
    assert measured["secs_margin_same_sex"].value == 0.0
    assert measured["f0_off"].value == pytest.approx(12 * np.mean(np.abs(np.log2(
        [200 / 210, 120 / 130, 200 / 190, 120 / 110]))), abs=0.2)  # fmt: skip
    assert measured["stability_over_photos"].value == pytest.approx(1)
    assert "STAND-IN" not in " ".join(results.bundles["b"]["pairs"].notes)


def test_copies_of_an_original(monkeypatch):
    monkeypatch.setattr(sound, "read_clip", lambda utterance, seconds: buzz(120, 1.0))
    section = sound.measure_copies(
        lambda samples: samples * 0.5, [Utterance(Path("a.flac")), Utterance(Path("b.flac"))]
    )
    assert section.figures["mel_cepstral_distortion_13"].value == pytest.approx(0, abs=1e-3)
    assert section.figures["f0_error"].value == pytest.approx(0, abs=0.1)
    assert "a.flac, b.flac" in section.notes[0]


def test_words_in_copies(monkeypatch):
    heard = iter(["one two", "one too", "four", "five"])
    monkeypatch.setattr(intelligibility, "recognise", lambda samples: next(heard))
    said = [("a", "one two three", None, buzz(120)), ("b", "four", None, buzz(120))]
    found = sound.measure_copied_words(lambda samples: samples, said)
    assert found.figures["copied_word_error_ratio"].value == (2 + 1) / (1 + 0)
    assert found.figures["word_error_rate_of_originals"].value == 0.25
    assert "25%" in found.notes[0]
    assert not sound.measure_copied_words(lambda samples: samples, []).figures


# ---- material and the command


def write_members(folder: Path, count: int = 60) -> None:
    rows = [f"{i:06d},{'FM'[i % 2]},1950,2000,wiki,images/{i:06d}.jpg" for i in range(count)]
    (folder / "members.csv").write_text("icpsr,sex,birth_year,photo_year_approx,source,image\n" + "\n".join(rows))


def test_material(tmp_path):
    write_members(tmp_path)
    assert [p.sex for p in find_material(None, 4, tmp_path).people] == ["f", "m"] * 2
    with pytest.raises(InputError, match="asked for"):
        find_material(None, 60, tmp_path)
    with pytest.raises(InputError, match="members.csv"):
        find_material(tmp_path, 4)
    with pytest.raises(InputError, match="--data"):
        find_material(None, 4)
    manifest = tmp_path / "pairs.jsonl"
    clips = [Utterance(tmp_path / f"{name}.wav", speaker=name, sex="f") for name in "ab"]
    photos = [Utterance(speaker=name, faces=(tmp_path / f"{name}.jpg",), age=9.0) for name in "abc"]
    write_manifest(manifest, [*clips, *photos])
    pairs = find_material(None, 2, tmp_path, manifest).pairs
    assert [(p.speaker, p.audio.name, p.faces[0].name, p.age) for p in pairs] == [
        ("a", "a.wav", "a.jpg", 9.0),
        ("b", "b.wav", "b.jpg", 9.0),
    ]
    assert find_material(None, 0, None, manifest).people == ()
    write_manifest(manifest, photos)
    with pytest.raises(InputError, match="both a clip and a photo"):
        find_material(None, 2, tmp_path, manifest)


def test_everyone_left_is_taken_when_one_sex_is_used_up(tmp_path):
    write_members(tmp_path)
    everyone = [p for p in material.read_voteview(tmp_path) if p.held_out]
    chosen = material.held_out(tmp_path, len(everyone))
    assert sorted(p.photo for p in chosen) == sorted(p.photo for p in everyone)


def test_parts_are_checked():
    with pytest.raises(InputError, match="smell"):
        Settings(parts=("smell",))
    assert QUICK.sentences < Settings().sentences


def test_command_fails_early(tmp_path, monkeypatch):
    from face2voice.commands.evaluate import evaluate as command

    app = typer.Typer()
    app.command()(command)
    (tmp_path / "taken").touch()
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    for arguments, named in (
        (["-o", str(tmp_path / "taken")], "taken"),
        (["-o", str(tmp_path / "r"), "--data", str(tmp_path / "nowhere"), "--only", "speed"], "nowhere"),
        (["-o", str(tmp_path / "r"), "--data", str(tmp_path), "--only", "smell"], "smell"),
    ):
        with pytest.raises(InputError, match=named):
            app(arguments, standalone_mode=False)
    assert not (tmp_path / "r").exists()
