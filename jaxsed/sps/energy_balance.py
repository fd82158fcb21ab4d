"""What shines besides stars: gas, dust and an active nucleus, with the energy in balance."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.sps.agn import Torus, torus
from jaxsed.sps.dust.emission import DustEmission, dust_emission
from jaxsed.sps.gas.nebular import Nebular, nebular
from jaxsed.sps.ssp.wavelengths import energy_weights
from jaxsed.sps.templates import DustTable, NebularTable, TorusTable, load_templates

LOG_U = -2.0
"""Ionisation parameter where nothing else is asked for (Leja+ 2017)."""


class EmissionState(NamedTuple):
    """Gas, dust and nucleus of one galaxy."""

    log_z_gas: Array
    """log10 of the gas metallicity in solar units."""
    q_pah: Array
    """Percent of the dust mass in PAHs."""
    u_min: Array
    """Lowest intensity of the starlight that heats the dust, in the local unit."""
    gamma: Array
    """Share of the dust heated by more than that."""
    f_agn: Array
    """Luminosity of the torus over that of the stars."""
    tau_agn: Array
    """Optical depth of a clump of the torus at 5500 Å."""


class EmissionTables(NamedTuple):
    """The tables that `emission` puts on a model's wavelengths."""

    nebular: NebularTable
    dust: DustTable
    torus: TorusTable
    log_u: float = LOG_U

    @classmethod
    def shipped(cls, log_u: float = LOG_U) -> EmissionTables:
        """Those that come with the package."""
        return cls(
            load_templates(NebularTable),
            load_templates(DustTable),
            load_templates(TorusTable),
            log_u,
        )


@struct.dataclass
class Emission:
    """Gas, dust and torus on the wavelengths of a model."""

    nebular: Nebular
    dust: DustEmission
    torus: Torus
    energy: Array
    """[wave] Hz: weights of the integral over frequency."""

    def gas(self, state: EmissionState, ionising: Array) -> Array:
        """Spectrum [wave] of the gas for ionising photons [age]; see `Nebular`."""
        return self.nebular(ionising, state.log_z_gas)

    def reradiated(
        self, state: EmissionState, stars: Array, seen: Array, screen: Array, luminosity: Array
    ) -> Array:
        """Spectrum [wave] of the torus and of the dust, behind the diffuse dust.

        The dust emits what it absorbs of stars, gas and torus.  It is itself transparent: the
        attenuation curve ends at 3 micron, where dust begins to shine.

        Args:
            state: of the galaxy.
            stars: [wave] light of stars and gas before dust.
            seen: [wave] the same after dust.
            screen: [wave] transmission of the diffuse dust.
            luminosity: of the stars, in the unit of the spectra times Hz.
        """
        nucleus = state.f_agn * luminosity * self.torus(state.tau_agn)
        absorbed = self.energy @ (stars - seen + (1 - screen) * nucleus)
        return nucleus * screen + absorbed * self.dust(state.q_pah, state.u_min, state.gamma)


def emission(
    tables: EmissionTables, wave: np.ndarray, young_age: np.ndarray, unit: float
) -> Emission:
    """Put emission tables on a model's wavelengths.

    Args:
        tables: the tables.
        wave: [wave] Å of the model.
        young_age: [age] Gyr of the age nodes inside birth clouds.
        unit: of the model's spectra, per Lsun/Hz.
    """
    return Emission(
        nebular=nebular(tables.nebular, wave, young_age, log_u=tables.log_u, unit=unit),
        dust=dust_emission(tables.dust, wave),
        torus=torus(tables.torus, wave),
        energy=jnp.asarray(energy_weights(wave), dtype=float),
    )
