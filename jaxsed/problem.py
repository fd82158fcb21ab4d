"""A problem is a prior, a forward model and data: everything a sampler needs, as one pytree.

A batch of galaxies is a `Problem` whose prior and data leaves have a leading axis; the forward
model is shared.  `axes` is the `in_axes` that maps over such a batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from jax import Array
from jax.scipy.special import log_ndtr

from jaxsed import params

MAG_TO_RELATIVE = 0.4 * math.log(10.0)
"""Relative flux per magnitude, to first order."""

MASS = "log_mass_formed"


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
        error_floor: relative uncertainty of the model.
        emulator_sigma: [band] emulator error in magnitudes.
        emulator_correlation: [band, band] correlation of the emulator's errors between bands,
            if it is to be used; without it they count as independent.

    Raises ValueError for used bands whose flux is not finite or whose error is not positive.
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
    flux, error = np.where(used, flux, 0.0), np.where(used, error, 1.0)
    emulator = MAG_TO_RELATIVE * np.asarray(emulator_sigma) * np.abs(flux)
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


@struct.dataclass
class Problem:
    """Prior, forward model and data of one galaxy, and the posterior that follows.

    Samplers move in coordinates ``x`` [dimension].  They are the coordinates of the prior (see
    `params.constrain`), except that the mass is measured from its conditional best fit: the flux is
    proportional to the mass, so for any other parameters the best mass is known in closed form,
    and the sampled coordinate is the difference from it.  This is a shear, whose Jacobian is one,
    so the posterior is exactly the same while its strongest degeneracy is gone.
    """

    prior: Any
    """Theta of distributions; numbers where a parameter is known."""
    forward: Callable[[Any], Array]
    """``forward(theta) -> flux`` [band] in maggies, proportional to 10**log_mass_formed."""
    data: Photometry
    shear: bool = struct.field(pytree_node=False, default=True)
    """Whether the mass coordinate is relative to its conditional best fit (a uniform prior on
    the log mass is required for it)."""

    @property
    def dimension(self) -> int:
        """Number of sampled coordinates."""
        return params.dimension(self.prior)

    @property
    def axes(self) -> Problem:
        """`in_axes` that maps over galaxies: prior and data, not the forward model."""
        in_axes: Any = {"prior": 0, "forward": None, "data": 0}
        return Problem(**in_axes, shear=self.shear)

    def constrain(self, x: Array) -> Any:
        """Theta at coordinates `x`."""
        return self.evaluate(x)[0]

    def unconstrain(self, theta: Any) -> Array:
        """Coordinates of a theta inside the prior's support."""
        x = params.unconstrain(self.prior, theta)
        if not self._sheared():
            return x
        best = self._best_mass(self.forward(theta), theta.log_mass_formed)
        return x.at[self._mass_index()].add(-best)

    def evaluate(self, x: Array) -> tuple[Any, Array, Array, Array]:
        """Theta, its normal coordinates u, the excess log prior, and the fluxes at `x`."""
        if not self._sheared():
            theta, u, excess = params.constrain(self.prior, x)
            return theta, u, excess, self.forward(theta)
        index = self._mass_index()
        # Evaluate at a reference mass, then scale: one call of the forward model.
        reference = params.constrain(self.prior, x.at[index].set(0.0))[0]
        flux = self.forward(reference)
        moved = x.at[index].add(self._best_mass(flux, reference.log_mass_formed))
        theta, u, excess = params.constrain(self.prior, moved)
        ratio = jnp.exp(params.LN10 * (theta.log_mass_formed - reference.log_mass_formed))
        return theta, u, excess, flux * ratio

    def residuals(self, flux: Array) -> Array:
        """[band] residuals of the detections in units of their uncertainties."""
        return self._whiten(flux * self.data.inverse_sigma - self.data.scaled)

    def log_likelihood(self, flux: Array) -> Array:
        """Log likelihood of model fluxes: Gaussian detections, censored upper limits.

        An upper limit contributes the probability that its measurement lies below it.  Constant
        terms of the Gaussian are left out.
        """
        gap = self.data.limit - flux * self.data.limit_inverse_sigma
        censored = jnp.where(self.data.limit_inverse_sigma > 0, log_ndtr(gap), 0.0)
        return -0.5 * jnp.sum(self.residuals(flux) ** 2) + jnp.sum(censored)

    def logdensity(self, x: Array) -> Array:
        """Log posterior density at coordinates `x`, up to a constant."""
        _, u, excess, flux = self.evaluate(x)
        return self.log_likelihood(flux) - 0.5 * jnp.sum(u**2) + excess

    def chi2(self, flux: Array) -> Array:
        """Sum of squared residuals of the detections."""
        return jnp.sum(self.residuals(flux) ** 2)

    def _whiten(self, scaled: Array) -> Array:
        return scaled if self.data.whitener is None else self.data.whitener @ scaled

    def _sheared(self) -> bool:
        return self.shear and isinstance(getattr(self.prior, MASS), dist.Uniform)

    def _mass_index(self) -> int:
        field = self.prior._fields.index(MASS)
        return sum(params.widths(self.prior)[:field])

    def _best_mass(self, flux: Array, log_mass: Array) -> Array:
        """Normal coordinate of the mass that fits best, given fluxes at another mass."""
        model = self._whiten(flux * self.data.inverse_sigma)
        data = self._whiten(self.data.scaled)
        norm = jnp.sum(model**2) + 1e-12
        scale = jnp.sum(model * data) / norm
        # A smooth positive version of the scale, for galaxies with no net detection.
        scale = 0.5 * (scale + jnp.sqrt(scale**2 + 4.0 / norm))
        prior = getattr(self.prior, MASS)
        best = log_mass + jnp.log(scale) / params.LN10
        margin = 1e-3 * (prior.high - prior.low)
        return params.to_normal(prior, jnp.clip(best, prior.low + margin, prior.high - margin))


def stack(problems: list[Problem]) -> Problem:
    """One batch from problems that share their forward model."""
    first = problems[0]
    prior, data = jax.tree.map(
        lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]),
        *[(p.prior, p.data) for p in problems],
    )
    return dataclasses.replace(first, prior=prior, data=data)
