"""How near the voices that were made come to the true ones, and who is taken for whom."""

import dataclasses
from pathlib import Path

import numpy as np

RANKS = (1, 5)


@dataclasses.dataclass(frozen=True)
class Result:
    """A bundle that was changed, and what that brought.

    Attributes:
        bundle: its folder.
        held_out: on whom the figures were measured, for people to read; "" where nobody was left for it.
        before, after: figure -> value; empty where nothing was held out.
        chance: figure -> what would come out by chance, where that is known.
        notes: what else there is to tell, such as what was left out.
    """

    bundle: Path
    held_out: str = ""
    before: dict[str, float] = dataclasses.field(default_factory=dict)
    after: dict[str, float] = dataclasses.field(default_factory=dict)
    chance: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def likeness(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """
    Args:
        made, true: (n, embedding), unit length; of item i the voice that was made and the true one.

    Returns:
        ``cosine`` of the two. Of two items or more also ``margin``, that cosine minus the mean of
        those to the other true voices, and ``R@1``, ``R@5``: the share of made voices to which the
        own true voice is the nearest, or among the nearest five; ties are lost.
    """
    cosines = made @ true.T
    own, n = np.diag(cosines), len(cosines)
    figures = {"cosine": float(own.mean())}
    if n > 1:
        figures["margin"] = float(own.mean() - (cosines.sum() - own.sum()) / (n * (n - 1)))
        nearer = (cosines >= own[:, None]).sum(axis=1) - 1
        figures |= {f"R@{rank}": float((nearer < rank).mean()) for rank in RANKS if rank < n}
    return figures


def chance(n: int) -> dict[str, float]:
    """Of the figures of n items, what voices made without a look at the item would give."""
    return {"margin": 0.0} | {f"R@{rank}": rank / n for rank in RANKS if rank < n} if n > 1 else {}


def mean_voice(voices: np.ndarray) -> np.ndarray:
    """(n, embedding) -> (embedding,): the mean direction, of unit length."""
    mean = np.asarray(voices, np.float32).sum(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)
