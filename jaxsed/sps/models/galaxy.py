"""The composite spectrum of a galaxy, and its fluxes: the direct physics.

``L(lambda) = T_ism [ T_bc sum_young w L_ssp + sum_old w L_ssp ]`` (Charlot & Fall 2000): the
weights of the simple stellar populations, split at the birth-cloud age, times the SSP grid are
two matrix products, the dust comes after, and the bands are a third product.  Models that ask
for it add the gas that their own ionising photons light up, a torus, and the dust's emission of
what it absorbed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.bands.filters import Filter
from jaxsed.bands.magnitudes import ln_amplitude
from jaxsed.bands.projection import BandProjector, project
from jaxsed.core.compiled import compiled
from jaxsed.core.constants import LYMAN_LIMIT, MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.core.types import Model, Numbers, Prior, Theta
from jaxsed.likelihood import MassShear
from jaxsed.params import LN10
from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR, CharlotFall
from jaxsed.sps.energy_balance import Emission, EmissionState, EmissionTables, emission
from jaxsed.sps.gas.nebular import ionising_photons
from jaxsed.sps.igm import IGMTable, igm_table
from jaxsed.sps.populations.composite import (
    SFR_TIMES_GYR,
    Formation,
    Populations,
    metallicity,
    populations,
)
from jaxsed.sps.populations.sfh import node_mass
from jaxsed.sps.ssp.grid import SSPGrid, resample, with_red_tail
from jaxsed.sps.ssp.wavelengths import log_wave_grid

LN_STEP = 0.005
"""Default step of the rest-frame grid in ln(wavelength): 25 Å at 5000 Å, for photometry."""

STARLIGHT_END = 32_000.0
"""Rest-frame wavelength in Å by which all light that dust absorbs has been counted."""

A_V_PER_TAU = 2.5 / LN10
"""Magnitudes of attenuation per unit optical depth."""


class Attenuation(NamedTuple):
    """Dust of one galaxy: optical depths at 5500 Å and the slope of the diffuse curve."""

    birth_cloud: Array
    diffuse: Array
    index: Array  # type: ignore[assignment]  # the name of tuple.index


class Derived(NamedTuple):
    """Quantities of one galaxy that follow from its theta."""

    log_mass_surviving: Array
    """log10 Msun in living stars and remnants today."""
    log_sfr_10myr: Array
    """log10 Msun/yr, averaged over the last 10 Myr (or the galaxy's age, if less)."""
    log_sfr_100myr: Array
    log_sfr_1gyr: Array
    log_z_mw: Array
    """log10 of the mass-weighted metallicity in solar units."""
    t_age_mw: Array
    """Mass-weighted age in Gyr."""
    a_v: Array
    """Attenuation by the diffuse dust at 5500 Å, in mag: 1.086 times its optical depth."""
    t50: Array
    """Lookback time in Gyr by which half of the mass had formed."""
    t90: Array
    """Lookback time in Gyr by which 90 % of the mass had formed."""
    sfr: Array
    """[age] Msun/yr, the mean in each age interval of the grid."""


class Physics(Protocol):
    """What a galaxy is made of: a star formation and metallicity history, and dust."""

    def formation(self, theta: Theta, t_age: Array) -> Formation:
        """Mass formed per age interval, one in total over both parts."""

    def log_z(self, theta: Theta) -> Array:
        """[age] log10 of the absolute metallicity of the stars at each age node."""

    def attenuation(self, theta: Theta) -> Attenuation:
        """The dust."""


class EmittingPhysics(Physics, Protocol):
    """Physics whose gas, dust and nucleus shine."""

    def emission(self, theta: Theta) -> EmissionState:
        """Gas, dust emission and nucleus."""


@struct.dataclass(eq=False)  # equal only if the same object, so that jax.jit(model) can hash it
class GalaxyModel:
    """The direct physics: ``model(theta) -> flux`` in maggies per band, for one galaxy."""

    physics: Model
    stars: Populations
    dust: CharlotFall
    igm: IGMTable
    bands: BandProjector
    cosmology: cosmo.Cosmology
    emission: Emission | None
    """Gas, dust and torus of models that have them."""
    name: str = struct.field(pytree_node=False)
    own_prior: Callable[..., Any] | None = struct.field(pytree_node=False, default=None)
    """``prior(redshift, cosmology)`` that goes with the physics."""

    transform = MassShear()
    """Of problems with this model, see `jaxsed.Problem`."""

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """Fluxes in maggies, [band]."""
        return self.shape(theta) * amplitude(theta, self.cosmology)

    def prior(self, redshift: Numbers, **changes: Any) -> Prior:
        """The prior of theta at a redshift, which is a number or a distribution.

        `changes` replace the distributions of some parameters, or set them to known numbers.
        """
        if self.own_prior is None:
            raise ValueError("this model has no prior of its own: see sps.models.registry.family")
        return self.own_prior(redshift, self.cosmology)._replace(**changes)

    @compiled
    def shape(self, theta: Theta) -> Array:
        """Fluxes in maggies, [band], at 10 pc for 1e10 Msun formed, in the bands as redshifted."""
        spectrum = self.spectrum(theta)
        return self.bands(spectrum, theta.redshift) * (1 + theta.redshift)

    @compiled
    def spectrum(self, theta: Theta) -> Array:
        """Rest-frame spectrum [wave] after dust and intergalactic gas, in maggies at 10 pc for 1e10
        Msun formed."""
        spectrum = self.emitted(theta)
        absorbed = 1 - self.igm(theta.redshift)
        beyond = spectrum.shape[0] - absorbed.shape[0]
        return spectrum * (1 - jnp.pad(absorbed, (0, beyond)))

    def emitted(self, theta: Theta) -> Array:
        """The spectrum [wave] that leaves the galaxy."""
        t_age = cosmo.age(theta.redshift, self.cosmology)
        formation, log_z = self.physics.formation(theta, t_age), self.physics.log_z(theta)
        young, old = self.stars.light(formation, log_z)
        dust = self.physics.attenuation(theta)
        young_seen, old_seen = self.dust(dust.birth_cloud, dust.diffuse, dust.index)
        if self.emission is None:
            return young_seen * young + old_seen * old
        state = self.physics.emission(theta)
        luminosity, ionising = self.stars.power(formation, log_z)
        young = young + self.emission.gas(state, ionising)
        seen = young_seen * young + old_seen * old
        return seen + self.emission.reradiated(state, young + old, seen, old_seen, luminosity)

    @compiled
    def derived(self, theta: Theta) -> Derived:
        """Masses, star formation rates, ages, metallicity and dust of one galaxy."""
        t_age = cosmo.age(theta.redshift, self.cosmology)
        part = self.physics.formation(theta, t_age).total()
        log_z = self.physics.log_z(theta)
        share = metallicity.weights(log_z, self.stars.log_z, self.stars.scatter)
        mass, age = node_mass(part), self.stars.axis.age
        log_mass = theta.log_mass_formed
        formed = jnp.cumsum(part.mass)

        def log_sfr(time: float) -> Array:
            node = jnp.argmin(jnp.abs(age - time))
            rate = formed[node] / (1e9 * jnp.minimum(time, t_age))
            return log_mass + jnp.log10(jnp.maximum(rate, 1e-30))

        # Mean age inside an interval: logarithmic mean of its ends at uniform rate.
        low = jnp.concatenate([jnp.zeros(1, age.dtype), age[:-1]])
        middle = 0.5 * (low + jnp.minimum(age, jnp.maximum(t_age, low)))
        younger = jnp.concatenate([jnp.zeros(1, age.dtype), formed])
        nodes = jnp.concatenate([jnp.zeros(1, age.dtype), jnp.minimum(age, t_age)])
        z = 10.0 ** (log_z - self.stars.log_z_solar)
        length = jnp.maximum(jnp.minimum(age, t_age) - low, 1e-6)
        return Derived(
            log_mass_surviving=log_mass
            + jnp.log10(jnp.sum(mass * share * self.stars.mass_surviving)),
            log_sfr_10myr=log_sfr(SFR_TIMES_GYR[0]),
            log_sfr_100myr=log_sfr(SFR_TIMES_GYR[1]),
            log_sfr_1gyr=log_sfr(SFR_TIMES_GYR[2]),
            log_z_mw=jnp.log10(jnp.sum(mass * z) / jnp.sum(mass)),
            t_age_mw=jnp.sum(part.mass * middle) / jnp.sum(part.mass),
            a_v=A_V_PER_TAU * self.physics.attenuation(theta).diffuse,
            t50=jnp.interp(0.5, younger, nodes),
            t90=jnp.interp(0.1, younger, nodes),
            sfr=10.0**log_mass * part.mass / (1e9 * length),
        )

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the fluxes."""
        return self.bands.names


def amplitude(theta: Theta, cosmology: cosmo.Cosmology) -> Array:
    """Flux of a galaxy over its flux at 10 pc for 1e10 Msun formed: mass and distance, exactly."""
    return jnp.exp(ln_amplitude(theta, cosmology))


def galaxy_model(
    physics: Model,
    name: str,
    ssp: SSPGrid,
    bands: Sequence[Filter],
    *,
    redshift_range: tuple[float, float],
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
    scatter: float = metallicity.SCATTER_DEX,
    ln_step: float = LN_STEP,
    cosmology: cosmo.Cosmology = cosmo.PLANCK15,
    igm: str = "inoue2014",
    emission_tables: EmissionTables | None = None,
) -> GalaxyModel:
    """Assemble the direct physics for a set of bands.

    Args:
        physics: a callable that takes the `AgeAxis` and the solar log metallicity of the grid and
            returns a `Physics`.
        name: of the physics, for provenance.
        ssp: the SSP grid.
        bands: the filters.
        redshift_range: lowest and highest redshift; only rest-frame wavelengths the bands see
            in this range are kept.
        birth_cloud_age: Gyr.
        scatter: of metallicity at one age, dex.
        ln_step: step of the rest-frame grid in ln(wavelength).
        cosmology: sets age and distance.
        igm: "inoue2014" or "madau1995".
        emission_tables: gas, dust and torus, for physics with an `emission`; the SSP grid must
            then be of stars alone.

    Raises ValueError naming the bands the SSP grid does not reach in this redshift range, or if
    the grid has gas of its own beside that of `emission_tables`.
    """
    z_low, z_high = redshift_range
    if not 0 <= z_low <= z_high:
        raise ValueError(f"expected 0 <= z_low <= z_high, got {redshift_range}")
    if emission_tables is not None:
        red = max(band.wave[-1] for band in bands) / (1 + z_low) * 1.04
        ssp = _stars_alone(with_red_tail(ssp, red))
    wave = np.asarray(ssp.wave, float)
    check_reach("SSP grid", bands, wave, redshift_range)
    lit = wave[np.any(np.asarray(ssp.lnu) > 0, axis=(0, 1))]
    low = max(min(b.wave[0] for b in bands) / (1 + z_high) * 0.97, lit[0])
    high = min(max(b.wave[-1] for b in bands) / (1 + z_low) * 1.03, wave[-1])
    if emission_tables is not None:
        # The energy that dust absorbs is counted over all of the starlight.
        low, high = lit[0], max(high, STARLIGHT_END)
    grid = log_wave_grid(low, high, ln_step)
    unit = MAGGIES_10PC_PER_LSUN_HZ * 1e10
    stars = populations(
        resample(ssp, grid),
        birth_cloud_age=birth_cloud_age,
        scatter=scatter,
        unit=unit,
        ionising=emission_tables is not None,
    )
    young_age = np.asarray(stars.axis.age)[: stars.birth_cloud_node + 1]
    return GalaxyModel(
        physics=physics(stars.axis, stars.log_z_solar),
        stars=stars,
        dust=CharlotFall.build(grid),
        igm=igm_table(grid, z_max=max(z_high, 0.1), model=igm),
        bands=project(bands, grid),
        cosmology=cosmology,
        emission=(
            None if emission_tables is None else emission(emission_tables, grid, young_age, unit)
        ),
        name=name,
    )


def _stars_alone(ssp: SSPGrid) -> SSPGrid:
    """The grid with ionising rates listed and nothing below the Lyman limit, which gas absorbs."""
    if ssp.gas == "included":
        raise ValueError(
            f"the SSP grid {ssp.name!r} has nebular emission of its own: models with gas need one "
            "of stars alone, such as 'pegase2_stellar'"
        )
    rates = ionising_photons(ssp)
    lnu = np.where(np.asarray(ssp.wave) > LYMAN_LIMIT, np.asarray(ssp.lnu), 0.0)
    return dataclasses.replace(ssp, lnu=lnu, log_nlyc=rates)


def unreachable(
    bands: Sequence[Filter], wave: np.ndarray, redshift_range: tuple[float, float]
) -> list[str]:
    """Names of the bands that see beyond the wavelengths `wave` anywhere in a redshift range.

    Below the Lyman limit intergalactic gas absorbs the light that a grid may lack.
    """
    z_low, z_high = redshift_range
    first = max(wave[0], 0.0)
    bad = []
    for band in bands:
        blue, red = band.limits
        if red / (1 + z_low) > wave[-1] or (blue / (1 + z_high) < first and first > 912.0):
            bad.append(band.name)
    return bad


def check_reach(
    what: str, bands: Sequence[Filter], wave: np.ndarray, redshift_range: tuple[float, float]
) -> None:
    """Raises ValueError naming the bands that see beyond `wave`, the wavelengths of `what`."""
    bad = unreachable(bands, wave, redshift_range)
    if bad:
        z_low, z_high = redshift_range
        raise ValueError(
            f"the {what} ({wave[0]:.4g} to {wave[-1]:.4g} Å) does not reach the bands "
            f"{', '.join(bad)} at redshifts {z_low:g} to {z_high:g}: leave them out"
        )
