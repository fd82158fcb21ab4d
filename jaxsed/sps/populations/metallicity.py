"""Metallicities as weights on the metallicity axis of an SSP grid."""

from __future__ import annotations

from jax import Array

from jaxsed.sps.interpolation import smooth_weights

SCATTER_DEX = 0.2
"""Default scatter of the metallicity of stars of one age, in dex (that of DSPS, Hearin+ 2023)."""


def weights(log_z: Array, nodes: Array, scatter: float = SCATTER_DEX) -> Array:
    """Weights [met, age] of the metallicity nodes for stars with lognormal metallicities.

    Linear interpolation in log Z, averaged over the stars of one age; see `smooth_weights`.

    Args:
        log_z: [age] log10 of the mean metallicity.
        nodes: [met] log10 metallicities of the grid, increasing.
        scatter: dex.
    """
    return smooth_weights(log_z, nodes, scatter)
