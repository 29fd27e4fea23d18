"""What can be read off by a straight line: sex and age of a face's descriptor, sex of a voice."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Features (B, feature) -> (B,)."""


def linear_score(
    features: np.ndarray, values: np.ndarray, weights: np.ndarray | None = None, ridge: float = 1e-2
) -> Score:
    """Least squares of values (n,) on features (n, feature), with a penalty in proportion to their mean variance.

    Args:
        weights: (n,), how much each counts; all alike if None.
    """
    weights = np.ones(len(values)) if weights is None else weights
    weights = weights / weights.sum()
    centre, middle = weights @ features.astype(np.float64), float(weights @ values)
    apart = features - centre
    covariance = apart.T @ (weights[:, None] * apart)
    covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    slope = torch.from_numpy(np.linalg.solve(covariance, apart.T @ (weights * (values - middle)))).float()
    origin = torch.from_numpy(centre).float()
    return lambda x: (x - origin) @ slope + middle


def sex_classifier(features: np.ndarray, sexes: Sequence[str], ridge: float = 1e-2) -> Score:
    """Fisher's linear discriminant (1936), above 0 for women. Both sexes count alike, however many there are of each.

    Args:
        features: (n, feature), of real people.
        sexes: "f" or "m" of each.
    """
    women = np.array([sex == "f" for sex in sexes])
    weights = np.where(women, 1 / max(women.sum(), 1), 1 / max((~women).sum(), 1))
    return linear_score(features, np.where(women, 1.0, -1.0), weights, ridge)
