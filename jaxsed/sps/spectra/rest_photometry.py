"""Fluxes in bands from a rest-frame spectrum model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.bands.filters import Filter
from jaxsed.bands.projection import BandProjector, project
from jaxsed.core.compiled import compiled
from jaxsed.core.constants import C_LIGHT, MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.core.types import Theta
from jaxsed.rest_frame.spectrum import RestModel
from jaxsed.sps.models.galaxy import LN_STEP, amplitude, check_reach
from jaxsed.sps.spectra.banded import BandedMatrix, energy_matrix
from jaxsed.sps.spectra.pixels import cosmology_of
from jaxsed.sps.ssp.wavelengths import log_wave_grid


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class RestPhotometry:
    """``model(theta) -> flux`` [band] in maggies of the whole galaxy."""

    rest: Any
    """The rest-frame spectrum model."""
    to_grid: BandedMatrix
    """[grid, wave] energy per ln(wavelength) on the grid of the bands."""
    per_energy: Array
    """[grid] maggies at 10 pc for 1e10 Msun, per energy."""
    bands: BandProjector
    cosmology: cosmo.Cosmology

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """Fluxes in maggies, [band]."""
        return self.observe(theta, self.rest(theta))

    def observe(self, theta: Theta, ln_light: Array) -> Array:
        """The same from the rest-frame spectrum ln L_lambda [wave] of this theta."""
        spectrum = self.to_grid(jnp.exp(ln_light)) * self.per_energy
        flux = self.bands(spectrum, theta.redshift) * (1 + theta.redshift)
        return flux * amplitude(theta, self.cosmology)


def rest_photometry(
    rest: RestModel,
    bands: Sequence[Filter],
    *,
    redshift_range: tuple[float, float],
    cosmology: cosmo.Cosmology | None = None,
) -> RestPhotometry:
    """Build the fluxes of a rest-frame spectrum model in these bands.

    `cosmology` sets the distance; it is that of `rest` if not given.

    Raises ValueError naming the bands that the model does not reach in this redshift range, or if
    the model is of another cosmology than the one given.
    """
    cosmology = cosmology_of(rest, cosmology)
    z_low, z_high = redshift_range
    wave = np.asarray(rest.wave, float)
    check_reach("model", bands, wave, redshift_range)
    low = min(b.wave[0] for b in bands) / (1 + z_high) * 0.97
    high = max(b.wave[-1] for b in bands) / (1 + z_low) * 1.03
    grid = log_wave_grid(low, high, LN_STEP)
    step = np.log(grid[-1] / grid[0]) / (grid.size - 1)
    # nu L_nu = lambda L_lambda, so L_nu is the energy per ln(wavelength) times lambda / c.
    return RestPhotometry(
        rest=rest,
        to_grid=energy_matrix(wave, float(np.log(grid[0])), float(step), grid.size),
        per_energy=jnp.asarray(grid * (1e10 * MAGGIES_10PC_PER_LSUN_HZ / C_LIGHT), dtype=float),
        bands=project(bands, grid),
        cosmology=cosmology,
    )
