"""How long the tails of an emulator's errors are (Mathews et al. 2023, figure 10)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxsed.emulators.validation.errors import ErrorSummary, Residuals

TAIL_SIGMAS = (3.0, 4.0, 5.0)
"""Multiples of sigma beyond which pairs are counted."""

Z_EDGES = np.linspace(-10.0, 10.0, 201)
"""Of the histogram of errors in units of their sigma."""


class Tails(NamedTuple):
    """How far errors reach, in units of the band's standard deviation."""

    histogram: np.ndarray
    """[bin] density of (error - mean) / sigma of all bands together between `Z_EDGES`."""
    beyond: np.ndarray
    """[band, multiple] share of the pairs beyond `TAIL_SIGMAS`; normal: 0.27, 0.0063, 6e-5 %."""
    log_likelihood: np.ndarray
    """[band, shape] mean ln density per pair of `SHAPES` of the same mean and sigma."""

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """JSON types: lists over the bands."""
        return {
            "beyond": dict(zip(map(str, TAIL_SIGMAS), self.beyond.T.tolist(), strict=True)),
            "log_likelihood": dict(zip(SHAPES, self.log_likelihood.T.tolist(), strict=True)),
        }


def _normal(z):
    return -0.5 * (z**2 + math.log(2 * math.pi))


def _student_t4(z):
    # its variance is 2, so the unit-variance one is narrower by the root of that
    constant = math.lgamma(2.5) - math.lgamma(2.0) - 0.5 * math.log(4 * math.pi)
    return constant - 2.5 * np.log1p((z * math.sqrt(2)) ** 2 / 4) + 0.5 * math.log(2)


def _laplace(z):
    return -math.sqrt(2) * np.abs(z) - 0.5 * math.log(2)


def _logistic(z):
    scale = math.sqrt(3) / math.pi
    x = np.abs(z) / scale
    return -x - 2 * np.log1p(np.exp(-x)) - math.log(scale)


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": _normal,
    "Student t(4)": _student_t4,
    "Laplace": _laplace,
    "logistic": _logistic,
}
"""ln density of distributions of mean zero and unit variance."""


def tails(found: Residuals, error: ErrorSummary) -> Tails:
    """How the errors are distributed about their mean."""
    n_bands = found.ab.shape[1]
    histogram = np.zeros(len(Z_EDGES) - 1)
    beyond = np.full((n_bands, len(TAIL_SIGMAS)), np.nan)
    log_likelihood = np.full((n_bands, len(SHAPES)), np.nan)
    mean, sigma = np.asarray(error.mean, float), np.asarray(error.sigma, float)
    for i in range(n_bands):
        if not sigma[i] > 0:
            continue
        z = (found.ab[found.bright[:, i], i].astype(float) - mean[i]) / sigma[i]
        histogram += np.histogram(z, Z_EDGES)[0]
        beyond[i] = [np.mean(np.abs(z) > k) for k in TAIL_SIGMAS]
        log_likelihood[i] = [np.mean(shape(z)) for shape in SHAPES.values()]
    width = np.diff(Z_EDGES)
    return Tails(histogram / max(histogram.sum(), 1.0) / width, beyond, log_likelihood)
