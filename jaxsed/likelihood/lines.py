"""Emission lines on the pixels of a spectrum."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from jaxsed.constants import C_LIGHT_KM_S


@struct.dataclass
class LineProfiles:
    """Gaussian lines on the pixels that they reach."""

    low: Array
    """[member, line pixel] ln of the lower edges over the line centre at the reference redshift."""
    high: Array
    """[member, line pixel] the same of the upper edges."""
    width: Array
    """[line pixel] Angstrom."""
    instrument: Array
    """[line pixel] variance of the line-spread function in ln(wavelength)."""
    group: Array
    """[line, member] ratio of each member to the first of its line."""
    pixels: Array
    """[line pixel] indices among all pixels."""

    def __call__(self, shift: Array, dispersion: Array) -> Array:
        """[line, line pixel] flux density of lines of unit flux.

        Args:
            shift: ln(1+z) beyond that of the reference redshift.
            dispersion: of the gas, km/s.
        """
        variance = (dispersion / C_LIGHT_KM_S) ** 2 + self.instrument
        scale = lax.rsqrt(2.0 * jnp.maximum(variance, 1e-12))
        share = lax.erf((self.high - shift) * scale) - lax.erf((self.low - shift) * scale)
        return self.group @ (0.5 * share) / self.width


class Lines(NamedTuple):
    """Lines of one galaxy: their profiles, still to be evaluated."""

    profiles: LineProfiles
    shift: Array
    """ln(1+z) beyond that of the reference redshift."""
    dispersion: Array
    """Of the gas, km/s."""

    def columns(self, observe: Callable[[Array], Array]) -> Array:
        """``observe(profiles)`` for profiles [line, line pixel].

        It depends on two numbers only, so its two tangents are cheaper than its transpose: it is
        given as its value plus tangents times differences that are zero.  First derivatives are
        exact; second ones lack the curvature of the profiles.
        """

        def at(shift: Array, dispersion: Array) -> Array:
            return observe(self.profiles(shift, dispersion))

        here = lax.stop_gradient((self.shift, self.dispersion))
        one, zero = jnp.ones_like(here[0]), jnp.zeros_like(here[0])
        value, by_shift = jax.jvp(at, here, (one, zero))
        _, by_dispersion = jax.jvp(at, here, (zero, one))
        return (
            value + by_shift * (self.shift - here[0]) + by_dispersion * (self.dispersion - here[1])
        )
