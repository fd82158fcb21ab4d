"""Pairs of parameters and photometry, drawn in compiled code: what a flow learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.bands.magnitudes import POGSON
from jaxsed.core.types import Forward, Key, Numbers, Prior
from jaxsed.infer.amortised.trend import trend
from jaxsed.likelihood import MAG_TO_RELATIVE, Photometry
from jaxsed.problem import Problem

NOISE_BINS = 12
"""Nodes of a noise model, unless there are too few galaxies for them."""


@struct.dataclass
class NoiseModel:
    """Uncertainties of a survey given fluxes, p(sigma | f) per band (Hahn & Melchior 2022, eq. 5).

    ln of the relative uncertainty is normal, with a mean and deviation that are linear between
    nodes in magnitude and constant beyond them in sigma over flux at the bright end and in sigma
    at the faint end.
    """

    magnitude: Array
    """[band, node] increasing."""
    mean: Array
    """[band, node] of ln(sigma / flux)."""
    deviation: Array
    """[band, node]."""

    def __call__(self, key: Key, flux: Array) -> Array:
        """Uncertainties [band] in maggies for fluxes [band] in maggies, above zero."""
        normal = jax.random.normal(key, flux.shape)
        magnitude = -POGSON * jnp.log(jnp.maximum(flux, 1e-30))
        # Fainter than the last node the uncertainty is that of the sky, whatever the flux.
        inside = jnp.clip(magnitude, self.magnitude[:, 0], self.magnitude[:, -1])
        interpolate = jax.vmap(jnp.interp)
        mean = interpolate(inside, self.magnitude, self.mean)
        deviation = interpolate(inside, self.magnitude, self.deviation)
        fainter = jnp.maximum(magnitude - self.magnitude[:, -1], 0.0) / POGSON
        return flux * jnp.exp(mean + deviation * normal + fainter)


def noise_model(
    flux: np.ndarray,
    error: np.ndarray,
    used: np.ndarray | None = None,
    bins: int = NOISE_BINS,
) -> NoiseModel:
    """Estimate a `NoiseModel` from a catalogue's fluxes and uncertainties [galaxy, band], maggies.

    Medians and robust deviations in bins with equal numbers of detections.

    Raises ValueError for a band with fewer than 10 detections per bin.
    """
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    used = np.ones(flux.shape, bool) if used is None else np.asarray(used, bool)
    nodes = []
    for band in range(flux.shape[1]):
        good = used[:, band] & (flux[:, band] > 0) & (error[:, band] > 0)
        if good.sum() < 10 * bins:
            raise ValueError(f"band {band}: {good.sum()} detections; expected at least {10 * bins}")
        magnitude = -2.5 * np.log10(flux[good, band])
        nodes.append(trend(magnitude, np.log(error[good, band] / flux[good, band]), bins))
    magnitude, mean, deviation = (
        jnp.asarray(np.array(part), float) for part in zip(*nodes, strict=True)
    )
    return NoiseModel(magnitude, mean, deviation)


@struct.dataclass(eq=False)
class Simulator:
    """Galaxies of a prior as a survey sees them.

    The masses are those of the prior that put the magnitude of one band into a range: galaxies far
    brighter or fainter than any of the survey's would only take time.
    """

    forward: Forward
    """``forward(theta) -> flux [band]`` in maggies."""
    noise: NoiseModel
    emulator_sigma: Array
    """[band] error of the forward model in mag."""
    redshift: Array
    """[2] range of the uniform distribution that redshifts are drawn from."""
    magnitudes: Array
    """[2] range of the magnitude in the band `anchor`."""
    prior: Callable[[Any], Any] = struct.field(pytree_node=False)
    """``prior(redshift)``: the prior of theta at a redshift."""
    model: str = struct.field(pytree_node=False)
    """Name of the galaxy model."""
    emulator: str = struct.field(pytree_node=False)
    """Name of the emulator, for the record."""
    bands: tuple[str, ...] = struct.field(pytree_node=False)
    anchor: int = struct.field(pytree_node=False)
    error_floor: float = struct.field(pytree_node=False, default=0.0)
    missing: float = struct.field(pytree_node=False, default=0.0)
    """Chance that a band is missing, half of the time; in the other half none is."""
    free_redshift: bool = struct.field(pytree_node=False, default=False)

    def prior_at(self, redshift: Numbers) -> Prior:
        """The prior of a posterior: at a redshift, or with the redshift free."""
        if self.free_redshift:
            redshift = params.distribution("uniform", self.redshift[0], self.redshift[1])
        return self.prior(redshift)

    def one(self, key: Key) -> tuple[Array, Problem, Array]:
        """Coordinates x [dimension] of a galaxy, its problem, and whether it counts."""
        key_z, key_u, key_flux, key_sigma, key_mask = jax.random.split(key, 5)
        z = jax.random.uniform(key_z, minval=self.redshift[0], maxval=self.redshift[1])
        prior = self.prior(z)
        u = jax.random.normal(key_u, (params.dimension(prior),))
        theta = params.draw(prior, u)
        flux = self.forward(theta)
        magnitude = -POGSON * jnp.log(jnp.maximum(flux[self.anchor], 1e-30))
        counts = (magnitude > self.magnitudes[0]) & (magnitude < self.magnitudes[1])
        sigma = self.noise(key_sigma, flux)
        total = jnp.hypot(sigma, self._model_error() * flux)
        observed = flux + total * jax.random.normal(key_flux, flux.shape)
        data = self._data(key_mask, observed, sigma)
        problem = Problem(self.prior_at(z), self.forward, data)
        x = problem.unconstrain(theta)
        return x, problem, counts & jnp.all(jnp.isfinite(x))

    def _model_error(self) -> Array:
        """[band] relative to the flux."""
        return jnp.hypot(MAG_TO_RELATIVE * self.emulator_sigma, self.error_floor)

    def _data(self, key: Key, observed: Array, sigma: Array) -> Photometry:
        inverse = 1.0 / jnp.hypot(sigma, self._model_error() * observed)
        if self.missing:
            key_any, key_each = jax.random.split(key)
            gone = jax.random.uniform(key_each, inverse.shape) < self.missing
            some = jax.random.uniform(key_any) < 0.5
            inverse = jnp.where(some & gone & ~jnp.all(gone), 0.0, inverse)
        nothing = jnp.zeros_like(inverse)
        return Photometry(observed * inverse, inverse, nothing, nothing)
