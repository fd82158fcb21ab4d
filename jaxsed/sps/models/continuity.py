"""A galaxy with a continuity star formation history (Leja+ 2019; Mathews+ 2023, table 1).

Seven bins of constant star formation rate whose edges follow the redshift, one metallicity, and
two-component dust.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from flax import struct
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed.core.types import Numbers, Parameter
from jaxsed.params import LN10, Recoordinated, student_t2
from jaxsed.sps.models.galaxy import Attenuation
from jaxsed.sps.populations.composite import Formation
from jaxsed.sps.populations.sfh import AgeAxis, piecewise_constant

N_BINS = 7
FIRST_EDGES_GYR = (0.03, 0.1)
"""Ages of the two youngest bin edges (Leja+ 2019)."""
OLDEST_BIN_SHARE = 0.15
"""The oldest bin is this share of the age of the universe; the rest is logarithmic."""

LOG_Z_RANGE = (-1.98, 0.19)
"""Range of log10 Z/Zsun (Mathews+ 2023, table 1)."""

GALLAZZI_LOG_MASS = (
    8.87, 9.07, 9.27, 9.47, 9.68, 9.87, 10.07, 10.27, 10.47, 10.68, 10.87, 11.07, 11.27, 11.47,
    11.68, 11.87,
)  # fmt: skip
GALLAZZI_LOG_Z = (
    -0.60, -0.61, -0.65, -0.61, -0.52, -0.41, -0.23, -0.11, -0.01, 0.04, 0.07, 0.10, 0.12, 0.13,
    0.14, 0.15,
)  # fmt: skip
GALLAZZI_P16 = (
    -1.11, -1.07, -1.10, -1.03, -0.97, -0.90, -0.80, -0.65, -0.41, -0.24, -0.14, -0.09, -0.06,
    -0.04, -0.03, -0.03,
)  # fmt: skip
GALLAZZI_P84 = (
    -0.00, -0.00, -0.05, -0.01, 0.05, 0.09, 0.14, 0.17, 0.20, 0.22, 0.24, 0.25, 0.26, 0.28, 0.29,
    0.30,
)  # fmt: skip
"""Stellar mass-metallicity relation: median and 16-84 % of log10 Z/Zsun (Gallazzi+ 2005)."""


class ContinuityTheta(NamedTuple):
    """Parameters of a galaxy with a continuity star formation history."""

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
    redshift: Numbers


FEATURES = (
    "log_z",
    *(f"log_sfr_ratios_{k}" for k in range(1, N_BINS)),
    "dust2",
    "dust_index",
    "dust1_fraction",
    "redshift",
)
"""Inputs of an emulator of this model."""


def bin_edges(t_age: Array) -> Array:
    """Lookback-time edges [8] in Gyr of the seven bins for a galaxy of age `t_age`.

    0, 30 Myr, 100 Myr, then logarithmic up to 85 % of the age of the universe, then the age
    (Leja+ 2019).  Where 85 % of the age is less than 300 Myr, three times the second edge,
    the two young edges shrink with it.
    """
    last = (1 - OLDEST_BIN_SHARE) * t_age
    shrink = jnp.minimum(1.0, last / (3 * FIRST_EDGES_GYR[1]))
    young = shrink * FIRST_EDGES_GYR[1]
    step = jnp.log(last / young) / (N_BINS - 3)
    middle = young * jnp.exp(step * jnp.arange(N_BINS - 2))
    start = jnp.stack([0.0 * t_age, shrink * FIRST_EDGES_GYR[0]])
    return jnp.concatenate([start, middle, t_age[None]])


@struct.dataclass
class Continuity:
    """History and dust of a continuity galaxy on the age nodes of an SSP grid."""

    axis: AgeAxis
    log_z_solar: float = struct.field(pytree_node=False)

    def formation(self, theta: ContinuityTheta, t_age: Array) -> Formation:
        """Mass per age interval for unit mass formed."""
        edges = bin_edges(t_age)
        ratios = jnp.asarray(theta.log_sfr_ratios)
        log_sfr = -LN10 * jnp.concatenate([jnp.zeros(1, ratios.dtype), jnp.cumsum(ratios)])
        rate = jnp.exp(log_sfr - jnp.max(log_sfr))
        rate = rate / jnp.sum(rate * jnp.diff(edges))
        return Formation(piecewise_constant(rate, edges, self.axis))

    def log_z(self, theta: ContinuityTheta) -> Array:
        """[age] log10 absolute metallicity, the same at all ages."""
        return jnp.full_like(self.axis.age, self.log_z_solar) + theta.log_z

    def attenuation(self, theta: ContinuityTheta) -> Attenuation:
        """The dust."""
        return Attenuation(theta.dust1_fraction * theta.dust2, theta.dust2, theta.dust_index)


def continuity(axis: AgeAxis, log_z_solar: float) -> Continuity:
    """The continuity galaxy on these age nodes."""
    return Continuity(axis, log_z_solar)


def mass_metallicity(theta: ContinuityTheta) -> dist.Distribution:
    """log Z/Zsun given the mass: the Gallazzi+ 2005 relation, truncated to [-1.98, 0.19].

    Its width is the full 16-84 % range, twice the observed scatter (Leja+ 2019, table 1).
    """
    grid = jnp.asarray(GALLAZZI_LOG_MASS)
    mean = jnp.interp(theta.log_mass_formed, grid, jnp.asarray(GALLAZZI_LOG_Z))
    high, low = jnp.asarray(GALLAZZI_P84), jnp.asarray(GALLAZZI_P16)
    width = jnp.interp(theta.log_mass_formed, grid, high - low)
    return dist.TruncatedNormal(mean, width, low=LOG_Z_RANGE[0], high=LOG_Z_RANGE[1])


def prior(
    redshift: float | dist.Distribution, cosmology: cosmo.Cosmology = cosmo.PLANCK15
) -> ContinuityTheta:
    """The informative prior of Mathews+ 2023, table 1, for the parameters of this model."""
    del cosmology
    return ContinuityTheta(
        log_mass_formed=dist.Uniform(6.0, 12.5),
        log_z=Recoordinated(dist.Uniform(*LOG_Z_RANGE), given=mass_metallicity),
        log_sfr_ratios=student_t2(0.3, 5.0, N_BINS - 1),
        dust2=dist.TruncatedNormal(0.3, 1.0, low=0.0, high=4.0),
        dust_index=dist.Uniform(-1.2, 0.4),
        dust1_fraction=dist.TruncatedNormal(1.0, 0.3, low=0.0, high=2.0),
        redshift=redshift,
    )


def training_distribution(redshift: dist.Distribution) -> ContinuityTheta:
    """The thick-tailed distribution that emulators are trained on (Mathews+ 2023, table 1)."""
    return ContinuityTheta(
        log_mass_formed=dist.Uniform(9.9, 10.1),
        log_z=dist.Uniform(*LOG_Z_RANGE),
        log_sfr_ratios=student_t2(3.0, 5.0, N_BINS - 1),
        dust2=dist.TruncatedNormal(0.3, 3.0, low=0.0, high=4.0),
        dust_index=dist.Uniform(-1.2, 0.4),
        dust1_fraction=dist.TruncatedNormal(1.0, 1.0, low=0.0, high=2.0),
        redshift=redshift,
    )
