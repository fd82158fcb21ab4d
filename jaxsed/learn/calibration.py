"""Uncertainties that are right on average on a held-out set, and how they are judged.

A calibration is a factor on the standard deviation that a network gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST = 30
"""Held-out examples that a calibration needs; with fewer a factor is 1."""

LEAST = 0.2
"""Smallest factor of `quantile_factor`."""


def rms_factor(difference: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Root of the mean squared difference in units of the uncertainty: [..] of [example, ..]."""
    return np.sqrt(np.mean((difference / std) ** 2, axis=0))


def quantile_factor(difference: np.ndarray, std: np.ndarray, known: np.ndarray) -> float:
    """The factor f with which 68.3 % of the differences are below sqrt((f std)^2 + known^2).

    So they are for Gaussian errors of that size. Where the known part is most of it, little is
    learned about f, which is kept above 0.2.

    Args:
        difference: [example] prediction less truth; those that are not finite do not count.
        std: [example] what the network says of its uncertainty.
        known: [example] the part of the difference that is not the network's.
    """
    # a difference is below that size from this factor on
    own = np.sqrt(np.maximum(difference**2 - known**2, 0.0))
    needed = (own / std)[np.isfinite(difference)]
    return max(float(np.quantile(needed, 0.683)), LEAST) if needed.size >= FEWEST else 1.0


def robust_scatter(difference: np.ndarray) -> float:
    """1.4826 times the median absolute deviation: the standard deviation of a normal law."""
    return float(1.4826 * np.median(np.abs(difference - np.median(difference))))


def coverage(
    value: np.ndarray, std: np.ndarray, truth: np.ndarray, shares: Sequence[float] = (0.683, 0.954)
) -> np.ndarray:
    """[share, ..] of the examples [example, ..] whose truth lies in the Gaussian interval of each
    share."""
    from scipy.special import ndtri

    pull = np.abs(value - truth) / std
    seen = np.isfinite(pull)
    return np.array(
        [
            np.where(seen, pull < ndtri(0.5 + share / 2), False).sum(axis=0) / seen.sum(axis=0)
            for share in shares
        ]
    )
