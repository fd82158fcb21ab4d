"""The galaxy-halo connection: a relation of stellar to halo mass, sampled against an observed mass
function.

A galaxy's stellar mass scatters log-normally about a function of the peak mass of its halo, in the
form of the UniverseMachine (Behroozi et al. 2019, appendix J).  The mass function of galaxies
follows from that of halos by an integral, whose gradient is all that a sampler needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import erfc

from jaxsed import params
from jaxsed.core.compiled import compiled
from jaxsed.core.types import Numbers, Parameter
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem

GRID = np.arange(9.5, 15.8, 0.02)
"""log10 peak mass in Msun, where the integral is summed."""

SATELLITES = 0.0955, 14.59
"""Satellites per central of the same peak mass at z = 0: the first times (the second less log10 of
the peak mass in Msun), after the form of Behroozi, Wechsler & Conroy (2013, appendix C)."""

FLOOR = 0.05
"""Share of phi by which the mass function of halos (Tinker et al. 2008) may be wrong."""

OBSERVED_SCATTER = 0.07
"""dex that an observed stellar mass scatters about the true one at z = 0 (Behroozi et al. 2019)."""

MASSES = (11.0, 12.0, 13.0, 14.0)
"""log10 peak masses at which `StellarMasses` are given."""


class Relation(NamedTuple):
    """Parameters of the relation at one redshift; masses in Msun without h."""

    log10_m1: Parameter
    """log10 of the peak mass where the relation turns."""
    log10_efficiency: Parameter
    """log10 of the ratio of stellar mass to M1 there, but for a factor of order one."""
    alpha: Parameter
    """Slope below M1."""
    beta: Parameter
    """Slope above."""
    delta: Parameter
    """Width of the bump, in dex."""
    log10_gamma: Parameter
    """log10 of the height of the bump, in dex."""
    scatter: Parameter
    """dex of true stellar mass at a peak mass."""
    ln_satellites: Parameter
    """ln of the number of satellites over that expected."""


class StellarMasses(NamedTuple):
    """log10 median stellar mass in Msun at peak masses of 10^11 to 10^14 Msun, by `MASSES`.

    The mean of a log-normal scatter of s dex is 1.15 s^2 dex above it.
    """

    log_mass_at_11: Array
    log_mass_at_12: Array
    log_mass_at_13: Array
    log_mass_at_14: Array


def stellar_mass(theta: Relation, log_mass: Array) -> Array:
    """log10 median stellar mass in Msun at log10 peak masses (Behroozi et al. 2019, eqs. J1-J2).

    With x = log10(M / M1): log10(M1) + efficiency - log10(10^(-alpha x) + 10^(-beta x))
    + gamma exp(-(x / delta)^2 / 2).
    """
    x = log_mass - theta.log10_m1
    powers = jnp.logaddexp(-params.LN10 * theta.alpha * x, -params.LN10 * theta.beta * x)
    return theta.log10_m1 + theta.log10_efficiency - powers / params.LN10 + bump(theta, x)


def bump(theta: Relation, x: Numbers) -> Array:
    """dex that the bump adds at dex x above M1."""
    return 10**theta.log10_gamma * jnp.exp(-0.5 * (x / theta.delta) ** 2)


@struct.dataclass
class GalaxyHalo:
    """``model(theta) -> phi`` [bin] in Mpc^-3 dex^-1, theta being a `Relation`.

    phi_b = sum over peak masses of n [Phi((high_b - m) / s) - Phi((low_b - m) / s)] / width, m
    being the relation and s^2 the sum of the true and the observed scatter's squares.
    """

    log_mass: Array
    """[mass] log10 peak mass in Msun."""
    centrals: Array
    """[mass] Mpc^-3 in each step of the grid."""
    satellites: Array
    """[mass] Mpc^-3."""
    edges: Array
    """[bin + 1] log10 stellar mass in Msun."""

    @compiled
    def __call__(self, theta: Relation) -> Array:
        """[bin] phi."""
        mean = stellar_mass(theta, self.log_mass)
        spread = jnp.sqrt(theta.scatter**2 + OBSERVED_SCATTER**2)
        # what lies above is tiny for the many small halos, and exact where what lies below is not
        above = 0.5 * erfc((self.edges[:, None] - mean) / (spread * np.sqrt(2.0)))
        number = self.centrals + self.satellites * jnp.exp(theta.ln_satellites)
        # sums before differences: the other way round XLA finds the relation anew for every edge
        return -jnp.diff(above @ number) / jnp.diff(self.edges)

    def derived(self, theta: Relation) -> StellarMasses:
        """Stellar masses that the relation gives."""
        return StellarMasses(*stellar_mass(theta, jnp.array(MASSES)))


def galaxy_halo(
    edges: Numbers, *, redshift: float = 0.1, hubble: float = 0.678, matter: float = 0.307,
    baryons: float = 0.048, sigma8: float = 0.823, tilt: float = 0.96,
) -> GalaxyHalo:  # fmt: skip
    """The model for bins of stellar mass, in a flat cosmology; by default that of Bolshoi-Planck.

    Halos are those of Tinker et al. (2008) at virial masses, by colossus (Diemer 2018); satellites
    are added to them by `SATELLITES`.

    Args:
        edges: [bin + 1] log10 stellar mass in Msun.
        redshift: of the galaxies.
        hubble: Hubble constant in 100 km/s/Mpc.
        matter: density over the critical one.
        baryons: the same of baryons.
        sigma8: of the linear power spectrum at z = 0.
        tilt: of the primordial power spectrum.

    Raises ValueError where that mass function is not known: in the default cosmology beyond z = 1.
    """
    from colossus.cosmology import cosmology
    from colossus.lss import mass_function

    before = cosmology.current_cosmo
    try:
        # no files in the user's home, and whatever cosmology was set stays set
        cosmology.setCosmology(
            "", flat=True, H0=100 * hubble, Om0=matter, Ob0=baryons, sigma8=sigma8, ns=tilt,
            persistence="",
        )  # fmt: skip
        try:
            per_h = mass_function.massFunction(
                10**GRID * hubble, redshift, q_in="M", q_out="dndlnM", mdef="vir", model="tinker08"
            )
        except Exception as error:  # colossus raises no narrower class
            raise ValueError(
                f"no mass function of halos at redshift {redshift:g}: {error}"
            ) from error
    finally:
        cosmology.current_cosmo = before
    centrals = per_h * np.log(10.0) * hubble**3 * (GRID[1] - GRID[0])
    rate, end = SATELLITES
    satellites = centrals * rate * np.maximum(end - GRID, 0.0)
    as_32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    return GalaxyHalo(as_32(GRID), as_32(centrals), as_32(satellites), as_32(edges))


RANGES = {
    "log10_m1": (11.0, 13.0), "log10_efficiency": (-2.5, -0.5), "alpha": (1.0, 4.0),
    "beta": (0.0, 1.5),
}  # fmt: skip
"""Of the uniform priors of the double power law."""

USUAL_M1, USUAL_ALPHA, USUAL_BETA = 12.0, 2.0, 0.5
"""Of observed relations, about which the coordinates are made."""

PIVOTS = np.arange(11.0, 13.6, 0.25)
"""log10 peak masses at which the double power law makes up for the bump."""


def _answers() -> np.ndarray:
    """[4, pivot] change of each coordinate of `RANGES` for a dex at a pivot, by least squares."""
    x = PIVOTS - USUAL_M1
    share = 1 / (1 + 10 ** ((USUAL_ALPHA - USUAL_BETA) * x))
    slope = share * USUAL_ALPHA + (1 - share) * USUAL_BETA
    changes = np.stack([1 - slope, np.ones(x.size), share * x, (1 - share) * x], axis=1)
    # coordinates are normal quantiles: in the middle of a uniform prior, sqrt(2 pi) / range
    widths = np.array([high - low for low, high in RANGES.values()])
    return np.sqrt(2 * np.pi) / widths[:, None] * np.linalg.pinv(changes)


def _shear(row: np.ndarray) -> Callable[[Relation], Array]:
    def shift(theta: Relation) -> Array:
        return -jnp.dot(jnp.asarray(row, float), bump(theta, PIVOTS - USUAL_M1))

    return shift


SHEARS = dict(zip(RANGES, map(_shear, _answers()), strict=True))
"""By the parameter: the shift of its coordinate that leaves the relation in place as the bump
changes.  Made once, so that nothing compiles twice."""


def prior() -> Relation:
    """Wide distributions; the scatter is that of Behroozi et al. (2019), 0.2 +- 0.03 dex.

    Data know the relation better than they know its bump, and in their own coordinates the other
    parameters would have to follow the bump around a bend.
    """
    named = params.distribution
    sheared = {
        name: params.Recoordinated(named("uniform", *RANGES[name]), shift=SHEARS[name])
        for name in RANGES
    }
    return Relation(
        **sheared,
        delta=named("uniform", 0.1, 1.0),
        log10_gamma=named("truncated_normal", -1.0, 0.4, -3.0, 0.0),
        scatter=named("truncated_normal", 0.2, 0.03, 0.05, 0.4),
        ln_satellites=named("normal", 0.0, 0.2),
    )


def connection_problem(
    edges: Numbers, phi: Any, error: Numbers, *, floor: float = FLOOR, **cosmology: Any
) -> Problem:
    """The posterior of a `Relation` given an observed mass function, for `jaxsed.sample`.

    Args:
        edges: [bin + 1] log10 stellar mass in Msun.
        phi: [bin] Mpc^-3 dex^-1.
        error: [bin] its uncertainty.
        floor: share of phi by which the model may be wrong.
        cosmology: what `galaxy_halo` takes.

    Raises ValueError for numbers that are not finite and errors that are not positive.
    """
    edges, phi = np.asarray(edges, float), np.asarray(phi, float)
    if edges.shape != (phi.size + 1,) or np.shape(error) != phi.shape:
        raise ValueError(
            f"expected edges [bin + 1], phi and errors [bin], got {edges.shape}, {phi.shape} and "
            f"{np.shape(error)}"
        )
    data = photometry(phi, np.asarray(error, float), error_floor=floor)
    return Problem(prior(), galaxy_halo(edges, **cosmology), data)


def read_smf(
    path: str | Path, *, low: float = 9.0, high: float = 12.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges, phi and errors of an observed mass function, a text file of the UniverseMachine.

    Columns: low and high log10 stellar mass in Msun, phi in Mpc^-3 dex^-1, its upper and lower
    uncertainties, of which the mean is taken; lines that begin with # are left out.

    Raises FileNotFoundError, and ValueError for other files and for bins that do not join.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        table = np.loadtxt(path, ndmin=2)
        left, right, phi, above, below = table.T
    except ValueError as error:
        raise ValueError(f"{path}: expected five columns of numbers ({error})") from error
    used = (left >= low - 1e-6) & (right <= high + 1e-6)
    left, right, phi, above, below = table[used].T
    if not len(left) or np.abs(left[1:] - right[:-1]).max(initial=0) > 1e-6:
        raise ValueError(f"{path}: expected bins between {low:g} and {high:g} that join")
    return np.append(left, right[-1]), phi, 0.5 * (above + below)


def universemachine(redshift: float) -> Relation:
    """The median relation of all galaxies of Behroozi et al. (2019, table J1)."""
    z, a = redshift, 1.0 / (1.0 + redshift)
    ln_a, da = np.log(a), a - 1.0
    return Relation(
        log10_m1=12.035 + 4.556 * da - 4.417 * ln_a - 0.731 * z,
        log10_efficiency=-1.435 + 1.831 * da - 1.368 * ln_a - 0.217 * z,
        alpha=1.963 - 2.316 * da + 1.732 * ln_a + 0.178 * z,
        beta=0.482 - 0.841 * da - 0.471 * z,
        delta=0.411,
        log10_gamma=-1.034 - 3.100 * da - 1.055 * z,
        scatter=0.2,
        ln_satellites=0.0,
    )
