"""The 18-parameter galaxy of Mathews+ (2023), after Prospector-alpha (Leja+ 2017, 2019).

A continuity star formation history with one metallicity, two-component dust, gas with a
metallicity of its own, dust emission that balances the absorbed energy, and an active nucleus.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.core.types import Numbers, Parameter
from jaxsed.params import LN10
from jaxsed.sps.energy_balance import EmissionState
from jaxsed.sps.models import continuity
from jaxsed.sps.models.continuity import Continuity
from jaxsed.sps.populations.sfh import AgeAxis

LOG_F_AGN_RANGE = (-5.0, 0.47712)
LOG_TAU_AGN_RANGE = (0.69897, 2.17609)
LOG_Z_GAS_RANGE = (-2.0, 0.5)


class ProspectorTheta(NamedTuple):
    """Parameters of a Prospector-like galaxy, in the order of Mathews+ (2023), table 1."""

    log_mass_formed: Parameter
    """log10 of the stellar mass ever formed, Msun."""
    log_z: Parameter
    """log10 of the stellar metallicity in solar units."""
    log_sfr_ratios: Parameter
    """[6] log10 SFR_i / SFR_{i+1} of neighbouring bins, youngest first."""
    dust2: Parameter
    """Optical depth of the diffuse dust at 5500 Å."""
    dust_index: Parameter
    """Slope of the diffuse attenuation curve relative to Calzetti's (Kriek & Conroy 2013)."""
    dust1_fraction: Parameter
    """Optical depth of birth clouds over that of the diffuse dust."""
    log_f_agn: Parameter
    """log10 of the luminosity of the torus over that of the stars."""
    log_tau_agn: Parameter
    """log10 of the optical depth of a clump of the torus at 5500 Å."""
    log_z_gas: Parameter
    """log10 of the gas metallicity in solar units."""
    redshift: Numbers
    q_pah: Parameter
    """Percent of the dust mass in PAHs."""
    u_min: Parameter
    """Lowest intensity of the starlight that heats the dust, in the local unit."""
    log_gamma_e: Parameter
    """log10 of the share of the dust heated by more than `u_min`."""


FEATURES = (
    *(name for name in continuity.FEATURES if name != "redshift"),
    "log_f_agn",
    "log_tau_agn",
    "log_z_gas",
    "redshift",
    "q_pah",
    "log10_u_min",
    "log_gamma_e",
)
"""Inputs of an emulator of this model."""


@struct.dataclass
class Prospector(Continuity):
    """History, dust and emission of a Prospector-like galaxy on the age nodes of an SSP grid."""

    def emission(self, theta: ProspectorTheta) -> EmissionState:
        """Gas, dust and nucleus."""
        return EmissionState(
            log_z_gas=theta.log_z_gas,
            q_pah=theta.q_pah,
            u_min=theta.u_min,
            gamma=_power_of_ten(theta.log_gamma_e),
            f_agn=_power_of_ten(theta.log_f_agn),
            tau_agn=_power_of_ten(theta.log_tau_agn),
        )


def _power_of_ten(x: Numbers) -> Array:
    return jnp.exp(LN10 * jnp.asarray(x))


def prospector(axis: AgeAxis, log_z_solar: float) -> Prospector:
    """The Prospector-like galaxy on these age nodes."""
    return Prospector(axis, log_z_solar)


def prior(
    redshift: float | dist.Distribution, cosmology: cosmo.Cosmology = cosmo.PLANCK15
) -> ProspectorTheta:
    """The informative prior of Mathews+ 2023, table 1."""
    return _with_emission(continuity.prior(redshift, cosmology), width=1.0)


def training_distribution(redshift: dist.Distribution) -> ProspectorTheta:
    """The thick-tailed distribution that emulators are trained on (Mathews+ 2023, table 1)."""
    return _with_emission(continuity.training_distribution(redshift), width=2.0)


def _with_emission(stars: continuity.ContinuityTheta, *, width: float) -> ProspectorTheta:
    """The distributions of a continuity galaxy and those of its gas, dust emission and nucleus.

    `width` multiplies the standard deviations of the prior.
    """
    return ProspectorTheta(
        **stars._asdict(),
        log_f_agn=dist.Uniform(*LOG_F_AGN_RANGE),
        log_tau_agn=dist.Uniform(*LOG_TAU_AGN_RANGE),
        log_z_gas=dist.Uniform(*LOG_Z_GAS_RANGE),
        q_pah=dist.TruncatedNormal(2.0, 2.0 * width, low=0.0, high=7.0),
        u_min=dist.TruncatedNormal(1.0, 10.0 * width, low=0.1, high=25.0),
        log_gamma_e=dist.TruncatedNormal(-2.0, width, low=-4.0, high=0.0),
    )
