"""A problem is a prior, a forward model and data: everything a sampler needs, as one pytree.

A batch of galaxies is a `Problem` whose prior and data leaves have a leading axis; the forward
model is shared.  `axes` is the `in_axes` that maps over such a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.likelihood import Data

MASS = "log_mass_formed"


@struct.dataclass
class Problem:
    """Prior, forward model and data of one galaxy, and the posterior that follows.

    Samplers move in coordinates ``x`` [dimension].  They are the coordinates of the prior (see
    `params.constrain`), except that the mass is measured from its conditional best fit: light is
    proportional to mass, so for any other parameters the best mass is known in closed form,
    and the sampled coordinate is the difference from it.  This is a shear, whose Jacobian is one,
    so the posterior is exactly the same while its strongest degeneracy is gone.
    """

    prior: Any
    """Theta of distributions; numbers where a parameter is known."""
    forward: Callable[[Any], Any]
    """``forward(theta) -> prediction`` of the kind that `data` takes (for `Photometry` fluxes
    [band] in maggies), proportional to 10**log_mass_formed."""
    data: Data
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

    def evaluate(self, x: Array) -> tuple[Any, Array, Array, Any]:
        """Theta, its normal coordinates u, the excess log prior, and the prediction at `x`."""
        if not self._sheared():
            theta, u, excess = params.constrain(self.prior, x)
            return theta, u, excess, self.forward(theta)
        index = self._mass_index()
        # Evaluate at a reference mass, then scale: one call of the forward model.
        reference = params.constrain(self.prior, x.at[index].set(0.0))[0]
        prediction = self.forward(reference)
        moved = x.at[index].add(self._best_mass(prediction, reference.log_mass_formed))
        theta, u, excess = params.constrain(self.prior, moved)
        ratio = jnp.exp(params.LN10 * (theta.log_mass_formed - reference.log_mass_formed))
        return theta, u, excess, self.data.rescaled(prediction, ratio)

    def residuals(self, prediction: Any) -> Array:
        """[residual] residuals whose squares sum to chi-square, in units of the uncertainties."""
        return self.data.residuals(prediction)

    def log_likelihood(self, prediction: Any) -> Array:
        """Log likelihood of a prediction, up to a constant."""
        return self.data.log_likelihood(prediction)

    def logdensity(self, x: Array) -> Array:
        """Log posterior density at coordinates `x`, up to a constant."""
        _, u, excess, prediction = self.evaluate(x)
        return self.log_likelihood(prediction) - 0.5 * jnp.sum(u**2) + excess

    def guarded_logdensity(self, x: Array) -> Array:
        """`logdensity`, but minus infinity where it is not a number: samplers reject such a point,
        where a not-a-number would stop a chain for good."""
        value = self.logdensity(x)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def chi2(self, prediction: Any) -> Array:
        """Sum of squared residuals."""
        return jnp.sum(self.residuals(prediction) ** 2)

    def _sheared(self) -> bool:
        return self.shear and isinstance(getattr(self.prior, MASS), dist.Uniform)

    def _mass_index(self) -> int:
        field = self.prior._fields.index(MASS)
        return sum(params.widths(self.prior)[:field])

    def _best_mass(self, prediction: Any, log_mass: Array) -> Array:
        """Normal coordinate of the mass that fits best, given a prediction at another mass."""
        norm, overlap = self.data.normal_equation(prediction)
        norm = norm + 1e-12
        scale = overlap / norm
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
