"""Composite stellar populations: the light of many simple ones as two matrix products."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR
from jaxsed.sps.gas.nebular import PHOTON_UNIT
from jaxsed.sps.populations import metallicity
from jaxsed.sps.populations.sfh import AgeAxis, IntervalMass, age_axis, node_mass, split_at
from jaxsed.sps.ssp.grid import SSPGrid, insert_age
from jaxsed.sps.ssp.wavelengths import energy_weights

OLDEST_AGE_GYR = 14.0
"""Older age nodes than the first beyond this are left out: no galaxy is that old."""

REDUNDANT = 0.01
"""A metallicity node that its neighbours give to this relative accuracy is left out."""

SFR_TIMES_GYR = (0.01, 0.1, 1.0)
"""Averaging times of the star formation rate, which are age nodes of a composite."""


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


@struct.dataclass
class Populations:
    """An SSP grid laid out for the two products: light per unit mass, young and old apart."""

    young: Array
    """[met * (bc+1), wave] Lsun/Hz per Msun formed, scaled by `unit`."""
    old: Array
    """[met * (age-bc), wave]."""
    mass_surviving: Array
    """[met, age] Msun per Msun formed."""
    luminosity: Array
    """[met, age] integral of the light over the wavelengths, Lsun per Msun formed times `unit`."""
    ionising: Array | None
    """[met, bc+1] ionising photons/s per Msun formed in `PHOTON_UNIT`, if asked for."""
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

    def power(self, formation: Formation, log_z: Array) -> tuple[Array, Array]:
        """Luminosity of all stars, and ionising photons/s [bc+1] of those in birth clouds.

        The arguments are those of `light`; needs `ionising`.
        """
        share = metallicity.weights(log_z, self.log_z, self.scatter)
        node = self.birth_cloud_node
        inside, _ = split_at(formation.clouded, node)
        assert self.ionising is not None  # asked for when the populations were laid out
        luminosity = jnp.sum(node_mass(formation.total()) * share * self.luminosity)
        return luminosity, inside * jnp.sum(share[:, : node + 1] * self.ionising, axis=0)


def populations(
    ssp: SSPGrid,
    *,
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
    scatter: float = metallicity.SCATTER_DEX,
    unit: float = 1.0,
    ionising: bool = False,
) -> Populations:
    """Lay an SSP grid out for fast composites.

    Args:
        ssp: the grid; nodes at the birth-cloud age and at the averaging times of the star
            formation rate are added where it lacks them.
        birth_cloud_age: Gyr.
        scatter: lognormal scatter of metallicity at one age, in dex.
        unit: factor on the light.
        ionising: keep the rates of ionising photons, which the grid must have.

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
        luminosity=jnp.asarray(light @ energy_weights(ssp.wave), dtype=float),
        ionising=_photons(ssp)[:, : node + 1] if ionising else None,
        log_z=jnp.asarray(ssp.log_z, dtype=float),
        axis=age_axis(age),
        wave=jnp.asarray(ssp.wave, dtype=float),
        birth_cloud_node=node,
        scatter=scatter,
        unit=unit,
        log_z_solar=float(np.log10(ssp.z_solar)),
    )


def _photons(ssp: SSPGrid) -> Array:
    assert ssp.log_nlyc is not None  # callers list the rates first
    return jnp.asarray(10.0 ** np.asarray(ssp.log_nlyc, float) / PHOTON_UNIT, dtype=float)


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
