"""The composite spectrum of a galaxy, and its fluxes: the direct physics.

``L(lambda) = T_ism [ T_bc sum_young w L_ssp + sum_old w L_ssp ]`` (Charlot & Fall 2000): the
weights of the simple stellar populations, split at the birth-cloud age, times the SSP grid are
two matrix products, the dust comes after, and the bands are a third product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.constants import MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.params import LN10
from jaxsed.sps import metallicity
from jaxsed.sps.dust import BIRTH_CLOUD_AGE_GYR, CharlotFall
from jaxsed.sps.igm import IGMTable, igm_table
from jaxsed.sps.photometry import BandProjector, Filter, project
from jaxsed.sps.sfh import AgeAxis, IntervalMass, age_axis, node_mass, split_at
from jaxsed.sps.ssp import SSPGrid, insert_age, log_wave_grid, resample

LN_STEP = 0.005
"""Default step of the rest-frame grid in ln(wavelength): 25 Å at 5000 Å, for photometry."""

OLDEST_AGE_GYR = 14.0
"""Older age nodes than the first beyond this are left out: no galaxy is that old."""

REDUNDANT = 0.01
"""A metallicity node that its neighbours give to this relative accuracy is left out."""

A_V_PER_TAU = 2.5 / LN10
"""Magnitudes of attenuation per unit optical depth."""

SFR_TIMES_GYR = (0.01, 0.1, 1.0)


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


class Formation(NamedTuple):
    """Mass formed per age interval, by what its young stars shine through."""

    clouded: IntervalMass
    """Stars that spend their youth in birth clouds."""
    bare: IntervalMass | None = None
    """Stars seen through the diffuse dust alone, at any age."""

    def total(self) -> IntervalMass:
        """Both parts together."""
        if self.bare is None:
            return self.clouded
        return IntervalMass(*(a + b for a, b in zip(self.clouded, self.bare, strict=True)))


class Physics(Protocol):
    """What a galaxy is made of: a star formation and metallicity history, and dust."""

    def formation(self, theta: Any, t_age: Array) -> Formation:
        """Mass formed per age interval, one in total over both parts."""

    def log_z(self, theta: Any) -> Array:
        """[age] log10 of the absolute metallicity of the stars at each age node."""

    def attenuation(self, theta: Any) -> Attenuation:
        """The dust."""


@struct.dataclass
class Populations:
    """An SSP grid laid out for the two products: light per unit mass, young and old apart."""

    young: Array
    """[met * (bc+1), wave] Lsun/Hz per Msun formed, scaled by `unit`."""
    old: Array
    """[met * (age-bc), wave]."""
    mass_surviving: Array
    """[met, age] Msun per Msun formed."""
    log_z: Array
    """[met] log10 absolute metallicity."""
    axis: AgeAxis
    wave: Array
    """[wave] Å."""
    birth_cloud_node: int = struct.field(pytree_node=False)
    scatter: float = struct.field(pytree_node=False)
    unit: float = struct.field(pytree_node=False)
    log_z_solar: float = struct.field(pytree_node=False)

    def light(self, formation: Formation, log_z: Array) -> tuple[Array, Array]:
        """Unattenuated spectra [wave] of the stars inside and outside of birth clouds.

        Args:
            formation: mass formed per age interval.
            log_z: [age] log10 absolute metallicity at each age node.
        """
        share = metallicity.weights(log_z, self.log_z, self.scatter)
        node = self.birth_cloud_node
        inside, outside = split_at(formation.clouded, node)
        in_clouds = (inside * share[:, : node + 1]).ravel() @ self.young
        if formation.bare is None:
            return in_clouds, (outside * share[:, node:]).ravel() @ self.old
        bare_young, bare_old = split_at(formation.bare, node)
        weight = jnp.concatenate(
            [
                ((outside + bare_old) * share[:, node:]).ravel(),
                (bare_young * share[:, : node + 1]).ravel(),
            ]
        )
        return in_clouds, weight @ jnp.concatenate([self.old, self.young])


def populations(
    ssp: SSPGrid,
    *,
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
    scatter: float = metallicity.SCATTER_DEX,
    unit: float = 1.0,
) -> Populations:
    """Lay an SSP grid out for fast composites.

    Args:
        ssp: the grid; nodes at the birth-cloud age and at the averaging times of the star
            formation rate are added where it lacks them.
        birth_cloud_age: Gyr.
        scatter: lognormal scatter of metallicity at one age, in dex.
        unit: factor on the light.

    Raises ValueError if the birth-cloud age is outside the grid's ages.
    """
    ages = 10.0 ** np.asarray(ssp.log_age, float)
    if not ages[0] < birth_cloud_age < ages[-1]:
        raise ValueError(
            f"birth_cloud_age {birth_cloud_age} Gyr is outside the SSP ages "
            f"{ages[0]:.4g} to {ages[-1]:.4g} Gyr"
        )
    for time in (*SFR_TIMES_GYR, birth_cloud_age):
        ssp = insert_age(ssp, time)
    ssp = _essential(ssp)
    age = 10.0 ** np.asarray(ssp.log_age, float)
    node = int(np.argmin(np.abs(age - birth_cloud_age)))
    light = np.asarray(ssp.lnu, float) * unit
    n_wave = light.shape[-1]
    if node == age.size - 1:
        raise ValueError(f"birth_cloud_age {birth_cloud_age} Gyr leaves no old stars")
    return Populations(
        young=jnp.asarray(light[:, : node + 1].reshape(-1, n_wave), dtype=float),
        old=jnp.asarray(light[:, node:].reshape(-1, n_wave), dtype=float),
        mass_surviving=jnp.asarray(ssp.mass_surviving, dtype=float),
        log_z=jnp.asarray(ssp.log_z, dtype=float),
        axis=age_axis(age),
        wave=jnp.asarray(ssp.wave, dtype=float),
        birth_cloud_node=node,
        scatter=scatter,
        unit=unit,
        log_z_solar=float(np.log10(ssp.z_solar)),
    )


def _essential(ssp: SSPGrid) -> SSPGrid:
    """The grid without nodes that cost time and add nothing."""
    log_age, log_z = np.asarray(ssp.log_age), np.asarray(ssp.log_z, float)
    n_age = min(int(np.searchsorted(log_age, np.log10(OLDEST_AGE_GYR))) + 1, log_age.size)
    light = np.asarray(ssp.lnu, float)[:, :n_age]
    keep = [0]
    for k in range(1, log_z.size - 1):
        share = (log_z[k] - log_z[keep[-1]]) / (log_z[k + 1] - log_z[keep[-1]])
        guess = (1 - share) * light[keep[-1]] + share * light[k + 1]
        if np.any(np.abs(guess - light[k]) > REDUNDANT * light[k]):
            keep.append(k)
    keep.append(log_z.size - 1)
    return dataclasses.replace(
        ssp,
        log_z=log_z[keep],
        log_age=log_age[:n_age],
        lnu=light[keep],
        mass_surviving=np.asarray(ssp.mass_surviving)[keep, :n_age],
        log_nlyc=None if ssp.log_nlyc is None else np.asarray(ssp.log_nlyc)[keep, :n_age],
    )


@struct.dataclass(eq=False)  # equal only if the same object, so that jax.jit(model) can hash it
class GalaxyModel:
    """The direct physics: ``model(theta) -> flux`` in maggies per band, for one galaxy."""

    physics: Any
    stars: Populations
    dust: CharlotFall
    igm: IGMTable
    bands: BandProjector
    cosmology: cosmo.Cosmology
    name: str = struct.field(pytree_node=False)

    def __call__(self, theta: Any) -> Array:
        """Fluxes in maggies, [band]."""
        return self.shape(theta) * amplitude(theta, self.cosmology)

    def shape(self, theta: Any) -> Array:
        """Fluxes in maggies, [band], at 10 pc for 1e10 Msun formed, in the bands as redshifted."""
        spectrum = self.spectrum(theta)
        return self.bands(spectrum, theta.redshift) * (1 + theta.redshift)

    def spectrum(self, theta: Any) -> Array:
        """Attenuated rest-frame spectrum [wave] in maggies at 10 pc for 1e10 Msun formed."""
        t_age = cosmo.age(theta.redshift, self.cosmology)
        formation = self.physics.formation(theta, t_age)
        young, old = self.stars.light(formation, self.physics.log_z(theta))
        dust = self.physics.attenuation(theta)
        young_seen, old_seen = self.dust(dust.birth_cloud, dust.diffuse, dust.index)
        absorbed = 1 - self.igm(theta.redshift)
        beyond = young.shape[0] - absorbed.shape[0]
        return (young_seen * young + old_seen * old) * (1 - jnp.pad(absorbed, (0, beyond)))

    def derived(self, theta: Any) -> Derived:
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


def amplitude(theta: Any, cosmology: cosmo.Cosmology) -> Array:
    """Flux of a galaxy over its flux at 10 pc for 1e10 Msun formed: mass and distance, exactly."""
    dimming = -0.4 * cosmo.distance_modulus(theta.redshift, cosmology)
    return jnp.exp(LN10 * (theta.log_mass_formed - 10.0 + dimming))


def galaxy_model(
    physics: Any,
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

    Raises ValueError naming the bands the SSP grid does not reach in this redshift range.
    """
    z_low, z_high = redshift_range
    if not 0 <= z_low <= z_high:
        raise ValueError(f"expected 0 <= z_low <= z_high, got {redshift_range}")
    wave = np.asarray(ssp.wave, float)
    bad = unreachable(bands, wave, redshift_range)
    if bad:
        raise ValueError(
            f"the SSP grid ({wave[0]:.4g} to {wave[-1]:.4g} Å) does not reach the bands "
            f"{', '.join(bad)} at redshifts {z_low:g} to {z_high:g}: leave them out"
        )
    lit = wave[np.any(np.asarray(ssp.lnu) > 0, axis=(0, 1))]
    low = max(min(b.wave[0] for b in bands) / (1 + z_high) * 0.97, lit[0])
    high = min(max(b.wave[-1] for b in bands) / (1 + z_low) * 1.03, wave[-1])
    grid = log_wave_grid(low, high, ln_step)
    stars = populations(
        resample(ssp, grid),
        birth_cloud_age=birth_cloud_age,
        scatter=scatter,
        unit=MAGGIES_10PC_PER_LSUN_HZ * 1e10,
    )
    return GalaxyModel(
        physics=physics(stars.axis, stars.log_z_solar),
        stars=stars,
        dust=CharlotFall.build(grid),
        igm=igm_table(grid, z_max=max(z_high, 0.1), model=igm),
        bands=project(bands, grid),
        cosmology=cosmology,
        name=name,
    )


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
