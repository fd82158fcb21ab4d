"""Star formation histories as masses on the age axis of an SSP grid.

A history is handed to the SED as the mass formed in each **age interval** of the grid together
with the share of it that belongs to the interval's upper node (SSPs are interpolated linearly
in log age).  Working by intervals splits the light exactly at the birth-cloud age, which is a
node, and makes everything that follows a matrix product.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.lax import erf

from jaxsed.core.compiled import compiled

INV_SQRT_2PI = 0.3989422804014327
SQRT_HALF = 0.7071067811865476


class IntervalMass(NamedTuple):
    """Mass formed per age interval, for unit total mass formed.

    Interval k runs from age node k-1 to node k; interval 0 from age zero to the first node, and
    all of its mass belongs to that node.
    """

    mass: Array
    """[age] Msun formed in each interval."""
    upper: Array
    """[age] the part of `mass` that interpolation gives to the interval's upper node."""


@struct.dataclass
class AgeAxis:
    """The age nodes of an SSP grid, with what the histories need of them."""

    age: Array
    """[age] Gyr, increasing, the first above zero."""
    ln_age: Array
    """[age] natural log of age/Gyr."""
    ln_step: Array
    """[age] ln(age_k / age_{k-1}); the first entry is one and unused."""


def age_axis(age: np.ndarray) -> AgeAxis:
    """Build an `AgeAxis` from ages in Gyr.

    Raises ValueError unless ages are positive and increasing.
    """
    age = np.asarray(age, float)
    if age.ndim != 1 or age.size < 2 or age[0] <= 0 or np.any(np.diff(age) <= 0):
        raise ValueError("expected a 1-D increasing array of at least two ages > 0 in Gyr")
    ln_age = np.log(age)
    ln_step = np.concatenate([[1.0], np.diff(ln_age)])
    return AgeAxis(*(jnp.asarray(x, dtype=float) for x in (age, ln_age, ln_step)))


@compiled
def node_mass(part: IntervalMass) -> Array:
    """Mass at every age node, [age], from the masses in the intervals."""
    lower = (part.mass - part.upper)[1:]
    inner = part.upper[1:-1] + lower[1:]
    return jnp.concatenate([part.upper[:1] + lower[:1], inner, part.upper[-1:]])


def split_at(part: IntervalMass, node: int) -> tuple[Array, Array]:
    """Node masses of stars younger and older than age node `node`.

    Returns ``(young [node+1], old [age-node])``; both contain the node itself, which the interval
    below and the interval above share.
    """
    young = node_mass(IntervalMass(part.mass[: node + 1], part.upper[: node + 1]))
    mass, upper = part.mass[node:].at[0].set(0.0), part.upper[node:].at[0].set(0.0)
    return young, node_mass(IntervalMass(mass, upper))


@compiled
def piecewise_constant(sfr: Array, edges: Array, axis: AgeAxis) -> IntervalMass:
    """Exact interval masses of a star formation rate constant between bin edges.

    Args:
        sfr: [bin] Msun/Gyr.
        edges: [bin+1] lookback times in Gyr, increasing, the first zero.
        axis: the age nodes.

    Time beyond the last age node counts towards that node.
    """
    low = jnp.concatenate([jnp.zeros(1, axis.age.dtype), axis.age[:-1]])
    clipped = jnp.clip(edges[:, None], low, axis.age)
    span = clipped - low
    # Integral of ln(t/low)/ln_step from low to the clipped edge: the share of the upper node.
    safe_low = jnp.where(low > 0, low, 1.0)
    x = jnp.where(low > 0, span / safe_low, 0.0)
    upper = safe_low * ((1 + x) * jnp.log1p(x) - x) / axis.ln_step
    upper = jnp.where(low > 0, upper, span)
    mass = sfr @ jnp.diff(span, axis=0)
    share = sfr @ jnp.diff(upper, axis=0)
    beyond = sfr @ jnp.diff(jnp.maximum(edges - axis.age[-1], 0.0))
    return IntervalMass(mass.at[-1].add(beyond), share.at[-1].add(beyond))


@compiled
def burst(ln_time: Array, width: float, t_age: Array, axis: AgeAxis) -> IntervalMass:
    """A burst of unit mass, Gaussian in ln(lookback time), cut at the age of the galaxy.

    Args:
        ln_time: ln of the burst's lookback time in Gyr.
        width: standard deviation in ln time; a finite width makes the light a smooth function of
            the time of the burst where an instantaneous one would have kinks at the age nodes.
        t_age: Gyr; the mass that would lie beyond it is missing from the sum of the result.
    """
    ln_end = jnp.minimum(axis.ln_age, jnp.log(t_age))
    x = (ln_end - ln_time) / width
    cdf, pdf = 0.5 + 0.5 * erf(x * SQRT_HALF), INV_SQRT_2PI * jnp.exp(-0.5 * x**2)
    mass = jnp.diff(cdf, prepend=0.0)
    upper = (ln_time - axis.ln_age[:-1]) * mass[1:] - width * jnp.diff(pdf)
    upper = jnp.clip(upper / axis.ln_step[1:], 0.0, mass[1:])
    return IntervalMass(mass, jnp.concatenate([mass[:1], upper]))


@struct.dataclass
class BasisHistory:
    """Interval masses of tabulated basis histories, cut smoothly at the age of the galaxy.

    The cumulative mass of each basis inside an interval is a cubic Hermite polynomial that is
    exact at the nodes in value and slope, so the result is C1 in the age of the galaxy.
    """

    mass: Array
    """[basis, age] mass in each full interval."""
    upper: Array
    """[basis, age] share of the upper node in each full interval."""
    slope_low: Array
    """[basis, age] rate at the interval's lower end times its length."""
    slope_high: Array
    """[basis, age] rate at the interval's upper end times its length."""
    axis: AgeAxis

    def __call__(self, t_age: Array) -> IntervalMass:
        """Interval masses [basis, age] of every basis for a galaxy of age `t_age` in Gyr."""
        age = self.axis.age
        low = jnp.concatenate([jnp.zeros(1, age.dtype), age[:-1]])
        x = jnp.clip((t_age - low) / (age - low), 0.0, 1.0)
        rise, start, end = x**2 * (3 - 2 * x), x * (1 - x) ** 2, -(x**2) * (1 - x)
        mass = self.mass * rise + self.slope_low * start + self.slope_high * end
        upper = self.upper * rise + self.slope_high * end
        return IntervalMass(mass, upper.at[:, 0].set(mass[:, 0]))


def basis_history(time: np.ndarray, basis: np.ndarray, axis: AgeAxis) -> BasisHistory:
    """Integrate basis histories over the age intervals, in double precision, once.

    Args:
        time: [time] lookback times in Gyr, increasing.
        basis: [basis, time] star formation rates, linear between times and constant outside.
        axis: the age nodes.
    """
    age = np.asarray(axis.age, float)
    low = np.concatenate([[0.0], age[:-1]])
    node, weight = np.polynomial.legendre.leggauss(24)
    t = low + (age - low) * 0.5 * (node[:, None] + 1)
    rate = np.stack([np.interp(t, time, b) for b in basis])
    share = np.log(np.maximum(t, low) / np.where(low > 0, low, 1.0))
    share = np.where(low > 0, share / np.asarray(axis.ln_step, float), 1.0)
    half = 0.5 * (age - low) * weight[:, None]
    mass, upper = (rate * half).sum(1), (rate * share * half).sum(1)
    ends = [np.stack([np.interp(x, time, b) for b in basis]) * (age - low) for x in (low, age)]
    numbers = (jnp.asarray(x, dtype=float) for x in (mass, upper, *ends))
    return BasisHistory(*numbers, axis)  # type: ignore[call-arg, arg-type]
