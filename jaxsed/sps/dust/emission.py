"""Infrared emission of dust (Draine & Li 2007), for the energy that it absorbs.

Most of the dust sees starlight of one intensity U_min; a share gamma sees a power law of
intensities above it.  The spectrum is normalised to unit luminosity: how much there is follows
from the light that the attenuation takes away.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.sps.interpolation import smooth_weights
from jaxsed.sps.ssp.wavelengths import energy_weights
from jaxsed.sps.templates import DustTable

SMOOTHING_Q_PAH = 0.1
"""Width (percent of the dust mass) of the Gaussian that rounds off the interpolation."""
SMOOTHING_LN_U = 0.1
"""The same for ln of the starlight intensity."""


@struct.dataclass
class DustEmission:
    """Dust spectra on the wavelengths of a model, from `first` on."""

    table: Array
    """[2 * q * u, infrared] emissivity over U_min, in units of `power`."""
    power: Array
    """[2 * q * u] its integral over frequency."""
    q_pah: Array
    """[q] percent."""
    ln_u: Array
    """[u] ln of U_min."""
    first: int = struct.field(pytree_node=False)
    """Wavelengths of the model before the first of the table, where dust does not shine."""

    @compiled
    def __call__(self, q_pah: Array, u_min: Array, gamma: Array) -> Array:
        """Spectrum [wave] per Hz for unit luminosity (Draine & Li 2007, eq. 23).

        Args:
            q_pah: percent of the dust mass in PAHs; beyond the table its ends are used.
            u_min: lowest starlight intensity, in the local unit.
            gamma: share of the dust that sees more than `u_min`.
        """
        pah = smooth_weights(jnp.asarray(q_pah)[None], self.q_pah, SMOOTHING_Q_PAH)
        heat = smooth_weights(jnp.log(jnp.asarray(u_min))[None], self.ln_u, SMOOTHING_LN_U)
        share = (pah * heat[:, 0]).ravel()
        share = jnp.concatenate([(1 - gamma) * share, gamma * share])
        spectrum = (share @ self.table) / (share @ self.power)
        return jnp.pad(spectrum, (self.first, 0))


def dust_emission(table: DustTable, wave: np.ndarray) -> DustEmission:
    """Put a dust table on a model's wavelengths [wave] in Å."""
    emissivity = np.exp(table.ln_emissivity)
    # Divided by U the emissivity hardly changes in size, and is interpolated best.
    emissivity = emissivity / table.u_min[:, None, None]
    rows = np.moveaxis(emissivity, 2, 0).reshape(-1, table.wave.size)
    power = rows @ energy_weights(table.wave)
    unit = power.mean()
    first = min(int(np.searchsorted(wave, table.wave[0])), wave.size)
    ln_wave, at = np.log(table.wave), np.log(wave[first:])
    seen = np.stack([np.interp(at, ln_wave, row, right=0.0) for row in rows])
    return DustEmission(
        table=jnp.asarray(seen / unit, dtype=float),
        power=jnp.asarray(power / unit, dtype=float),
        q_pah=jnp.asarray(table.q_pah, dtype=float),
        ln_u=jnp.asarray(np.log(table.u_min), dtype=float),
        first=first,
    )
