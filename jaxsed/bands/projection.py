"""AB fluxes of redshifted spectra as one matrix product.

The rest-frame spectrum lives on a grid uniform in ln(wavelength), where a redshift is a shift.
A band flux is then the shifted spectrum times a fixed matrix, and the fraction of a grid step
left over is a cubic in that fraction, so a batch of galaxies at any redshifts is a few large
matrix products and the flux is a C1 function of redshift.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.bands.filters import Filter


@struct.dataclass
class BandProjector:
    """Band fluxes of a rest-frame spectrum on a uniform ln(wavelength) grid, at any redshift."""

    matrix: Array
    """[observed, 4 x band] responses and their slopes at both ends of a grid step."""
    first: int = struct.field(pytree_node=False)
    """Index of the first observed-frame pixel on the (extended) rest-frame grid."""
    ln_step: float = struct.field(pytree_node=False)
    names: tuple[str, ...] = struct.field(pytree_node=False)
    pivot: tuple[float, ...] = struct.field(pytree_node=False)
    """[band] observed pivot wavelengths, Å."""

    def __call__(self, spectrum: Array, redshift: Array) -> Array:
        """Mean flux density per band, [band], of `spectrum` [wave] seen at `redshift`.

        In the unit of `spectrum` per frequency interval *at the same pixel*; the factor (1+z) of
        a flux density per unit observed frequency is the caller's.
        """
        shift = jnp.log1p(redshift) / self.ln_step
        whole = jax.lax.stop_gradient(jnp.floor(shift))
        f = shift - whole
        n_obs = self.matrix.shape[0]
        padded = jnp.pad(spectrum, (n_obs, n_obs))
        # Off the grid on either side there is no light; a negative start would wrap around.
        start = jnp.clip(n_obs + self.first - whole.astype(int), 0, spectrum.shape[0] + n_obs)
        seen = jax.lax.dynamic_slice(padded, (start,), (n_obs,))
        low, low_slope, high, high_slope = (seen @ self.matrix).reshape(4, -1)
        return (
            low * ((1 + 2 * f) * (1 - f) ** 2)
            + low_slope * (f * (1 - f) ** 2)
            + high * (f**2 * (3 - 2 * f))
            - high_slope * (f**2 * (1 - f))
        )


def project(bands: Sequence[Filter], wave: np.ndarray) -> BandProjector:
    """Build the projector for these bands on a rest-frame grid uniform in ln(wavelength).

    The spectrum is taken as linear between its pixels (in f_nu against ln wavelength) and the
    filters as tabulated; the response of band j to pixel p is the integral of the filter times
    the pixel's hat function, a smooth function of the pixel's position, tabulated with its slope
    at every pixel.

    Raises ValueError if the grid is not uniform in ln(wavelength).
    """
    if not bands:
        raise ValueError("expected at least one band")
    ln_wave = np.log(np.asarray(wave, float))
    step = (ln_wave[-1] - ln_wave[0]) / (ln_wave.size - 1)
    if np.abs(np.diff(ln_wave) - step).max() > 1e-3 * step:
        raise ValueError(
            "expected wavelengths uniform in ln(wavelength); see "
            "jaxsed.sps.ssp.wavelengths.log_wave_grid"
        )
    low = min(np.log(b.wave[0]) for b in bands)
    high = max(np.log(b.wave[-1]) for b in bands)
    first = int(np.floor((low - ln_wave[0]) / step)) - 2
    last = int(np.ceil((high - ln_wave[0]) / step)) + 2
    pixel = np.arange(first, last + 1)
    response = np.stack([_hat_response(b, ln_wave[0], step, pixel) for b in bands], axis=1)
    slope = np.stack([_hat_slope(b, ln_wave[0], step, pixel) for b in bands], axis=1)
    # A spectrum shifted by a whole step further meets the response one pixel on.
    shifted = [np.vstack([x[1:], np.zeros_like(x[:1])]) for x in (response, slope)]
    matrix = np.concatenate([response, slope, *shifted], axis=1)
    return BandProjector(
        matrix=jnp.asarray(matrix, dtype=float),
        first=first,
        ln_step=float(step),
        names=tuple(b.name for b in bands),
        pivot=tuple(float(b.pivot) for b in bands),
    )


def _integrals(band: Filter, start: float, step: float, edges: np.ndarray):
    """Cumulative integrals of the filter and of its first moment at positions in pixels."""
    y = (np.log(band.wave) - start) / step
    fine = np.union1d(np.linspace(y[0], y[-1], max(2000, 4 * y.size)), y)
    trans = np.interp(np.exp(start + fine * step), band.wave, band.trans)
    norm = np.trapezoid(trans, fine)

    def cumulative(f: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(0.5 * (f[1:] + f[:-1]) * np.diff(fine))]) / norm

    zero, one = cumulative(trans), cumulative(trans * fine)
    return np.interp(edges, fine, zero), np.interp(edges, fine, one)


def _hat_response(band: Filter, start: float, step: float, pixel: np.ndarray) -> np.ndarray:
    """Integral of the normalised filter times the hat function of each pixel."""
    edges = np.concatenate([pixel - 1.0, [pixel[-1], pixel[-1] + 1.0]])
    zero, one = _integrals(band, start, step, edges)
    d0, d1 = np.diff(zero), np.diff(one)
    rising = d1[:-1] - (pixel - 1) * d0[:-1]
    falling = (pixel + 1) * d0[1:] - d1[1:]
    return rising + falling


def _hat_slope(band: Filter, start: float, step: float, pixel: np.ndarray) -> np.ndarray:
    """Derivative of `_hat_response` with respect to the pixel's position."""
    edges = np.concatenate([pixel - 1.0, [pixel[-1], pixel[-1] + 1.0]])
    d0 = np.diff(_integrals(band, start, step, edges)[0])
    return d0[1:] - d0[:-1]
