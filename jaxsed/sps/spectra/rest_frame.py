"""The direct physics as a rest-frame spectrum model, at the wavelengths of an SSP grid."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.core.compiled import compiled
from jaxsed.core.constants import C_LIGHT
from jaxsed.core.types import Model, Theta
from jaxsed.rest_frame.spectrum import OnSpectralGrid, Resolution, SpectralGrid, spectral_grid
from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR, CharlotFall
from jaxsed.sps.populations.composite import Populations, metallicity, populations
from jaxsed.sps.ssp.grid import SSPGrid


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class RestSpectrum(OnSpectralGrid):
    """``model(theta) -> ln L_lambda`` [wave] in ln(Lsun/Angstrom per Msun formed), stars and dust.

    For the physics of `jaxsed.sps.models.registry` without gas, dust emission or a nucleus.
    """

    physics: Model
    stars: Populations
    dust: CharlotFall
    cosmology: cosmo.Cosmology
    ln_unit: Array
    """[wave] ln of Lsun/Angstrom per Msun formed, of one in the unit of `stars`."""
    birth_cloud_age: float = struct.field(pytree_node=False)
    """Gyr."""
    grid: SpectralGrid = struct.field(pytree_node=False)

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """ln L_lambda [wave] of one theta; its mass is not looked at."""
        t_age = cosmo.age(theta.redshift, self.cosmology)
        formation, log_z = self.physics.formation(theta, t_age), self.physics.log_z(theta)
        young, old = self.stars.light(formation, log_z)
        dust = self.physics.attenuation(theta)
        # The sum comes before the diffuse dust, which may let nothing through in float32.
        undimmed = self.ln_luminosity(self.dust.clouds(dust.birth_cloud) * young + old)
        return undimmed - self.dust.diffuse.depth(dust.diffuse, dust.index)

    def ln_luminosity(self, light: Array) -> Array:
        """ln L_lambda [wave] of light [wave] in the unit of `stars`."""
        return jnp.log(jnp.maximum(light, jnp.finfo(light.dtype).tiny)) + self.ln_unit


def rest_spectrum(
    physics: Model,
    ssp: SSPGrid,
    *,
    wave_range: tuple[float, float],
    fwhm: float | np.ndarray | None = None,
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
    scatter: float = metallicity.SCATTER_DEX,
    cosmology: cosmo.Cosmology = cosmo.PLANCK15,
) -> RestSpectrum:
    """Build the direct physics on the wavelengths of an SSP grid, for spectra.

    Args:
        physics: a callable that takes the `AgeAxis` and the solar log metallicity of the grid.
        ssp: the SSP grid.
        wave_range: lowest and highest rest-frame wavelength in Angstrom that is kept.
        fwhm: of the grid's spectra in Angstrom, a number or [wave] of the whole grid; default:
            two steps of the grid, which is the most that it can show.
        birth_cloud_age: Gyr.
        scatter: of metallicity at one age, dex.
        cosmology: for the age at a redshift.

    Raises ValueError for a range that the grid does not cover or a width that is not positive.
    """
    wave = np.asarray(ssp.wave, float)
    low, high = wave_range
    if not wave[0] <= low < high <= wave[-1]:
        raise ValueError(
            f"expected a range within the grid's {wave[0]:.5g} to {wave[-1]:.5g} Angstrom, got "
            f"{wave_range}"
        )
    kept = (wave >= low) & (wave <= high)
    width = 2 * np.gradient(wave) if fwhm is None else np.broadcast_to(fwhm, wave.shape)
    wave, width = wave[kept], np.asarray(width, float)[kept]
    cut = dataclasses.replace(ssp, wave=wave, lnu=np.asarray(ssp.lnu)[:, :, kept])
    # Of the order of one in this unit, as float32 likes it; taken off again by `ln_unit`.
    unit = 1e15
    stars = populations(cut, birth_cloud_age=birth_cloud_age, scatter=scatter, unit=unit)
    text = ssp.resolution if fwhm is None else f"{ssp.name}, {np.median(width):.3g} Angstrom FWHM"
    return RestSpectrum(
        physics=physics(stars.axis, stars.log_z_solar),
        stars=stars,
        dust=CharlotFall.build(wave),
        cosmology=cosmology,
        ln_unit=jnp.asarray(np.log(C_LIGHT / wave**2 / unit), dtype=float),
        birth_cloud_age=birth_cloud_age,
        grid=spectral_grid(wave, Resolution(width, text or "two steps of the grid")),
    )
