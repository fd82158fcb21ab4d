"""Fluxes in bands when the redshift is free and the model has starlight but no dust emission."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array

from jaxsed.core.types import Forward, Theta
from jaxsed.likelihood.photometry import Photometry

STARLIGHT_LIMIT = 25_000.0
"""Rest-frame wavelength in Å up to which the light of a galaxy is that of its stars and gas."""

DUST_LIMIT = 50_000.0
"""Rest-frame wavelength in Å from which on all of a flux may be emission of dust."""


def dust_share(rest_wave: Array) -> Array:
    """Share of a flux that may be emission of dust, at a rest-frame wavelength in Å.

    Zero up to `STARLIGHT_LIMIT`, one from `DUST_LIMIT` on, and between them a cubic in ln
    wavelength with a continuous slope.
    """
    x = jnp.log(rest_wave / STARLIGHT_LIMIT) / jnp.log(DUST_LIMIT / STARLIGHT_LIMIT)
    x = jnp.clip(x, 0.0, 1.0)
    return x**2 * (3.0 - 2.0 * x)


class BandPrediction(NamedTuple):
    """Fluxes and the redshift that they are seen at."""

    flux: Array
    """[band] maggies."""
    redshift: Array


@struct.dataclass
class WithRedshift:
    """``model(theta) -> BandPrediction`` from a forward model of the fluxes."""

    forward: Forward
    """``forward(theta) -> flux [band]`` in maggies."""

    @property
    def transform(self) -> Any:
        """That of the forward model of the fluxes."""
        return getattr(self.forward, "transform", None)

    def __call__(self, theta: Theta) -> BandPrediction:
        """Fluxes and redshift of one theta."""
        return BandPrediction(self.forward(theta), jnp.asarray(theta.redshift))


@struct.dataclass
class RedshiftedPhotometry:
    """`Photometry` whose bands lose weight where the redshift of a draw puts them beyond starlight.

    The model's error of a detection F grows by ``s(pivot / (1 + z)) F``, added in quadrature,
    where s is `dust_share`: dust adds light that a model of stars and gas lacks, at most all of
    it.  Upper limits stay as they are, since starlight is below any limit that the sum is below.
    """

    photometry: Photometry
    """Its emulator errors must be independent between the bands."""
    pivot: Array
    """[band] observed pivot wavelength, Å."""

    @property
    def scaled(self) -> Array:
        """[band] see `Photometry`."""
        return self.photometry.scaled

    @property
    def inverse_sigma(self) -> Array:
        """[band] see `Photometry`."""
        return self.photometry.inverse_sigma

    @property
    def limit_inverse_sigma(self) -> Array:
        """[band] see `Photometry`."""
        return self.photometry.limit_inverse_sigma

    def weight(self, redshift: Array) -> Array:
        """[band] by how much the uncertainty of each detection has grown, one over the factor."""
        error = dust_share(self.pivot / (1.0 + redshift)) * jnp.abs(self.scaled)
        return 1.0 / jnp.sqrt(1.0 + error**2)

    def residuals(self, prediction: BandPrediction) -> Array:
        """[band] residuals of the detections in units of their uncertainties at this redshift."""
        return self.weight(prediction.redshift) * self.photometry.residuals(prediction.flux)

    def log_likelihood(self, prediction: BandPrediction) -> Array:
        """Log likelihood of fluxes at a redshift; the uncertainties depend on it, so their
        normalisation counts."""
        weight = self.weight(prediction.redshift)
        residual = weight * self.photometry.residuals(prediction.flux)
        gaussian = jnp.sum(jnp.log(weight)) - 0.5 * jnp.sum(residual**2)
        return gaussian + self.photometry.log_censored(prediction.flux)

    def normal_equation(self, prediction: BandPrediction) -> tuple[Array, Array]:
        """``m C^-1 m`` and ``m C^-1 d`` of the detections."""
        weight = self.weight(prediction.redshift)
        model = weight * prediction.flux * self.inverse_sigma
        return jnp.sum(model**2), jnp.sum(model * weight * self.scaled)

    def rescaled(self, prediction: BandPrediction, factor: Array) -> BandPrediction:
        """The prediction for a galaxy of `factor` times the mass."""
        return prediction._replace(flux=prediction.flux * factor)

    def kept(self, prediction: BandPrediction) -> Array:
        """[band] the fluxes."""
        return prediction.flux
