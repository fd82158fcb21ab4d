"""How wrong an emulator is, measured on pairs it has never seen (Mathews et al. 2023, sect. 3.1).

Errors are magnitudes, emulated minus simulated. Their distributions have longer tails than a
normal one, so the intervals are stated beside the standard deviation.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from jaxsed.bands.magnitudes import from_arsinh, softening_flux, to_arsinh
from jaxsed.core.types import Model

SIGMA_LEVELS = (-4, -3, -2, -1, 1, 2, 3, 4)
"""Columns of `percentiles`: bounds of the 99.994, 99.73, 95.45 and 68.27 % intervals."""

ABSOLUTE_PERCENT = (68.0, 95.0, 99.0, 99.9)
"""Columns of `absolute`: percentages of the pairs whose |error| is smaller."""

_BRIGHT = 100.0  # times the softening flux: there arsinh and AB agree to 1e-4 mag
_BATCH = 5000


class Measurable(Protocol):
    """What `measure_error` needs of an emulator: a dataclass that predicts from features."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the outputs."""

    @property
    def mu_0(self) -> float:
        """Softening magnitude of F10 [mag]."""

    def from_features(self, features: Array) -> Array:
        """Arsinh magnitudes [band] of F10 for features [feature]."""


Emulator = TypeVar("Emulator", bound=Measurable)


@struct.dataclass
class ErrorSummary:
    """Distribution of the errors per band [mag]; NaN where it was not measured."""

    mean: Annotated[Array, "band"]
    sigma: Annotated[Array, "band"]  # standard deviation
    percentiles: Annotated[Array, "band 8"]  # at SIGMA_LEVELS
    absolute: Annotated[Array, "band 4"]  # of |error|, at ABSOLUTE_PERCENT
    covariance: Annotated[Array, "band band"]  # [mag^2]
    fraction: Annotated[Array, "band"]  # of the test pairs that were used

    @classmethod
    def unknown(cls, n_bands: int) -> "ErrorSummary":
        """All NaN."""
        shapes = ((), (), (len(SIGMA_LEVELS),), (len(ABSOLUTE_PERCENT),), (n_bands,), ())
        return cls(*(jnp.full((n_bands, *shape), jnp.nan, float) for shape in shapes))

    @classmethod
    def of(cls, residual: np.ndarray, used: np.ndarray | None = None) -> "ErrorSummary":
        """From errors [pair, band], of which those with `used` [pair, band] False do not count."""
        n, n_bands = residual.shape
        used = np.ones(residual.shape, bool) if used is None else used
        q = 100 * np.asarray(ndtr(jnp.asarray(SIGMA_LEVELS, float)), float)
        mean, sigma = np.full((2, n_bands), np.nan)
        percentiles = np.full((n_bands, len(q)), np.nan)
        absolute = np.full((n_bands, len(ABSOLUTE_PERCENT)), np.nan)
        centred = np.zeros(residual.shape)
        for i in range(n_bands):
            r = residual[used[:, i], i].astype(float)
            if r.size < 2:
                continue
            mean[i], sigma[i] = r.mean(), r.std()
            percentiles[i] = np.percentile(r, q)
            absolute[i] = np.percentile(np.abs(r), ABSOLUTE_PERCENT)
            centred[used[:, i], i] = r - mean[i]
        both = used.astype(float).T @ used.astype(float)
        covariance = np.where(both > 1, centred.T @ centred / np.maximum(both, 1), np.nan)
        parts = (mean, sigma, percentiles, absolute, covariance, used.mean(0))
        return cls(*(jnp.asarray(part, float) for part in parts))

    @classmethod
    def pooled(cls, summaries: Sequence["ErrorSummary"], weights: ArrayLike) -> "ErrorSummary":
        """Of a mixture of pairs, a share `weights` [summary] of them from each.

        Moments are the mixture's; percentiles are the widest of any, which bound the mixture's.
        """
        share = np.asarray(weights, float) / np.sum(weights)
        mean, covariance, fraction, percentiles, absolute = (
            np.stack([np.asarray(getattr(s, name), float) for s in summaries])
            for name in ("mean", "covariance", "fraction", "percentiles", "absolute")
        )
        used = share[:, None] * fraction  # a band without light in one has the others' errors
        used = np.where(np.isfinite(mean) & (used > 0), used, 0.0)
        total = used.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = np.nansum(used * mean, 0) / total
            both = np.sqrt(used[:, :, None] * used[:, None, :])
            gap = mean - middle
            moments = covariance + gap[:, :, None] * gap[:, None, :]
            pooled = np.nansum(both * moments, 0) / both.sum(0)
        half = len(SIGMA_LEVELS) // 2
        outer = np.concatenate(
            [np.fmin.reduce(percentiles[..., :half]), np.fmax.reduce(percentiles[..., half:])], -1
        )
        parts = (
            middle, np.sqrt(np.diag(pooled)), outer, np.fmax.reduce(absolute), pooled,
            np.sum(share[:, None] * fraction, 0),
        )  # fmt: skip
        return cls(*(jnp.asarray(part, float) for part in parts))

    def select(self, index: np.ndarray) -> "ErrorSummary":
        """The summary of some bands."""
        summary = jax.tree.map(lambda a: a[index], self)
        return dataclasses.replace(summary, covariance=summary.covariance[:, index])


def measure_error(emulator: Emulator, features: np.ndarray, f10: np.ndarray) -> Emulator:
    """The emulator with its errors replaced by those on these pairs.

    Args:
        emulator: the emulator to judge.
        features: inputs [pair, feature] it was not trained on; 1e5 or more, or the outer
            percentiles mean nothing.
        f10: simulated F10 [pair, band] in maggies.

    Raises:
        ValueError: shapes that do not fit the emulator.
    """
    errors = residuals(emulator, features, f10)
    return dataclasses.replace(
        emulator,
        error=ErrorSummary.of(errors.arsinh),
        error_ab=ErrorSummary.of(errors.ab, errors.bright),
    )


def measured_sigma(emulator: Model) -> np.ndarray:
    """Standard deviation [band] of the AB errors of a photometric emulator [mag].

    Raises:
        ValueError: a band whose error was not measured, which must not count as no error.
    """
    sigma = np.asarray(emulator.error_ab.sigma, float)
    unknown = [n for n, ok in zip(emulator.band_names, np.isfinite(sigma), strict=True) if not ok]
    if unknown:
        raise ValueError(
            f"the emulator's error was not measured in {', '.join(unknown)}: leave these bands "
            "out, or measure it with jaxsed.emulators.measure_error"
        )
    return sigma


class Residuals(NamedTuple):
    """Emulated minus simulated magnitudes."""

    arsinh: np.ndarray
    """[pair, band]."""
    ab: np.ndarray
    """[pair, band]; meaningless where the flux is not far above the softening."""
    bright: np.ndarray
    """[pair, band] whether it is."""


def residuals(emulator: Measurable, features: np.ndarray, f10: np.ndarray) -> Residuals:
    """The errors on pairs of features [pair, feature] and F10 [pair, band] in maggies.

    Raises:
        ValueError: shapes that do not fit the emulator.
    """
    features, f10 = np.asarray(features), np.asarray(f10)
    n = len(features)
    for name, values, width in (
        ("features", features, len(emulator.feature_names)),
        ("f10", f10, len(emulator.band_names)),
    ):
        if values.shape != (n, width):
            raise ValueError(f"expected {name} of shape ({n}, {width}), got {values.shape}")
    emulated = predict(emulator, features)
    arsinh = emulated - np.asarray(to_arsinh(f10, emulator.mu_0))
    floor = softening_flux(emulator.mu_0)
    bright = f10 > _BRIGHT * floor
    # an emulated flux at or below zero is as wrong as one at the softening
    emulated_f10 = np.maximum(np.asarray(from_arsinh(emulated, emulator.mu_0)), floor)
    ab = -2.5 * np.log10(emulated_f10 / np.where(bright, f10, emulated_f10))
    return Residuals(arsinh, ab, bright)


def predict(emulator: Measurable, features: np.ndarray) -> np.ndarray:
    """Arsinh magnitudes [pair, band] of F10 for features [pair, feature], in batches."""
    run = jax.jit(jax.vmap(lambda emulator, x: emulator.from_features(x), in_axes=(None, 0)))
    n = len(features)
    size = min(_BATCH, n)
    padded = np.concatenate([features, np.repeat(features[-1:], -n % size, axis=0)])
    parts = [np.asarray(run(emulator, part)) for part in np.split(padded, len(padded) // size)]
    return np.concatenate(parts)[:n]
