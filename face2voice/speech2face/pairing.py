"""Which clip of speech is shown which face: tables (clips, faces) whose rows sum to 1, or to 0 where
a clip is left out.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import scipy.sparse

Mode = Literal["one-to-one", "all-to-one", "all-to-all"]
MODES: tuple[Mode, ...] = get_args(Mode)
_OUT_OF_THE_QUESTION = 1e-12


def pair_people(clips: Sequence[str], faces: Sequence[str], mode: Mode = "all-to-all") -> scipy.sparse.csr_array:
    """Clips and photos of the same people.

    Args:
        clips, faces: whose each is.
        mode: "one-to-one": a person's first clip with the first photo, the second with the second,
            as far as both last. "all-to-one": every clip with the first photo. "all-to-all": every
            clip with every photo.

    Returns:
        (clips, faces) float32, sparse: there may be millions of each.
    """
    if mode not in MODES:
        raise ValueError(f"no pairing {mode!r}: choose {', '.join(MODES[:-1])} or {MODES[-1]}")
    photos: dict[str, list[int]] = {}
    for i, person in enumerate(faces):
        photos.setdefault(person, []).append(i)
    used: dict[str, int] = {}
    shown: list[int] = []
    ends = [0]
    for person in clips:
        own = photos.get(person, [])
        number = used.get(person, 0)
        used[person] = number + 1
        if mode == "one-to-one":
            own = own[number : number + 1]
        elif mode == "all-to-one":
            own = own[:1]
        shown += own
        ends.append(len(shown))
    counts = np.diff(ends)
    shares = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
    return scipy.sparse.csr_array((shares, shown, ends), shape=(len(clips), len(faces)))


def pair_by_sex_and_age(
    clips: Sequence[tuple[str | None, float | None]],
    faces: Sequence[tuple[str | None, float | None]],
    width: float = 8.0,
) -> np.ndarray:
    """Clips with the faces of people like their speakers: of the same sex, and about as old.

    What is unknown (None) of a clip or face does not count; a clip of unknown sex is left out.

    Args:
        clips, faces: (sex, age in years) of each.
        width: years, the standard deviation of the difference in age.

    Returns:
        (clips, faces) float32.
    """
    sexes = np.array([sex for sex, _ in faces])
    ages = np.array([np.nan if age is None else age for _, age in faces])
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(clips))}  # few, however many the clips
    rows = np.zeros((len(kinds), len(faces)), np.float32)
    for (sex, age), i in kinds.items():
        if sex is None:
            continue
        apart = np.nan_to_num((ages - (np.nan if age is None else age)) / width)
        suits = (sexes == sex) * (np.exp(-0.5 * apart**2) + _OUT_OF_THE_QUESTION)
        rows[i] = suits / max(suits.sum(), _OUT_OF_THE_QUESTION)
    return rows[[kinds[clip] for clip in clips]]
