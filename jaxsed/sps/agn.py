"""The dusty torus of an active nucleus (Nenkova+ 2008, as in Leja+ 2018)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.sps.interpolation import smooth_weights
from jaxsed.sps.templates import TorusTable

SMOOTHING_LN_TAU = 0.1
"""Width of the Gaussian that rounds off the interpolation in ln of the optical depth."""


@struct.dataclass
class Torus:
    """Torus spectra on the wavelengths of a model."""

    table: Array
    """[tau, wave] Lnu for unit luminosity."""
    ln_tau: Array
    """[tau] ln of the optical depth of a clump at 5500 Å."""

    @compiled
    def __call__(self, tau: Array) -> Array:
        """Spectrum [wave] per Hz for unit luminosity; beyond the table its ends are used."""
        ln_tau = jnp.log(jnp.asarray(tau))[None]
        return smooth_weights(ln_tau, self.ln_tau, SMOOTHING_LN_TAU)[:, 0] @ self.table


def torus(table: TorusTable, wave: np.ndarray) -> Torus:
    """Put a torus table on a model's wavelengths [wave] in Å."""
    ln_wave, at = np.log(table.wave), np.log(wave)
    rows = np.stack([np.interp(at, ln_wave, np.maximum(row, -600.0)) for row in table.ln_lnu])
    return Torus(
        jnp.asarray(np.exp(rows), dtype=float), jnp.asarray(np.log(table.tau), dtype=float)
    )
