"""How much of a face Speech2Face reads off a voice, as its paper measures it (Oh et al., 2019, section 4)."""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from encoder.audio import SAMPLE_RATE
from face2voice.corpora import Utterance
from face2voice.recipes.sources import Portrait
from face2voice.speech2face import Speech2Face
from face2voice.speech2face.judges import Score, linear_score, sex_classifier
from savedmodels import InputError

from .figures import Figure, Section, estimate, mean, share
from .material import read_clip

log = logging.getLogger(__name__)

RANKS = (1, 2, 5, 10)


@dataclasses.dataclass(frozen=True)
class Judges:
    """Read sex and age off the features of faces, linearly, as portraits of known people taught them.

    Attributes:
        sex: see `sex_classifier`.
        age: features (B, feature) -> years (B,).
    """

    sex: Score
    age: Score

    @classmethod
    def learn(cls, s2f: Speech2Face, portraits: Sequence[Portrait]) -> "Judges":
        """From portraits of which sex and age are known."""
        features, people = [], []
        for portrait in portraits:
            with contextlib.suppress(InputError):  # no face was found
                features.append(s2f.feature_from_face(portrait.photo))
                people.append(portrait)
        features = np.array(features)
        aged = [i for i, person in enumerate(people) if person.age is not None]
        ages = linear_score(features[aged], np.array([people[i].age for i in aged], float))
        return cls(sex_classifier(features, [person.sex for person in people]), ages)


def measure_portraits(s2f: Speech2Face, clips: Sequence[Utterance], judges: Judges) -> Section:
    """Whether the portrait of a voice is of the speaker's sex.

    Args:
        clips: of known sex.
    """
    rows = []
    for clip in clips:
        samples = read_clip(clip)
        if samples is None:
            continue
        try:
            portrait = s2f.portrait_from_speech((samples, SAMPLE_RATE))
        except InputError as error:
            log.warning("%s: %s", clip.audio, error)
            continue
        score = float(judges.sex(torch.from_numpy(s2f.describe(portrait.image))[None]))
        rows.append(
            {"clip": clip.audio.name, "sex": clip.sex, "score": score, "right": (score > 0) == (clip.sex == "f")}
        )
    return Section({"portrait_sex_agreement": share([row["right"] for row in rows], "speakers", 0.5)}, rows)


def measure_face_to_face(s2f: Speech2Face, photos: Sequence[Path]) -> Section:
    """What of a face is left in the portrait made from its feature: cosine of the features of photo and
    portrait, and how often the own photo is among the nearest to a portrait."""
    before, after = [], []
    for photo in photos:
        try:
            feature = s2f.feature_from_face(photo)
        except InputError as error:
            log.warning("%s", error)
            continue
        before.append(feature)
        after.append(s2f.describe(s2f.portrait(feature).image))
    figures = measure(np.array(after), np.array(before)).figures
    wanted = ("feature_cosine", *(name for name in figures if name.startswith("retrieval")))
    return Section({f"face_to_face_{name.removeprefix('feature_')}": figures[name] for name in wanted})


def measure_pairs(s2f: Speech2Face, pairs: Sequence[Utterance], judges: Judges | None) -> Section:
    """How near the face that a clip gives comes to the speaker's own, and the portrait to its sex and age.

    Args:
        pairs: a clip of a person and a photo, one for each person.
        judges: of the portraits; without them, nothing is told of sex and age.
    """
    people, features = [], []
    for pair in pairs:
        samples = read_clip(pair)
        if samples is None:
            continue
        try:
            features.append((s2f.feature_from_speech((samples, SAMPLE_RATE)), s2f.feature_from_face(pair.faces[0])))
        except InputError as error:
            log.warning("%s, %s: %s", pair.audio, pair.faces[0], error)
            continue
        people.append(pair)
    if not people:
        return Section(notes=["No pair could be measured: no face was found, or no speech heard."])
    heard, seen = (np.stack(side) for side in zip(*features, strict=True))
    of_clips, of_photos = ([s2f.portrait(feature) for feature in side] for side in (heard, seen))
    landmarks = tuple(np.stack([portrait.landmarks for portrait in side]) for side in (of_clips, of_photos))
    if not judges:
        return measure(heard, seen, landmarks)
    shown = torch.from_numpy(np.stack([s2f.describe(portrait.image) for portrait in of_clips]))
    women, ages = judges.sex(shown) > 0, judges.age(shown)
    read = [(("m", "f")[int(woman)], person.sex) for woman, person in zip(women, people, strict=True)]
    read_ages = [(float(age), person.age) for age, person in zip(ages, people, strict=True)]
    known = ([pair for pair in both if pair[1] is not None] for both in (read, read_ages))
    return measure(heard, seen, landmarks, *(tuple(zip(*both, strict=True)) or None for both in known))


def measure(
    predicted: np.ndarray,
    true: np.ndarray,
    landmarks: tuple[np.ndarray, np.ndarray] | None = None,
    sexes: tuple[Sequence[str], Sequence[str]] | None = None,
    ages: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Section:
    """Figures over people, the i-th clip and the i-th face being of one person.

    Args:
        predicted, true: (n, features), of the clips and of the faces.
        landmarks: of the portraits made of clips and of those made of photos, (n, points, 2) each.
        sexes: read off the portraits and known.
        ages: likewise, years.
    """
    n = len(true)
    similar = cosines(predicted, true)
    shuffled = float(similar[~np.eye(n, dtype=bool)].mean()) if n > 1 else None
    figures = {"feature_cosine": mean(np.diag(similar), of="people", chance=shuffled)}
    for name, order in (("l1", 1), ("l2", 2)):
        apart = np.stack([np.linalg.norm(unit(true) - face, order, axis=1) for face in unit(predicted)])
        others = float(apart[~np.eye(n, dtype=bool)].mean()) if n > 1 else None
        figures[f"feature_{name}"] = mean(np.diag(apart), of="people", chance=others)
    ranks = retrieval_ranks(predicted, true)
    for rank in RANKS:
        if rank < n:
            figures[f"retrieval_at_{rank}"] = share(ranks < rank, "people", rank / n)
    if landmarks:
        ratios = [landmark_ratios(points) for points in landmarks]
        figures["landmark_ratio_correlation"] = _ratio_correlation(*ratios)
    if sexes:
        figures["sex_agreement"] = share([one == other for one, other in zip(*sexes, strict=True)], "people", 0.5)
    if ages:
        off = np.abs(np.subtract(*ages))
        chance = float(np.abs(np.subtract.outer(*map(np.asarray, ages))).mean())
        figures["age_off"] = mean(off, of="people", chance=chance, unit="years")
    return Section(figures, notes=["L1 and L2: distances of features of unit length. By chance: another person's."])


def unit(features: np.ndarray) -> np.ndarray:
    """(n, features) at unit length."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def cosines(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(n, features) and (m, features) -> (n, m)."""
    return unit(queries) @ unit(gallery).T


def retrieval_ranks(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """How many of the gallery are nearer, by cosine, to query i than its own item i: (n,), 0 is the first."""
    similar = cosines(queries, gallery)
    own = np.diag(similar)[:, None]
    return (similar > own).sum(axis=1) + ((similar == own).sum(axis=1) - 1)  # ties are lost


def landmark_ratios(landmarks: np.ndarray) -> np.ndarray:
    """Proportions of faces, (n, points, 2) in the 68-point scheme -> (n, 4): the height of the face, the
    width of the nose, of the mouth and of the jaw, over the distance between the eyes."""
    between = np.linalg.norm(landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1), axis=1)
    spans = [(27, 8), (31, 35), (48, 54), (4, 12)]
    lengths = [np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1) for a, b in spans]
    return np.stack(lengths, axis=1) / between[:, None]


def _ratio_correlation(one: np.ndarray, other: np.ndarray) -> Figure:
    """Pearson's correlation over people, the mean of the ratios."""

    def correlation(index: np.ndarray) -> float:
        pairs = zip(one[index].T, other[index].T, strict=True)
        values = [np.corrcoef(a, b)[0, 1] for a, b in pairs if a.std() > 0 and b.std() > 0]
        return float(np.mean(values)) if values else float("nan")

    return estimate(correlation, len(one), "people", chance=0.0)
