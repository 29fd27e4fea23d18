"""Which clip of speech is shown which face: tables (clips, faces) whose rows sum to 1, or to 0 where
a clip is left out.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Mode = Literal["one-to-one", "all-to-one", "all-to-all"]
_OUT_OF_THE_QUESTION = 1e-12


def pair_people(clips: Sequence[str], faces: Sequence[str], mode: Mode = "all-to-all") -> np.ndarray:
    """Clips and photos of the same people.

    Args:
        clips, faces: whose each is.
        mode: "one-to-one": a person's first clip with the first photo, the second with the second,
            as far as both last. "all-to-one": every clip with the first photo. "all-to-all": every
            clip with every photo.

    Returns:
        (clips, faces) float32.
    """
    if mode not in ("one-to-one", "all-to-one", "all-to-all"):
        raise ValueError(f"no pairing {mode!r}: choose one-to-one, all-to-one or all-to-all")
    table = np.zeros((len(clips), len(faces)), np.float32)
    photos: dict[str, list[int]] = {}
    for i, person in enumerate(faces):
        photos.setdefault(person, []).append(i)
    used: dict[str, int] = {}
    for i, person in enumerate(clips):
        own = photos.get(person, [])
        number = used.get(person, 0)
        used[person] = number + 1
        if mode == "one-to-one":
            own = own[number : number + 1]
        elif mode == "all-to-one":
            own = own[:1]
        table[i, own] = 1 / max(len(own), 1)
    return table


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
    table = np.zeros((len(clips), len(faces)))
    for i, (sex, age) in enumerate(clips):
        if sex is None:
            continue
        for j, (other_sex, other_age) in enumerate(faces):
            if sex != other_sex:
                continue
            apart = 0.0 if age is None or other_age is None else (age - other_age) / width
            table[i, j] = np.exp(-0.5 * apart**2) + _OUT_OF_THE_QUESTION
    return (table / np.maximum(table.sum(axis=1, keepdims=True), _OUT_OF_THE_QUESTION)).astype(np.float32)
