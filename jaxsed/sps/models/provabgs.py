"""The PROVABGS galaxy (Hahn+ 2022; Kwon+ 2022 section 2): NMF histories, a burst, and dust."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import h5py
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.core.types import Numbers, Parameter
from jaxsed.params import LN10, FlatDirichlet, Recoordinated
from jaxsed.sps.models.galaxy import Attenuation
from jaxsed.sps.populations.composite import Formation
from jaxsed.sps.populations.sfh import AgeAxis, BasisHistory, IntervalMass, basis_history, burst

BURST_WIDTH_DEX = 0.15
"""Duration of the burst: standard deviation in log10 lookback time. An instantaneous burst makes
the light jump as it leaves the birth clouds, which no gradient-based sampler survives."""

Z_MIN = 4.5e-5
"""Lowest absolute metallicity of the histories (Hahn+ 2022)."""

T_BURST_GYR = (0.01, 13.27)
"""Range of the burst's lookback time (Hahn+ 2022, table 1)."""


class ProvabgsTheta(NamedTuple):
    """Parameters of a PROVABGS galaxy."""

    log_mass_formed: Parameter
    """log10 of the stellar mass ever formed, Msun."""
    beta: Parameter
    """[4] coefficients of the star formation history, summing to one."""
    f_burst: Parameter
    """Fraction of the mass formed in the burst."""
    t_burst: Parameter
    """Lookback time of the burst, Gyr."""
    gamma1: Parameter
    """First coefficient of the metallicity history."""
    gamma2: Parameter
    """Second coefficient of the metallicity history."""
    dust1: Parameter
    """Optical depth of birth clouds at 5500 Å."""
    dust2: Parameter
    """Optical depth of the diffuse dust at 5500 Å."""
    dust_index: Parameter
    """Slope of the diffuse attenuation curve relative to Calzetti's (Kriek & Conroy 2013)."""
    redshift: Numbers


FEATURES = (
    "beta_stick_1",
    "beta_stick_2",
    "beta_stick_3",
    "f_burst",
    "log10_t_burst",
    "log10_gamma1",
    "log10_gamma2",
    "dust1",
    "dust2",
    "dust_index",
    "redshift",
)
"""Inputs of an emulator of this model; the mass is exact and therefore none of them."""


@struct.dataclass
class Provabgs:
    """Histories and dust of a PROVABGS galaxy on the age nodes of an SSP grid."""

    history: BasisHistory
    z_basis: Array
    """[2, age] metallicity bases at the age nodes."""

    def formation(self, theta: ProvabgsTheta, t_age: Array) -> Formation:
        """Mass per age interval for unit mass formed.

        ``SFH = (1-f) sum_i beta_i s_i / int sum_i beta_i s_i + f burst``, truncated at the age
        of the galaxy; a burst before the galaxy existed contributes nothing.  The burst shines
        through the diffuse dust alone, as in the published implementation.
        """
        basis = self.history(t_age)
        mass, upper = theta.beta @ basis.mass, theta.beta @ basis.upper
        width = BURST_WIDTH_DEX * LN10
        event = burst(jnp.log(theta.t_burst), width, t_age, self.history.axis)
        smooth = (1 - theta.f_burst * jnp.sum(event.mass)) / jnp.maximum(jnp.sum(mass), 1e-12)
        return Formation(
            clouded=IntervalMass(smooth * mass, smooth * upper),
            bare=IntervalMass(theta.f_burst * event.mass, theta.f_burst * event.upper),
        )

    def log_z(self, theta: ProvabgsTheta) -> Array:
        """``log10 sum_i gamma_i z_i(t)`` at the age nodes, not below `Z_MIN`."""
        z = theta.gamma1 * self.z_basis[0] + theta.gamma2 * self.z_basis[1]
        return jnp.log(jnp.maximum(z, Z_MIN)) / LN10

    def attenuation(self, theta: ProvabgsTheta) -> Attenuation:
        """The dust."""
        return Attenuation(theta.dust1, theta.dust2, theta.dust_index)


def provabgs(axis: AgeAxis, log_z_solar: float) -> Provabgs:
    """Tabulate the NMF bases on the age nodes of a grid.

    The bases are non-negative matrix factorisations of Illustris histories (Hahn+ 2022); the
    metallicities are absolute, so the grid's solar value is not used.
    """
    del log_z_solar
    time, sfh, zh = read_bases()
    age = np.asarray(axis.age, float)
    z_basis = np.stack([np.interp(age, time, b) for b in zh])
    return Provabgs(basis_history(time, sfh, axis), jnp.asarray(z_basis, dtype=float))


def _burst_light(theta: ProvabgsTheta) -> Array:
    """Shift of the burst fraction's coordinate with the burst's age.

    Data see the light of a burst, and young stars give more of it: mass-to-light ratios grow
    roughly as t^0.8.  In these coordinates the light stays about the same as the age changes.
    """
    return 0.5 * jnp.log(theta.t_burst / 2.0)


def read_bases() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lookback times [50] in Gyr, SFH bases [4, 50] and metallicity bases [2, 50]."""
    with resources.files("jaxsed.weights").joinpath("provabgs_bases.h5").open("rb") as handle:
        with h5py.File(handle, "r") as file:
            return file["lookback_time"][()], file["sfh"][()], file["metallicity"][()]


def prior(
    redshift: float | dist.Distribution, cosmology: cosmo.Cosmology = cosmo.PLANCK15
) -> ProvabgsTheta:
    """The PROVABGS prior (Hahn+ 2022, table 1).

    Args:
        redshift: the galaxy's redshift, or a distribution if it is to be inferred.
        cosmology: sets the age of the universe, beyond which no burst is allowed.

    A fixed redshift is kept as a number, which is not sampled.
    """
    z_low = redshift.support.lower_bound if isinstance(redshift, dist.Distribution) else redshift
    oldest = jnp.minimum(T_BURST_GYR[1], cosmo.age(z_low, cosmology))
    return ProvabgsTheta(
        log_mass_formed=dist.Uniform(6.0, 13.0),
        beta=FlatDirichlet(4),
        f_burst=Recoordinated(dist.Uniform(0.0, 1.0), shift=_burst_light),
        t_burst=Recoordinated(
            dist.LogUniform(T_BURST_GYR[0], oldest), dist.Uniform(T_BURST_GYR[0], oldest)
        ),
        gamma1=dist.LogUniform(4.5e-5, 1.5e-2),
        gamma2=dist.LogUniform(4.5e-5, 1.5e-2),
        dust1=dist.Uniform(0.0, 3.0),
        dust2=dist.Uniform(0.0, 3.0),
        dust_index=dist.Uniform(-2.0, 1.0),
        redshift=redshift,
    )
