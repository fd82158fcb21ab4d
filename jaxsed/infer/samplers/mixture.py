"""A mixture of Student t learned from warm-up draws, as a proposal for global moves.

Posteriors of galaxies are thin and curved: a Hamiltonian trajectory follows them in many small
steps.  A proposal drawn from a mixture fitted to earlier draws crosses them at once, and between
modes; the Metropolis-Hastings test against the exact density keeps the posterior exact however
rough the mixture is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core import linear_algebra
from jaxsed.core.types import Key

COMPONENTS = 16
DEGREES = 5
"""Degrees of freedom: proposals with tails thinner than the posterior's would leave chains stuck
where it is under-covered."""
ITERATIONS = 20
SHRINKAGE_DRAWS = 15.0
"""Weight, in draws, of the pooled covariance in the covariance of a component."""
POOLED_SHARE = 0.25
"""The pooled covariance enters a component scaled by this."""
BROAD_WEIGHT = 0.1
BROAD_SCALE = 1.5
"""Weight and width of one more component that covers all draws with room to spare."""


class Mixture(NamedTuple):
    """Mixture of multivariate Student t in the coordinates of a problem."""

    log_weight: Array
    """[component]."""
    mean: Array
    """[component, dimension]."""
    scale: Array
    """[component, dimension, dimension] lower-triangular factors of the scale matrices."""
    inverse: Array
    """[component, dimension, dimension] their inverses: products are far faster than solves."""

    def log_density(self, x: Array) -> Array:
        """Log density at `x` [dimension]."""
        return jax.scipy.special.logsumexp(self.log_weight + self._log_student(x))

    def sample(self, key: Key, n: int) -> Array:
        """Draws [n, dimension]."""
        key_which, key_where = jax.random.split(key)
        # Random numbers cost as much as a likelihood: one uniform chooses, not one per component.
        upper = jnp.cumsum(jnp.exp(self.log_weight))
        which = jax.random.uniform(key_which, (n,)) * upper[-1]
        k = jnp.sum(which[:, None] >= upper[:-1], axis=1)
        dimension = self.mean.shape[1]
        normals = jax.random.normal(key_where, (n, dimension + DEGREES))
        tail = jnp.sum(normals[:, dimension:] ** 2, axis=1) / DEGREES
        step = jnp.einsum("nij,nj->ni", self.scale[k], normals[:, :dimension])
        return self.mean[k] + step * jax.lax.rsqrt(tail)[:, None]

    def _log_student(self, x: Array) -> Array:
        z = jnp.einsum("kij,kj->ki", self.inverse, x - self.mean)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.inverse, axis1=1, axis2=2)), axis=1)
        n = x.size
        constant = math.lgamma((DEGREES + n) / 2) - math.lgamma(DEGREES / 2)
        constant -= 0.5 * n * math.log(DEGREES * math.pi)
        return constant + log_det - 0.5 * (DEGREES + n) * jnp.log1p(jnp.sum(z**2, axis=1) / DEGREES)


def mixture(log_weight: Array, mean: Array, scale: Array) -> Mixture:
    """A `Mixture` from weights, means and lower-triangular factors."""
    return Mixture(log_weight, mean, scale, jax.vmap(linear_algebra.inverse_lower)(scale))


def broad(centre: Array, scale: Array) -> Mixture:
    """A mixture before there are draws: one component, repeated."""
    n = COMPONENTS + 1
    return mixture(
        jnp.full(n, -math.log(n), centre.dtype),
        jnp.broadcast_to(centre, (n, centre.size)),
        jnp.broadcast_to(BROAD_SCALE * scale, (n, *scale.shape)),
    )


def spread(draws: Array) -> tuple[Array, Array]:
    """Mean and lower-triangular factor of the covariance of draws [draw, dimension]."""
    covariance = jnp.cov(draws.T) + 1e-6 * jnp.eye(draws.shape[1])
    return jnp.mean(draws, axis=0), linear_algebra.cholesky(covariance)


def fit(key: Key, draws: Array) -> Mixture:
    """Expectation-maximisation of Gaussians on draws [draw, dimension], with shrunken covariances.

    The Gaussians' covariances then serve as scale matrices.
    """
    n, dimension = draws.shape
    mean, factor = spread(draws)
    z = (draws - mean) @ linear_algebra.inverse_lower(factor).T
    pooled = POOLED_SHARE * jnp.eye(dimension)

    # Quadratic forms and second moments as matrix products over the pairs of coordinates.
    first, second = np.tril_indices(dimension)
    whole = np.zeros((dimension, dimension), int)
    whole[first, second] = whole[second, first] = np.arange(first.size)
    twice = jnp.where(first == second, 1.0, 2.0)
    features = jnp.concatenate([z[:, first] * z[:, second], z, jnp.ones((n, 1))], axis=1)
    pairs = features[:, : first.size]

    def log_normal(at: Mixture) -> Array:
        precision = jnp.einsum("kji,kjl->kil", at.inverse, at.inverse)
        linear = jnp.einsum("kil,kl->ki", precision, at.mean)
        log_det = jnp.sum(jnp.log(jnp.diagonal(at.inverse, axis1=1, axis2=2)), axis=1)
        constant = log_det + at.log_weight - 0.5 * jnp.sum(linear * at.mean, axis=1)
        flat = -0.5 * twice * precision[:, first, second]
        return features @ jnp.concatenate([flat, linear, constant[:, None]], axis=1).T

    def step(_: int, at: Mixture) -> Mixture:
        share = jax.nn.softmax(log_normal(at), axis=1)
        count = jnp.sum(share, axis=0)
        centre = (share.T @ z) / (count[:, None] + 1e-6)
        moments = (share.T @ pairs)[:, whole]
        spread = moments - count[:, None, None] * centre[:, :, None] * centre[:, None, :]
        count_blended = (count + SHRINKAGE_DRAWS)[:, None, None]
        blend = (spread + SHRINKAGE_DRAWS * pooled) / count_blended + 1e-5 * jnp.eye(dimension)
        weight = jnp.log((count + 1.0) / (n + COMPONENTS))
        return mixture(weight, centre, jax.vmap(linear_algebra.cholesky)(blend))

    identity = jnp.broadcast_to(jnp.eye(dimension), (COMPONENTS, dimension, dimension))
    start = mixture(
        jnp.full(COMPONENTS, -math.log(COMPONENTS), z.dtype),
        z[jax.random.choice(key, n, (COMPONENTS,), replace=False)],
        jnp.sqrt(POOLED_SHARE) * identity,
    )
    found = jax.lax.fori_loop(0, ITERATIONS, step, start)
    complete = mixture(
        jnp.append(found.log_weight + math.log(1 - BROAD_WEIGHT), math.log(BROAD_WEIGHT)),
        jnp.vstack([mean + found.mean @ factor.T, mean]),
        jnp.concatenate([factor @ found.scale, BROAD_SCALE * factor[None]]),
    )
    good = jnp.all(jnp.isfinite(complete.scale)) & jnp.all(jnp.isfinite(complete.mean))
    fallback = broad(mean, factor)
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), complete, fallback)
