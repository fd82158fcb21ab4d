"""Light of the gas around young stars: continuum and lines driven by their ionising photons.

The grid is that of CLOUDY models per ionising photon (Byler+ 2017), so the emission follows the
stars of the model itself, with a gas metallicity and an ionisation parameter of its own. All
ionising photons of stars inside birth clouds are absorbed by gas; the light that results leaves
through the same dust as those stars.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.core.constants import H_PLANCK, LSUN, LYMAN_LIMIT
from jaxsed.sps.interpolation import smooth_weights
from jaxsed.sps.ssp.grid import LOG_NLYC_NONE, SSPGrid
from jaxsed.sps.ssp.wavelengths import deposit_lines, mean_over_hats
from jaxsed.sps.templates import NebularTable

PHOTON_UNIT = 1e47
"""Ionising photons/s in which rates are counted: those of some Msun, for float32."""

SMOOTHING_DEX = 0.05
"""Width of the Gaussian that rounds off the interpolation in gas metallicity."""

_LN_DARK = -600.0
"""Stands for no light in logarithms that are interpolated."""


@struct.dataclass
class Nebular:
    """Nebular spectra on the wavelengths and young ages of a model."""

    table: Array
    """[met * age, wave] Lnu per `PHOTON_UNIT`, in the unit of the model's spectra."""
    log_z: Array
    """[met] log10 of the gas metallicity in solar units."""

    @compiled
    def __call__(self, ionising: Array, log_z_gas: Array) -> Array:
        """Spectrum [wave] of the gas.

        Args:
            ionising: [age] photons/s from the stars at each young age node, in `PHOTON_UNIT`.
            log_z_gas: log10 of the gas metallicity in solar units.
        """
        share = smooth_weights(jnp.asarray(log_z_gas)[None], self.log_z, SMOOTHING_DEX)
        return (share * ionising).ravel() @ self.table


def nebular(
    table: NebularTable, wave: np.ndarray, age: np.ndarray, *, log_u: float, unit: float
) -> Nebular:
    """Put a nebular grid on a model's wavelengths and ages.

    Args:
        table: the grid.
        wave: [wave] Å of the model.
        age: [age] Gyr of the young age nodes; beyond the grid's ages its ends are used.
        log_u: log10 of the ionisation parameter.
        unit: of the model's spectra, per Lsun/Hz.

    Raises ValueError if `log_u` is outside the grid.
    """
    if not table.log_u[0] <= log_u <= table.log_u[-1]:
        raise ValueError(
            f"log_u = {log_u:g} is outside the nebular grid, {table.log_u[0]:g} to "
            f"{table.log_u[-1]:g}: choose one inside"
        )
    log_age = np.log10(np.asarray(age, float))
    ln_line = _along(_along(table.ln_line, 2, table.log_u, log_u), 1, table.log_age, log_age)
    ln_continuum = _along(table.ln_continuum, 2, table.log_u, log_u)
    ln_continuum = _along(ln_continuum, 1, table.continuum_log_age, log_age)
    ln_continuum = _along(ln_continuum, 0, table.continuum_log_z, table.log_z)
    light = mean_over_hats(table.wave, np.exp(ln_continuum), wave)
    inside = (table.line_wave > wave[0]) & (table.line_wave < wave[-1])
    light = deposit_lines(wave, light, table.line_wave[inside], np.exp(ln_line[..., inside]))
    rows = light.reshape(-1, light.shape[-1]) * (unit * PHOTON_UNIT)
    return Nebular(jnp.asarray(rows, dtype=float), jnp.asarray(table.log_z, dtype=float))


def ionising_photons(ssp: SSPGrid) -> np.ndarray:
    """[met, age] log10 of the ionising photons/s per Msun formed: listed, or from the spectra.

    Raises ValueError for a grid that lists none and has no light below the Lyman limit.
    """
    if ssp.log_nlyc is not None:
        return np.asarray(ssp.log_nlyc, float)
    wave, lnu = np.asarray(ssp.wave, float), np.asarray(ssp.lnu, float)
    blue = wave <= LYMAN_LIMIT
    if blue.sum() < 2 or not np.any(lnu[..., blue] > 0):
        raise ValueError(
            f"the SSP grid {ssp.name!r} has neither ionising photon rates nor light below "
            f"{LYMAN_LIMIT:g} Å: nebular emission needs one of them"
        )
    # photons/s = int Lnu / (h nu) dnu = int Lnu dln(lambda) / h
    rate = np.trapezoid(lnu[..., blue], np.log(wave[blue])) * (LSUN / H_PLANCK)
    return np.log10(np.maximum(rate, 10.0**LOG_NLYC_NONE))


def _along(values: np.ndarray, axis: int, nodes: np.ndarray, x: np.ndarray | float) -> np.ndarray:
    """Linear interpolation along an axis, the ends continued; a scalar `x` removes the axis."""
    values = np.moveaxis(np.maximum(values, _LN_DARK), axis, 0)
    clipped = np.clip(np.asarray(x, float), nodes[0], nodes[-1])
    upper = np.clip(np.searchsorted(nodes, clipped), 1, nodes.size - 1)
    share = (clipped - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])
    share = share.reshape(np.shape(x) + (1,) * (values.ndim - 1))
    result = (1 - share) * values[upper - 1] + share * values[upper]
    return result if np.ndim(x) == 0 else np.moveaxis(result, 0, axis)
