"""Emission lines on the pixels of a spectrum."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from jaxsed.core.constants import C_LIGHT_KM_S


@struct.dataclass
class LineProfiles:
    """Gaussian lines on the pixels that they reach.

    Each member of a line has a window of pixels of its own; windows have one length.
    """

    low: Array
    """[member, window] ln of the lower edges over the line centre at the reference redshift."""
    high: Array
    """[member, window] the same of the upper edges."""
    per_width: Array
    """[member, window] ratio to the first of its line over the pixel's width in Angstrom; zero
    where a pixel of the window is not the member's own."""
    instrument: Array
    """[member, window] variance of the line-spread function in ln(wavelength)."""
    windows: Array
    """[member, window] indices among all pixels."""
    pixels: Array
    """[line pixel] indices among all pixels of those that any line reaches."""
    places: tuple[tuple[int, int], ...] = struct.field(pytree_node=False)
    """[member] line, and first line pixel of the window."""
    n_lines: int = struct.field(pytree_node=False)

    def in_windows(self, shift: Array, dispersion: Array) -> Array:
        """[member, window] flux density of lines of unit flux.

        Args:
            shift: ln(1+z) beyond that of the reference redshift.
            dispersion: of the gas, km/s.
        """
        variance = (dispersion / C_LIGHT_KM_S) ** 2 + self.instrument
        scale = lax.rsqrt(2.0 * jnp.maximum(variance, 1e-12))
        share = lax.erf((self.high - shift) * scale) - lax.erf((self.low - shift) * scale)
        return 0.5 * share * self.per_width

    def placed(self, windows: Array) -> Array:
        """[line, line pixel] the sum of each line's windows."""
        out = jnp.zeros((self.n_lines, self.pixels.size), windows.dtype)
        n = windows.shape[-1]
        for (line, first), window in zip(self.places, windows, strict=True):
            out = out.at[line, first : first + n].add(window)
        return out

    def __call__(self, shift: Array, dispersion: Array) -> Array:
        """[line, line pixel] flux density of lines of unit flux."""
        return self.placed(self.in_windows(shift, dispersion))


class Lines(NamedTuple):
    """Lines of one galaxy: their profiles, still to be evaluated."""

    profiles: LineProfiles
    shift: Array
    """ln(1+z) beyond that of the reference redshift."""
    dispersion: Array
    """Of the gas, km/s."""

    def columns(self, observe: Callable[[Array, Array], Array]) -> Array:
        """[line, line pixel] of the profiles as ``observe(profiles, pixels)`` [member, window].

        They depend on two numbers only, so two tangents are cheaper than a transpose: they are
        given as their value plus tangents times differences that are zero.  First derivatives are
        exact; second ones lack the curvature of the profiles.
        """
        profiles = self.profiles
        if not profiles.n_lines:
            return profiles.placed(profiles.low)

        def at(shift: Array, dispersion: Array) -> Array:
            return observe(profiles.in_windows(shift, dispersion), profiles.windows)

        here = lax.stop_gradient((self.shift, self.dispersion))
        one, zero = jnp.ones_like(here[0]), jnp.zeros_like(here[0])
        value, by_shift = jax.jvp(at, here, (one, zero))
        _, by_dispersion = jax.jvp(at, here, (zero, one))
        parts = [profiles.placed(part) for part in (value, by_shift, by_dispersion)]
        return parts[0] + parts[1] * (self.shift - here[0]) + parts[2] * (self.dispersion - here[1])
