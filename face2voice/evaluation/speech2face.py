"""How much of a face Speech2Face reads off a voice, as its paper measures it (Oh et al., 2019, section 4)."""

from collections.abc import Sequence

import numpy as np

from .figures import Figure, Section, estimate, mean, share

RANKS = (1, 2, 5, 10)


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
