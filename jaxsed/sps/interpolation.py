"""Interpolation that gradient samplers can live with."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.lax import erf

from jaxsed.core.compiled import compiled
from jaxsed.sps.populations.sfh import INV_SQRT_2PI, SQRT_HALF


@compiled
def smooth_weights(x: Array, nodes: Array, scatter: float) -> Array:
    """Weights [node, point] of linear interpolation at `x` [point], averaged over a Gaussian.

    Positive, summing to one, and smooth in `x` to every order, where plain linear interpolation
    has kinks that hold a Hamiltonian sampler up.  Beyond the grid the end nodes are used.

    Args:
        x: [point] where to interpolate.
        nodes: [node] increasing.
        scatter: standard deviation of the Gaussian, in the unit of `x`.
    """
    # The Gaussian average of max(0, node - x): a ramp without its kink.  All combinations of ramps
    # in one product: written out one by one, the compiler works each ramp out three times.
    ramp = scatter * _ramp((nodes[:, None] - x) / scatter)
    n = nodes.size
    below = (jnp.eye(n - 1, n, 1) - jnp.eye(n - 1, n)) / jnp.diff(nodes)[:, None]
    combine = jnp.concatenate([below[:1], jnp.diff(below, axis=0), -below[-1:]])
    share = jnp.matmul(combine, ramp, precision="highest")
    return share.at[-1].add(1.0)


def _ramp(x: Array) -> Array:
    """Mean of max(0, x + e) over a standard-normal e."""
    return x * (0.5 + 0.5 * erf(x * SQRT_HALF)) + INV_SQRT_2PI * jnp.exp(-0.5 * x**2)
