"""A measured value and how sure it is."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

_DRAWS = 1000
_Z = 1.959964  # of a normal distribution, 95 % within


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        value: NaN where nothing could be measured.
        low, high: 95 % confidence interval; NaN where there was only one to measure.
        n: on how many it was measured.
        of: what these are.
        chance: what would come out by chance, where that is known.
        unit: of all of these; "" for shares of 1 and the like.
    """

    value: float
    low: float
    high: float
    n: int
    of: str
    chance: float | None = None
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Player:
    """A sound to listen to.

    Attributes:
        samples: float32 (n,) in [-1, 1], 16 kHz.
    """

    label: str
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Section:
    """What one part of the evaluation found out about one bundle, or about what it is compared with.

    Attributes:
        figures: by name, words joined by underscores.
        rows: every single observation, plain values.
        notes: what a reader must know to take the figures for what they are.
        players: sounds to listen to.
    """

    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    rows: Sequence[dict] = ()
    notes: Sequence[str] = ()
    players: Sequence[Player] = ()


def ratio(
    above: Sequence[float], below: Sequence[float], *factors: Sequence, of: str, chance: float | None = None, unit=""
) -> Figure:
    """Sum over sum, as of errors over words.

    The interval is by resampling whole people, whole sentences, ..., each factor on its own (the
    pigeonhole bootstrap, Owen 2007): errors of one voice or in one sentence go together.

    Args:
        above, below: (n,).
        factors: (n,) labels each, such as whose voice it was; without any, observations are resampled.
    """
    above, below = np.asarray(above, float), np.asarray(below, float)
    if not len(above):
        return Figure(float("nan"), float("nan"), float("nan"), 0, of, chance, unit)
    rng = np.random.default_rng(0)
    weights, levels = np.ones((_DRAWS, len(above))), 1
    for labels in factors or (np.arange(len(above)),):
        names, index = np.unique(np.asarray(labels), return_inverse=True)
        levels = max(levels, len(names))
        weights *= rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS)[:, index]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(above.sum() / below.sum())
        draws = (weights @ above) / (weights @ below)
    return Figure(value, *_interval(draws, levels), len(above), of, chance, unit)


def mean(values: Sequence[float], *factors: Sequence, of: str, chance: float | None = None, unit: str = "") -> Figure:
    """The mean, resampled as `ratio` does; values that are NaN are left out."""
    values = np.asarray(values, float)
    known = np.isfinite(values)
    factors = tuple(np.asarray(labels)[known] for labels in factors)
    return ratio(values[known], np.ones(known.sum()), *factors, of=of, chance=chance, unit=unit)


def share(right: Sequence[bool], of: str, chance: float | None = None) -> Figure:
    """The share of independent yes/no answers that are yes, with Wilson's interval (1927): resampling
    would call ten out of ten certain."""
    n, value = len(right), float(np.mean(right)) if len(right) else float("nan")
    if not n:
        return Figure(value, value, value, 0, of, chance)
    centre = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return Figure(value, max(0.0, float(centre - half)), min(1.0, float(centre + half)), n, of, chance)


def estimate(
    statistic: Callable[[np.ndarray], float], n: int, of: str, chance: float | None = None, unit: str = ""
) -> Figure:
    """Any statistic of n people.

    Args:
        statistic: of indices (m,) into them, which may repeat; NaN where it is not defined.
    """
    if not n:
        return Figure(float("nan"), float("nan"), float("nan"), 0, of, chance, unit)
    rng = np.random.default_rng(0)
    draws = np.array([statistic(rng.integers(n, size=n)) for _ in range(_DRAWS)])
    return Figure(float(statistic(np.arange(n))), *_interval(draws, n), n, of, chance, unit)


def median(values: Sequence[float], of: str, chance: float | None = None, unit: str = "") -> Figure:
    """The median; values that are NaN are left out."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return estimate(lambda i: float(np.median(values[i])), len(values), of, chance, unit)


def rank_correlation(one: Sequence[float], other: Sequence[float], of: str) -> Figure:
    """Spearman's correlation of two properties of the same people; 0 by chance."""
    from scipy.stats import rankdata

    pairs = np.array([one, other], float).T.reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]

    def correlation(index: np.ndarray) -> float:
        ranks = [rankdata(column) for column in pairs[index].T]
        spread = np.std(ranks, axis=1)
        return float(np.corrcoef(ranks)[0, 1]) if len(index) > 2 and spread.min() > 0 else float("nan")

    return estimate(correlation, len(pairs), of, chance=0.0)


def pairwise(matrix: np.ndarray, index: np.ndarray) -> float:
    """Mean of a square matrix over pairs of different people; `index` (m,) may name one twice."""
    apart = index[:, None] != index
    return float(matrix[np.ix_(index, index)][apart].mean()) if apart.any() else float("nan")


def _interval(draws: np.ndarray, levels: int) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    if levels < 2 or not len(draws):
        return float("nan"), float("nan")
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)
