"""How well the draws of posteriors fit."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array

from jaxsed.likelihood.photometry import Photometry
from jaxsed.likelihood.redshifted import RedshiftedPhotometry


def smallest_chi2(
    data: Photometry | RedshiftedPhotometry, flux: np.ndarray, redshift: np.ndarray
) -> np.ndarray:
    """[galaxy] smallest chi-square of the draws, of the detections alone.

    In NumPy, since galaxies come in batches of any size, each of which JAX would compile anew.

    Args:
        data: those of a batch, with a leading galaxy axis.
        flux: [galaxy, chain, draw, band] predicted fluxes, maggies.
        redshift: [galaxy, chain, draw]; read where the weights of bands depend on it.
    """
    scaled = flux * np.asarray(data.inverse_sigma)[:, None, None]
    residual = scaled - np.asarray(data.scaled)[:, None, None]
    if isinstance(data, RedshiftedPhotometry):
        residual = residual * weights_of_draws(data, redshift)
    elif data.whitener is not None:
        residual = np.einsum("gij,gcdj->gcdi", np.asarray(data.whitener), residual)
    return (residual**2).sum(axis=-1).min(axis=(1, 2))


@jax.jit
def weights_of_draws(data: RedshiftedPhotometry, redshift: Array) -> Array:
    """[galaxy, chain, draw, band] weights of the detections at the redshifts of the draws."""
    draws = jax.vmap(jax.vmap(RedshiftedPhotometry.weight, (None, 0)), (None, 0))
    return jax.vmap(draws)(data, redshift)
