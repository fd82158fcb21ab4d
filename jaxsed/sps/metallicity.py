"""Metallicities as weights on the metallicity axis of an SSP grid."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.lax import erf

from jaxsed.sps.sfh import INV_SQRT_2PI, SQRT_HALF

SCATTER_DEX = 0.2
"""Default scatter of the metallicity of stars of one age, in dex (that of DSPS, Hearin+ 2023)."""


def weights(log_z: Array, nodes: Array, scatter: float = SCATTER_DEX) -> Array:
    """Weights of the metallicity nodes for stars with lognormally distributed metallicity.

    Linear interpolation in log Z, averaged over a Gaussian of width `scatter`: positive, summing
    to one, and smooth in `log_z` to every order, where plain linear interpolation has kinks
    that hold a Hamiltonian sampler up.  Beyond the grid the end nodes are used.

    Args:
        log_z: [age] log10 of the mean metallicity.
        nodes: [met] log10 metallicities of the grid, increasing.
        scatter: dex.

    Returns:
        [met, age].
    """
    # The Gaussian average of max(0, node - z): a ramp without its kink.  All combinations of ramps
    # in one product: written out one by one, the compiler works each ramp out three times.
    ramp = scatter * _ramp((nodes[:, None] - log_z) / scatter)
    n = nodes.size
    below = (jnp.eye(n - 1, n, 1) - jnp.eye(n - 1, n)) / jnp.diff(nodes)[:, None]
    combine = jnp.concatenate([below[:1], jnp.diff(below, axis=0), -below[-1:]])
    share = jnp.matmul(combine, ramp, precision="highest")
    return share.at[-1].add(1.0)


def _ramp(x: Array) -> Array:
    """Mean of max(0, x + e) over a standard-normal e."""
    return x * (0.5 + 0.5 * erf(x * SQRT_HALF)) + INV_SQRT_2PI * jnp.exp(-0.5 * x**2)
