"""The mass of a galaxy, sampled relative to the one that fits best.

Light is proportional to mass, so for any other parameters the best mass is known in closed form.
A sampled coordinate that is the difference from it takes the strongest degeneracy of a posterior
away.  This is a shear, whose Jacobian is one, so the posterior is exactly the same.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp
import numpyro.distributions as dist
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.core.types import Forward, Numbers, Prediction, Prior, Theta
from jaxsed.likelihood.data import Data
from jaxsed.params import Constrained

MASS = "log_mass_formed"


class ScalableData(Data, Protocol):
    """Data of light, whose predictions are proportional to the mass."""

    def normal_equation(self, prediction: Prediction) -> tuple[Array, Array]:
        """``m C^-1 m`` and ``m C^-1 d`` of model and data: the second over the first is the
        factor on the model that fits best."""

    def rescaled(self, prediction: Prediction, factor: Array) -> Numbers:
        """The prediction for a galaxy of `factor` times the mass."""


@struct.dataclass
class MassShear:
    """The coordinate of ``log_mass_formed`` is relative to its conditional best fit.

    Forward models of galaxies name it as their ``transform``.  It acts where the prior on the log
    mass is uniform, and data follow `ScalableData`; under another prior the coordinates are those
    of the prior.
    """

    def evaluate(
        self, prior: Prior, forward: Forward, data: Any, x: Array
    ) -> tuple[Constrained, Any]:
        """Theta at sampled coordinates x [dimension], and the prediction there."""
        if not _acts(prior):
            at = params.constrain(prior, x)
            return at, forward(at.theta)
        index = _index(prior)
        # Evaluate at a reference mass, then scale: one call of the forward model.
        reference = params.constrain(prior, x.at[index].set(0.0)).theta
        prediction = forward(reference)
        best = _best(prior, data, prediction, reference.log_mass_formed)
        at = params.constrain(prior, x.at[index].add(best))
        gap = at.theta.log_mass_formed - reference.log_mass_formed
        return at, data.rescaled(prediction, jnp.exp(params.LN10 * gap))

    def unconstrain(
        self, prior: Prior, forward: Forward, data: Any, theta: Theta
    ) -> Array:
        """[dimension] sampled coordinates of a theta inside the prior's support."""
        x = params.unconstrain(prior, theta)
        if not _acts(prior):
            return x
        best = _best(prior, data, forward(theta), theta.log_mass_formed)
        return x.at[_index(prior)].add(-best)


def _acts(prior: Prior) -> bool:
    return isinstance(getattr(prior, MASS), dist.Uniform)


def _index(prior: Prior) -> int:
    """Position of the mass among the coordinates."""
    return sum(params.widths(prior)[: prior._fields.index(MASS)])


def _best(prior: Prior, data: ScalableData, prediction: Prediction, log_mass: Array) -> Array:
    """Normal coordinate of the mass that fits best, given a prediction at another mass."""
    norm, overlap = data.normal_equation(prediction)
    norm = norm + 1e-12
    scale = overlap / norm
    # A smooth positive version of the scale, for galaxies with no net detection.
    scale = 0.5 * (scale + jnp.sqrt(scale**2 + 4.0 / norm))
    own = getattr(prior, MASS)
    best = log_mass + jnp.log(scale) / params.LN10
    margin = 1e-3 * (own.high - own.low)
    return params.to_normal(own, jnp.clip(best, own.low + margin, own.high - margin))
