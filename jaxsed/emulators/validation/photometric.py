"""What an emulator's errors look like: where in the box, how long the tails, against a survey.

Errors are AB magnitudes, emulated minus simulated, of the pairs whose light in a band is far above
the softening (`errors.Residuals`), unless it says otherwise.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxsed.core.types import Model
from jaxsed.emulators.validation.errors import (
    ABSOLUTE_PERCENT,
    ErrorSummary,
    Residuals,
    residuals,
)
from jaxsed.emulators.validation.gradients import GradientErrors
from jaxsed.emulators.validation.report import error_summary, largest_correlation, without_nan
from jaxsed.emulators.validation.tails import SHAPES, Tails, tails

QUANTILES = (0.5, 0.68, 0.9, 0.95, 0.99, 0.999)
"""Of the galaxies, in order of their mean |error|."""

BINS = 20
"""Per feature, evenly over its range."""

MIN_IN_BIN = 30
"""With fewer pairs a bin says nothing."""


class BinnedErrors(NamedTuple):
    """Errors against each feature; NaN in bins with fewer than `MIN_IN_BIN` pairs."""

    edges: np.ndarray
    """[feature, bin + 1]."""
    sigma: np.ndarray
    """[feature, bin, band] standard deviation [mag]."""
    percent99: np.ndarray
    """[feature, bin, band] |error| of 99 % of the pairs [mag]."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """What `validate` found."""

    band_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    wave: np.ndarray
    """[band] mean wavelength [Angstrom]; NaN without curves."""
    error: ErrorSummary
    """Of the AB magnitudes."""
    error_arsinh: ErrorSummary
    claimed: np.ndarray
    """[band] sigma of the AB errors that the emulator's file states [mag]."""
    mean_absolute: np.ndarray
    """[galaxy] mean |error| over the bands, in increasing order [mag]."""
    binned: BinnedErrors
    tails: Tails
    sigma_survey: np.ndarray
    """[band] uncertainty of the survey [mag]."""
    gradients: GradientErrors | None = None

    @property
    def ratio(self) -> np.ndarray:
        """[band] sigma of the emulator over that of the survey."""
        return np.asarray(self.error.sigma, float) / self.sigma_survey

    @property
    def correlation(self) -> np.ndarray:
        """[band, band] of the errors."""
        covariance = np.asarray(self.error.covariance, float)
        scale = np.sqrt(np.diag(covariance))
        with np.errstate(divide="ignore", invalid="ignore"):
            return covariance / np.outer(scale, scale)

    def columns(self) -> dict[str, Any]:
        """One column per quantity, one row per band."""
        error = self.error
        likely = self.tails.log_likelihood  # NaN in a band whose error was not measured
        best = [list(SHAPES)[np.argmax(row)] if np.isfinite(row).all() else "" for row in likely]
        return {
            "band": list(self.band_names),
            "wavelength": self.wave,
            "mean": np.asarray(error.mean, float),
            "sigma": np.asarray(error.sigma, float),
            "sigma_claimed": self.claimed,
            **{
                f"absolute_{percent:g}": np.asarray(error.absolute, float)[:, i]
                for i, percent in enumerate(ABSOLUTE_PERCENT)
            },
            "bright": np.asarray(error.fraction, float),
            "sigma_arsinh": np.asarray(self.error_arsinh.sigma, float),
            "sigma_survey": self.sigma_survey,
            "ratio": self.ratio,
            "beyond_3_sigma": self.tails.beyond[:, 0],
            "tail": best,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        quantiles = np.quantile(self.mean_absolute, QUANTILES)
        found = {
            "bands": list(self.band_names),
            "features": list(self.feature_names),
            "pairs": len(self.mean_absolute),
            "absolute_percent": list(ABSOLUTE_PERCENT),
            "ab_where_bright": error_summary(self.error),
            "arsinh": error_summary(self.error_arsinh),
            "sigma_claimed": self.claimed.tolist(),
            "mean_absolute": dict(zip(map(str, QUANTILES), quantiles.tolist(), strict=True)),
            "largest_correlation": largest_correlation(self.error),
            "sigma_survey": self.sigma_survey.tolist(),
            "ratio": self.ratio.tolist(),
            "binned": {
                name: {
                    "edges": self.binned.edges[i].tolist(),
                    "median_sigma": _over_bands(np.nanmedian, self.binned.sigma[i]),
                    "largest_sigma": _over_bands(np.nanmax, self.binned.sigma[i]),
                    "largest_99_percent": _over_bands(np.nanmax, self.binned.percent99[i]),
                }
                for i, name in enumerate(self.feature_names)
            },
            "tails": self.tails.to_dict(),
        }
        if self.gradients is not None:
            found["gradients"] = self.gradients.to_dict()
        return without_nan(found)


def validate(
    emulator: Model, features: np.ndarray, f10: np.ndarray, sigma_survey: np.ndarray
) -> Validation:
    """The errors on pairs the emulator has not seen.

    Args:
        emulator: a `PhotometricEmulator` or `StitchedEmulator`.
        features: [pair, feature].
        f10: simulated F10 [pair, band] in maggies.
        sigma_survey: [band] uncertainty of the survey that it is for [mag].

    Raises:
        ValueError: shapes that do not fit the emulator.
    """
    survey = np.asarray(sigma_survey, float)
    if survey.shape != (len(emulator.band_names),):
        raise ValueError(
            f"expected the survey's uncertainty in {len(emulator.band_names)} bands, "
            f"got shape {survey.shape}"
        )
    found = residuals(emulator, features, f10)
    error = ErrorSummary.of(found.ab, found.bright)
    return Validation(
        band_names=tuple(emulator.band_names),
        feature_names=tuple(emulator.feature_names),
        wave=mean_waves(emulator),
        error=error,
        error_arsinh=ErrorSummary.of(found.arsinh),
        claimed=np.asarray(emulator.error_ab.sigma, float),
        mean_absolute=np.sort(_mean_absolute(found)),
        binned=binned_errors(features, found, _box(emulator)),
        tails=tails(found, error),
        sigma_survey=survey,
    )


def mean_waves(emulator: Model) -> np.ndarray:
    """Mean wavelength [band] of the filter curves in Angstrom; NaN without curves."""
    if not emulator.record.curves:
        return np.full(len(emulator.band_names), np.nan)
    return np.array(
        [
            np.trapezoid(c.wave * c.trans, c.wave) / np.trapezoid(c.trans, c.wave)
            for c in emulator.record.curves
        ]
    )


def binned_errors(
    features: np.ndarray, found: Residuals, box: tuple[np.ndarray, np.ndarray]
) -> BinnedErrors:
    """Errors in `BINS` even bins of each feature between the edges of the box."""
    n_features, n_bands = features.shape[1], found.ab.shape[1]
    edges = np.linspace(*box, BINS + 1).T
    sigma, percent99 = np.full((2, n_features, BINS, n_bands), np.nan)
    size = np.where(found.bright, np.abs(found.ab), -1.0).astype(np.float32)
    for i in range(n_features):
        which = np.clip(np.searchsorted(edges[i], features[:, i]) - 1, 0, BINS - 1)
        for k in range(BINS):
            rows = np.flatnonzero(which == k)
            if len(rows) < MIN_IN_BIN:
                continue
            used = found.bright[rows]
            count = used.sum(0)
            enough = count >= MIN_IN_BIN
            ab = np.where(used, found.ab[rows], 0.0).astype(float)
            mean = ab.sum(0) / np.maximum(count, 1)
            square = (np.where(used, ab - mean, 0.0) ** 2).sum(0) / np.maximum(count, 1)
            sigma[i, k] = np.where(enough, np.sqrt(square), np.nan)
            # pairs that do not count come first
            ordered = np.sort(size[rows], axis=0)
            at = (len(rows) - count + np.round(0.99 * (count - 1))).clip(0).astype(int)
            percent99[i, k] = np.where(enough, ordered[at, np.arange(n_bands)], np.nan)
    return BinnedErrors(edges, sigma, percent99)


def _mean_absolute(found: Residuals) -> np.ndarray:
    count = found.bright.sum(1)
    total = np.where(found.bright, np.abs(found.ab), 0.0).sum(1)
    return (total / np.maximum(count, 1))[count > 0]


def _box(emulator: Model) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(emulator.box_low, float), np.asarray(emulator.box_high, float)


def _over_bands(statistic, values: np.ndarray) -> list[float]:
    """A statistic over the bands [bin, band]; NaN in bins where no band has one."""
    filled = np.isfinite(values).any(1)
    out = np.full(len(values), np.nan)
    out[filled] = statistic(values[filled], axis=1)
    return out.tolist()
