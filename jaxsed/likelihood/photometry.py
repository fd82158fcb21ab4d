"""Fluxes in bands: Gaussian detections and censored upper limits."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import log_ndtr

from jaxsed.core.compiled import compiled

MAG_TO_RELATIVE = 0.4 * math.log(10.0)
"""Relative flux per magnitude, to first order."""


@struct.dataclass
class Photometry:
    """Fluxes of one galaxy, as the likelihood wants them."""

    scaled: Array
    """[band] flux over its total uncertainty; zero where there is no detection."""
    inverse_sigma: Array
    """[band] one over the uncertainty in 1/maggies; zero where there is no detection."""
    limit: Array
    """[band] upper limit over its uncertainty."""
    limit_inverse_sigma: Array
    """[band] one over the uncertainty of upper limits in 1/maggies; zero elsewhere."""
    whitener: Array | None = None
    """[band, band] turns `inverse_sigma`-scaled residuals into independent ones."""

    @compiled
    def residuals(self, flux: Array) -> Array:
        """[band] residuals of the detections in units of their uncertainties."""
        return self._whiten(flux * self.inverse_sigma - self.scaled)

    @compiled
    def log_likelihood(self, flux: Array) -> Array:
        """Log likelihood of model fluxes: Gaussian detections, censored upper limits.

        An upper limit contributes the probability that its measurement lies below it.  Constant
        terms of the Gaussian are left out.
        """
        return -0.5 * jnp.sum(self.residuals(flux) ** 2) + self.log_censored(flux)

    def log_censored(self, flux: Array) -> Array:
        """Log probability that the upper limits lie above measurements of these fluxes."""
        gap = self.limit - flux * self.limit_inverse_sigma
        return jnp.sum(jnp.where(self.limit_inverse_sigma > 0, log_ndtr(gap), 0.0))

    def normal_equation(self, flux: Array) -> tuple[Array, Array]:
        """``m C^-1 m`` and ``m C^-1 d`` of the detections."""
        model = self._whiten(flux * self.inverse_sigma)
        return jnp.sum(model**2), jnp.sum(model * self._whiten(self.scaled))

    def rescaled(self, flux: Array, factor: Array) -> Array:
        """Fluxes of a galaxy of `factor` times the mass."""
        return flux * factor

    def kept(self, flux: Array) -> Array:
        """[band] the fluxes."""
        return flux

    def _whiten(self, scaled: Array) -> Array:
        return scaled if self.whitener is None else self.whitener @ scaled


MISSING, DETECTION, UPPER_LIMIT = 0, 1, 2


def photometry(
    flux: np.ndarray,
    error: np.ndarray,
    kind: np.ndarray | None = None,
    *,
    error_floor: float = 0.05,
    emulator_sigma: np.ndarray | float = 0.0,
    emulator_correlation: np.ndarray | None = None,
) -> Photometry:
    """Build `Photometry` from maggies; works on [band] and on batches [..., band].

    Total uncertainty (Mathews+ 2023, eq. 9): ``s^2 = s_obs^2 + s_emul^2 + (floor F)^2``, the last
    two relative to the observed flux F.

    Args:
        flux: maggies; for an upper limit its value.
        error: maggies, 1 sigma.
        kind: 0 missing, 1 detection, 2 upper limit; all detections if not given.
        error_floor: relative uncertainty of the model, as a fraction of the observed flux.
        emulator_sigma: [band] emulator error in magnitudes.
        emulator_correlation: [band, band] correlation of the emulator's errors between bands,
            if it is to be used; without it they count as independent.

    Raises ValueError for used bands whose flux is not finite, whose error is not positive, or where
    the emulator's error is not known.
    """
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    kind = np.ones(flux.shape, int) if kind is None else np.asarray(kind, int)
    if flux.shape != error.shape or flux.shape != kind.shape:
        raise ValueError(
            f"shapes differ: flux {flux.shape}, error {error.shape}, kind {kind.shape}"
        )
    used = kind != MISSING
    bad = used & ~(np.isfinite(flux) & np.isfinite(error) & (error > 0))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"element {where}: flux {flux[where]} with error {error[where]}; expected a finite "
            "flux and an error above zero: set kind to 0 where a band is missing"
        )
    model = np.broadcast_to(np.asarray(emulator_sigma, float), flux.shape)
    if not np.all((np.isfinite(model) & (model >= 0))[used]):
        raise ValueError(
            "expected emulator errors that are finite and not negative: set kind to 0 in bands "
            "where the emulator's error was not measured"
        )
    flux, error = np.where(used, flux, 0.0), np.where(used, error, 1.0)
    emulator = MAG_TO_RELATIVE * np.where(used, model, 0.0) * np.abs(flux)
    sigma = np.sqrt(error**2 + emulator**2 + (error_floor * flux) ** 2)
    detected, limited = kind == DETECTION, kind == UPPER_LIMIT
    inverse, limit_inverse = np.where(detected, 1 / sigma, 0), np.where(limited, 1 / error, 0)
    whitener = None
    if emulator_correlation is not None:
        share = inverse * emulator
        off = emulator_correlation * share[..., :, None] * share[..., None, :]
        n = flux.shape[-1]
        off[..., np.arange(n), np.arange(n)] = 1.0
        whitener = jnp.asarray(np.linalg.inv(np.linalg.cholesky(off)), dtype=float)
    return Photometry(
        scaled=jnp.asarray(flux * inverse, dtype=float),
        inverse_sigma=jnp.asarray(inverse, dtype=float),
        limit=jnp.asarray(flux * limit_inverse, dtype=float),
        limit_inverse_sigma=jnp.asarray(limit_inverse, dtype=float),
        whitener=whitener,
    )
