"""Whether a voice suits its face: sex, age, who it is; and whether voices differ as people do."""

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import comb

from face2voice.corpora import Utterance
from face2voice.recipes.sources import Portrait
from face2voice.speech2face.judges import Score
from savedmodels import InputError

from .figures import Figure, Player, Section, estimate, mean, median, pairwise, rank_correlation, share
from .judge import Judge, classify_sex, cross_validate
from .material import read_clip
from .sound import median_f0, syllable_count
from .takes import Subject, altered
from .texts import harvard_sentences

MEN_BELOW, WOMEN_ABOVE = 155.0, 165.0  # Hz, median F0 that is heard as the right sex
REAL_SECONDS = 8.0  # of each real speaker
WAYS = 5  # of the matching
_PAIR_TEXT = " ".join(harvard_sentences()[:2])
_CHILD = 14  # years, below it
_FEWEST_TO_CLASSIFY = 10  # real women, and men
_OTHER_PHOTOS = 5  # of a person, at most
_UNKNOWN_AGE = 15.0  # years that an unknown age counts as being off


@dataclasses.dataclass(frozen=True)
class RealSpeaker:
    """A real person's voice.

    Attributes:
        halves: (2, embedding), of the clip's two halves.
    """

    utterance: Utterance
    samples: np.ndarray
    halves: np.ndarray

    @property
    def voice(self) -> np.ndarray:
        """(embedding,) unit length."""
        return _unit(self.halves.sum(axis=0))


def listen(utterances: Sequence[Utterance], judge: Judge) -> list[RealSpeaker]:
    """Real speakers as the judge hears them; clips without speech are left out."""
    heard = []
    for utterance in utterances:
        samples = read_clip(utterance, REAL_SECONDS)
        if samples is None:
            continue
        halves = [judge.embed(half) for half in np.array_split(samples, 2)]
        if all(half is not None for half in halves):
            heard.append(RealSpeaker(utterance, samples, np.stack(halves)))
    return heard


def measure(subject: Subject, judge: Judge, real: Sequence[RealSpeaker]) -> Section:
    """Sex, age, diversity and stability over portraits of known sex and age.

    Args:
        real: speakers of known sex, on whom the classifier of sex is trained.
    """
    takes = subject.portraits
    classifier, theirs = _classifier(real), _voices_by_sex(real)
    rows, spoken = [], []
    for take in takes:
        samples, voice = take.speech.samples, judge.embed(take.speech.samples)
        f0 = median_f0(samples)
        woman = take.portrait.sex == "f"
        spoken.append(voice)
        rows.append(
            {
                "photo": take.portrait.photo.name,
                "sex": take.portrait.sex,
                "age": take.portrait.age,
                "f0": round(f0, 1),
                "right": bool(f0 > WOMEN_ABOVE if woman else f0 < MEN_BELOW),
                "classified_right": None
                if classifier is None or voice is None
                else bool((classifier(torch.from_numpy(voice)) > 0) == woman),
                "syllables_per_second": syllable_count(" ".join(take.speech.texts)) / take.speech.duration,
            }
        )
    figures = {"sex_agreement": share([row["right"] for row in rows], "people", 0.5)}
    classified = [row["classified_right"] for row in rows if row["classified_right"] is not None]
    if classified:
        figures["sex_agreement_classifier"] = share(classified, "people", 0.5)
    for sex, name in (("f", "women"), ("m", "men")):
        some = [i for i, row in enumerate(rows) if row["sex"] == sex]
        of = [rows[i] for i in some]
        ages = [np.nan if row["age"] is None else row["age"] for row in of]
        predicted = np.stack([subject.voice(takes[i].portrait).embedding for i in some]) if some else np.zeros((0, 1))
        heard = [spoken[i] for i in some if spoken[i] is not None]
        figures |= {
            f"sex_agreement_{name}": share([row["right"] for row in of], name, 0.5),
            f"median_f0_{name}": median([row["f0"] for row in of], name, unit="Hz"),
            f"age_with_f0_{name}": rank_correlation(ages, [row["f0"] for row in of], name),
            f"diversity_{name}": diversity(np.array(heard), name),
            f"likeness_{name}": likeness(np.array(heard), theirs[sex], theirs["m" if sex == "f" else "f"], name),
            f"diversity_of_embeddings_{name}": diversity(predicted, name),
        }
    rates = [row["syllables_per_second"] for row in rows]
    figures["age_with_rate"] = rank_correlation(
        [np.nan if row["age"] is None else row["age"] for row in rows], rates, "people"
    )
    stability, steady = _stability(subject)
    figures |= stability
    notes = [
        f"Sex agreement: median F0 below {MEN_BELOW:.0f} Hz for men, above {WOMEN_ABOVE:.0f} Hz for women; the "
        f"classifier is a linear discriminant on GE2E embeddings of {len(real)} real speakers.",
        "Age with F0 and with syllables a second: Spearman's correlation. Diversity: 1 - cosine between people of "
        "one sex, of their speech as the judge hears it, and of the embeddings that the faces gave. Likeness: cosine "
        "of what is spoken to real speakers of the same sex; by chance: of the other. Strangers' voices: who hears a "
        "face's sex alone comes no nearer to its owner's, and half of the lead over chance is the margin to expect.",
        "Stability: cosine of the voices of altered photos (mirrored, turned by 6 degrees, cropped, darker) to the "
        "unaltered; of these people there is one photo each (for several of one person see the part pairs). By chance: "
        "other people of the same sex.",
    ]
    players = [Player(_who(take.portrait), take.speech.samples) for take in takes[:8]]
    return Section(figures, [*rows, *steady], notes, players)


def measure_real(real: Sequence[RealSpeaker]) -> Section:
    """Pitch, sex and diversity of real speakers."""
    women = np.array([speaker.utterance.sex == "f" for speaker in real])
    voices = np.array([speaker.voice for speaker in real])
    figures: dict[str, Figure] = {}
    if _classifier(real):
        right = cross_validate(voices, [speaker.utterance.sex for speaker in real])
        figures["sex_agreement_classifier"] = share(right, "people", 0.5)
    f0 = np.array([median_f0(speaker.samples[: 16_000 * 4]) for speaker in real])
    by_pitch = np.where(women, f0 > WOMEN_ABOVE, f0 < MEN_BELOW)
    figures["sex_agreement"] = share(by_pitch, "people", 0.5)
    for which, name in ((women, "women"), (~women, "men")):
        figures[f"median_f0_{name}"] = median(f0[which], name, unit="Hz")
        figures[f"diversity_{name}"] = diversity(voices[which], name)
        figures[f"likeness_{name}"] = likeness(voices[which], voices[which], voices[~which], name)
    rows = [
        {"speaker": speaker.utterance.speaker, "sex": speaker.utterance.sex, "f0": float(pitch)}
        for speaker, pitch in zip(real, f0, strict=True)
    ]
    return Section(figures, rows)


def measure_halves(real: Sequence[RealSpeaker]) -> Section:
    """How near real people come to themselves: the first half of each clip against the second."""
    halves = np.stack([speaker.halves for speaker in real])
    figures = matching_figures(halves[:, 0] @ halves[:, 1].T, [s.utterance.sex for s in real])
    note = "Real speakers: two halves of one clip, which share a microphone too. No made voice can come as near."
    return Section(figures, notes=[note])


def measure_pairs(subject: Subject, judge: Judge, pairs: Sequence[tuple[Portrait, RealSpeaker]]) -> Section:
    """How near the voice of each face comes to its owner's; and how near voices of a person's other photos,
    where the speaker's record has some, come to the first one's.

    Args:
        pairs: a face and the real speaker it belongs to, one for each person.
    """
    rows, made, real = [], [], []
    for portrait, speaker in pairs:
        if not subject.voice(portrait):
            continue
        take = subject.say(_PAIR_TEXT, portrait)
        voice = judge.embed(take.speech.samples)
        if voice is None:
            continue
        made.append(voice)
        real.append(speaker.voice)
        rows.append(
            {
                "photo": portrait.photo.name,
                "speaker": speaker.utterance.speaker,
                "sex": speaker.utterance.sex,
                "age": portrait.age,
                "f0": median_f0(take.speech.samples),
                "real_f0": median_f0(speaker.samples[: 16_000 * 4]),
            }
        )
    if not rows:
        return Section(notes=["No pair could be measured: no face was found, or no speech heard."])
    similarity = np.array(made) @ np.array(real).T
    for row, own in zip(rows, np.diag(similarity), strict=True):
        row["secs"] = float(own)
    f0, real_f0 = (np.array([row[key] for row in rows]) for key in ("f0", "real_f0"))
    apart = np.abs(12 * np.log2(f0[:, None] / real_f0))
    figures = matching_figures(similarity, [row["sex"] for row in rows])
    others = apart[~np.eye(len(rows), dtype=bool)]
    chance = float(np.nanmean(others)) if np.isfinite(others).any() else None
    figures["f0_off"] = mean(np.diag(apart), of="people", chance=chance, unit="semitones")
    children = [row["f0"] for row in rows if row["age"] is not None and row["age"] < _CHILD]
    if children:
        figures["median_f0_children"] = median(children, "children", unit="Hz")
    return Section(figures | _stability_over_photos(subject, pairs), rows)


def matching_figures(similarity: np.ndarray, sexes: Sequence[str | None]) -> dict[str, Figure]:
    """What a table of cosines tells of who is who.

    Args:
        similarity: (n, n), the made voice of person i to the real one of person j.
        sexes: (n,), of each.
    """
    n = len(similarity)
    own, others = np.diag(similarity), ~np.eye(n, dtype=bool)
    sexes = np.array([sex or "" for sex in sexes])
    alike = others & (sexes[:, None] == sexes) & (sexes != "")
    to_others = float(similarity[others].mean()) if n > 1 else None
    figures = {"secs": mean(own, of="people", chance=to_others)}
    for name, which in (("secs_margin", others), ("secs_margin_same_sex", alike)):
        counts = which.sum(axis=1)
        known = counts > 0
        margins = own[known] - (similarity * which).sum(axis=1)[known] / counts[known]
        figures[name] = mean(margins, of="people", chance=0.0)
    if n >= WAYS:
        figures[f"matching_{WAYS}_way"] = mean(matching(similarity, WAYS), of="people", chance=1 / WAYS)
    return figures


def matching(similarity: np.ndarray, ways: int = WAYS) -> np.ndarray:
    """How likely each made voice is nearest to its own person among him and ways - 1 others, over all
    choices of others: (n, n) cosines -> (n,). Ties are lost."""
    n = len(similarity)
    nearer = (similarity >= np.diag(similarity)[:, None]).sum(axis=1) - 1
    return comb(n - 1 - nearer, ways - 1) / comb(n - 1, ways - 1)


def diversity(voices: np.ndarray, of: str) -> Figure:
    """Mean 1 - cosine between different people: (n, embedding), unit length."""
    distances = 1 - voices @ voices.T if len(voices) else np.zeros((0, 0))
    return estimate(lambda i: pairwise(distances, i), len(voices), of)


def likeness(voices: np.ndarray, alike: np.ndarray, others: np.ndarray, of: str) -> Figure:
    """Mean cosine to other real people of one's sex; by chance, to those of the other sex: all (n, embedding),
    unit length. Who is among them is not compared with himself."""
    if not (len(voices) and len(alike) and len(others)):
        return mean([], of=of)
    cosines = voices @ alike.T
    own = (voices[:, None] == alike).all(axis=2)
    return mean(np.nanmean(np.where(own, np.nan, cosines), axis=1), of=of, chance=float((voices @ others.T).mean()))


def match_by_sex_and_age(people: Sequence[Portrait], speakers: Sequence[RealSpeaker]) -> list:
    """A stand-in for true pairs: each face with a speaker of its sex and about its age, nobody twice."""
    left = list(speakers)
    pairs = []
    for portrait in people:
        alike = [s for s in left if s.utterance.sex == portrait.sex]
        if alike:
            nearest = min(alike, key=lambda s: _age_apart(s.utterance.age, portrait.age))
            left.remove(nearest)
            pairs.append((portrait, nearest))
    return pairs


def _who(portrait: Portrait) -> str:
    age = "" if portrait.age is None else f", {portrait.age:.0f} years"
    return f"{portrait.sex}{age}, {portrait.photo.stem}"


def _age_apart(one: float | None, other: float | None) -> float:
    return _UNKNOWN_AGE if one is None or other is None else abs(one - other)


def _stability(subject: Subject, people: int = 20) -> tuple[dict[str, Figure], list[dict]]:
    """Cosine of altered photos' voices to the unaltered one's."""
    rows, voices = [], []
    for portrait in subject.first(people):
        voice = subject.voice(portrait)
        voices.append((portrait.sex, voice.embedding))
        for name, pixels in altered(portrait.photo).items():
            try:
                other = subject.tts.voice_from_face(pixels)
            except InputError:
                continue
            rows.append({"photo": portrait.photo.name, "altered": name, "cosine": voice.similarity(other)})
    cosines, whose = [row["cosine"] for row in rows], [row["photo"] for row in rows]
    of = f"altered photos of {len(voices)} people"
    return {"stability": mean(cosines, whose, of=of, chance=_between_people(voices))}, rows


def _stability_over_photos(subject: Subject, pairs: Sequence[tuple[Portrait, RealSpeaker]]) -> dict[str, Figure]:
    """Cosine of the voices of people's other photos to the voice of the first; empty if nobody has others."""
    cosines, whose, voices = [], [], []
    for portrait, speaker in pairs:
        voice = subject.voice(portrait)
        if not voice:
            continue
        voices.append((portrait.sex, voice.embedding))
        for photo in speaker.utterance.faces[1 : 1 + _OTHER_PHOTOS]:
            with contextlib.suppress(InputError):  # no face is found
                cosines.append(voice.similarity(subject.tts.voice_from_face(photo)))
                whose.append(speaker.utterance.speaker)
    if not cosines:
        return {}
    of = f"other photos of {len(set(whose))} people"
    return {"stability_over_photos": mean(cosines, whose, of=of, chance=_between_people(voices))}


def _between_people(voices: Sequence[tuple[str | None, np.ndarray]]) -> float | None:
    """Mean cosine between two people of one sex; None if there are no two."""
    cosines = [float(a @ b) for i, (sex, a) in enumerate(voices) for other, b in voices[:i] if sex == other]
    return float(np.mean(cosines)) if cosines else None


def _classifier(real: Sequence[RealSpeaker]) -> Score | None:
    sexes = [speaker.utterance.sex for speaker in real]
    if min(sexes.count("f"), len(sexes) - sexes.count("f")) < _FEWEST_TO_CLASSIFY:
        return None
    return classify_sex(np.array([speaker.voice for speaker in real]), sexes)


def _voices_by_sex(real: Sequence[RealSpeaker]) -> dict[str, np.ndarray]:
    return {sex: np.array([speaker.voice for speaker in real if speaker.utterance.sex == sex]) for sex in "fm"}


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(np.linalg.norm(vector), 1e-9)
