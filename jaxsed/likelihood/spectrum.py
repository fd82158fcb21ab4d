"""A spectrum: independent pixels, with lines and a calibration polynomial marginalised.

The model of the pixels is linear in its nuisance coefficients ``c``,

    d = R [m (1 + sum_k c_k T_k) + sum_l c_l P_l] + noise,      c ~ N(0, s^2),

with the galaxy's continuum m, Chebyshev polynomials T_k, line profiles P_l and the resolution
matrix R of the instrument.  Their integral is exact (e.g. Hogg & Villar 2021, section 4): with
whitened columns A (scaled by their s) and residuals r,

    ln L = -1/2 (|r - A c*|^2 + |c*|^2 + ln det H),    H = 1 + A^T A,    c* = H^-1 A^T r,

so the residuals r - A c* together with c* are those of a least-squares problem.  Amplitudes of
lines are not forced to be positive: that would leave no closed form, and where a line is absent
its amplitude scatters about zero as it should.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core import linear_algebra
from jaxsed.likelihood.lines import Lines


class SpectrumPrediction(NamedTuple):
    """A galaxy's light on the pixels of a spectrum, before the instrument blurs it."""

    continuum: Array
    """[pixel] mean flux density in each pixel, in the unit of the data."""
    lines: Lines
    """The same of lines of unit flux, in the pixels that lines reach."""


class SpectrumFit(NamedTuple):
    """The parts of a best-fitting spectrum, as observed."""

    continuum: Array
    """[pixel] the galaxy without lines, before calibration."""
    calibration: Array
    """[pixel] factor on the continuum."""
    lines: Array
    """[pixel] all lines together."""
    total: Array
    """[pixel] what the data are compared with."""
    line_flux: Array
    """[line] flux of each line, in the unit of the data times Angstrom."""
    line_error: Array
    """[line] its standard deviation with the galaxy's parameters fixed."""
    coefficients: Array
    """[term] of the calibration polynomials."""


class _System(NamedTuple):
    """Whitened model and columns of the coefficients, polynomials first."""

    model: Array
    """[pixel]"""
    terms: Array
    """[term, pixel]"""
    lines: Array
    """[line, line pixel]"""
    products: Array
    """[coefficient, coefficient] A^T A."""

    def h(self, scale: Array | float = 1.0) -> Array:
        """[coefficient, coefficient] H, for columns times `scale`."""
        n = self.products.shape[0]
        return self.products * scale * jnp.reshape(scale, (-1, 1)) + jnp.eye(
            n, dtype=self.products.dtype
        )


@struct.dataclass
class Spectrum:
    """One galaxy's spectrum as the likelihood wants it; all its arms are in one pixel axis."""

    scaled: Array
    """[pixel] flux over its uncertainty; zero where a pixel is not used."""
    inverse_sigma: Array
    """[pixel] one over the uncertainty; zero where a pixel is not used."""
    polynomials: Array
    """[term, pixel] calibration polynomials times the prior widths of their coefficients."""
    line_sigma: Array
    """[line] prior widths of the line fluxes."""
    line_pixels: Array
    """[line pixel] indices of the pixels that lines reach, in order."""
    line_free: Array
    """[pixel] one where no line reaches, zero elsewhere."""
    wave: Array
    """[pixel] observed vacuum wavelengths in Angstrom; for pictures only."""
    resolution: Array | None = None
    """[diagonal, pixel] row i of the resolution matrix is nonzero at columns i + offsets."""
    offsets: tuple[int, ...] = struct.field(pytree_node=False, default=())

    def observe(self, spectrum: Array) -> Array:
        """[pixel] as the instrument blurs it."""
        return _blurred(spectrum, self.resolution, self.offsets)

    def residuals(self, prediction: SpectrumPrediction) -> Array:
        """[pixel + coefficient] residuals at the best coefficients, then these in prior widths."""
        system = self._system(prediction)
        best = self._best(system)
        n_term = self.polynomials.shape[0]
        residual = system.model - self.scaled + best[:n_term] @ system.terms
        residual = residual.at[self.line_pixels].add(best[n_term:] @ system.lines)
        return jnp.concatenate([residual, best])

    def log_likelihood(self, prediction: SpectrumPrediction) -> Array:
        """Log likelihood with the coefficients integrated out, without constants of the data."""
        system = self._system(prediction)
        best = self._best(system)
        n_term = self.polynomials.shape[0]
        residual = system.model - self.scaled + best[:n_term] @ system.terms
        at_lines = residual[self.line_pixels] + best[n_term:] @ system.lines
        chi2 = jnp.sum(self.line_free * residual**2) + jnp.sum(at_lines**2) + jnp.sum(best**2)
        return -0.5 * (chi2 + linear_algebra.log_determinant(system.h()))

    def normal_equation(self, prediction: SpectrumPrediction) -> tuple[Array, Array]:
        """``m C^-1 m`` and ``m C^-1 d`` with C the covariance that the coefficients add to.

        The calibration belongs to the mass that fits without it: to first order the same.
        """
        system = self._system(prediction)
        n_term, n = self.polynomials.shape[0], system.products.shape[0]
        scale = jnp.sum(system.model * self.scaled) / (jnp.sum(system.model**2) + 1e-12)
        scale = jnp.where(jnp.arange(n) < n_term, jnp.abs(scale), 1.0)
        inverse = linear_algebra.inverse_positive(system.h(scale))
        on_model = scale * self._products(system, system.model)
        on_data = scale * self._products(system, self.scaled)
        solved = inverse @ on_model
        return (
            jnp.sum(system.model**2) - jnp.sum(on_model * solved),
            jnp.sum(system.model * self.scaled) - jnp.sum(on_data * solved),
        )

    def rescaled(self, prediction: SpectrumPrediction, factor: Array) -> SpectrumPrediction:
        """The prediction for a galaxy of `factor` times the mass; lines have their own fluxes."""
        return prediction._replace(continuum=prediction.continuum * factor)

    def kept(self, prediction: SpectrumPrediction) -> None:
        """None: thousands of pixels of every draw would fill the memory; see `fit`."""

    def fit(self, prediction: SpectrumPrediction) -> SpectrumFit:
        """The best-fitting spectrum for a prediction, in its parts."""
        system = self._system(prediction)
        n_term = self.polynomials.shape[0]
        best = self._best(system)
        continuum = self.observe(prediction.continuum)
        calibration = 1.0 + best[:n_term] @ self.polynomials
        flux = best[n_term:] * self.line_sigma
        at_lines = flux @ prediction.lines.columns(self._blurred_lines)
        lines = jnp.zeros_like(continuum).at[self.line_pixels].set(at_lines)
        error = jnp.sqrt(jnp.diag(linear_algebra.inverse_positive(system.h()))[n_term:])
        return SpectrumFit(
            continuum=continuum,
            calibration=calibration,
            lines=lines,
            total=continuum * calibration + lines,
            line_flux=flux,
            line_error=error * self.line_sigma,
            coefficients=best[:n_term],
        )

    def _system(self, prediction: SpectrumPrediction) -> _System:
        model = self.observe(prediction.continuum) * self.inverse_sigma
        lines = prediction.lines.columns(self._observed_lines) * self.line_sigma[:, None]
        terms = self.polynomials * model
        # Block by block: that of the lines does not depend on the mass, and is computed once.
        mixed = (self.polynomials[:, self.line_pixels] * model[self.line_pixels]) @ lines.T
        products = jnp.block([[terms @ terms.T, mixed], [mixed.T, lines @ lines.T]])
        return _System(model, terms, lines, products)

    def _observed_lines(self, profiles: Array, pixels: Array) -> Array:
        """[member, window] whitened, of profiles in windows of these pixels."""
        return self._blurred_lines(profiles, pixels) * self.inverse_sigma[pixels]

    def _blurred_lines(self, profiles: Array, pixels: Array) -> Array:
        # Between stretches of line pixels there is no line, so neighbours are neighbours.
        rows = None if self.resolution is None else self.resolution[:, pixels]
        return _blurred(profiles, rows, self.offsets)

    def _products(self, system: _System, pixels: Array) -> Array:
        """[coefficient] products of the columns with whitened pixels."""
        return jnp.concatenate([system.terms @ pixels, system.lines @ pixels[self.line_pixels]])

    def _best(self, system: _System) -> Array:
        """[coefficient] the best coefficients, in prior widths."""
        right = self._products(system, self.scaled - system.model)
        return linear_algebra.inverse_positive(system.h()) @ right


def _blurred(spectra: Array, resolution: Array | None, offsets: tuple[int, ...]) -> Array:
    """[..., pixel] product with a banded matrix, by its rows [diagonal, pixel]."""
    if resolution is None:
        return spectra
    reach, n = max(abs(o) for o in offsets), spectra.shape[-1]
    wide = jnp.pad(spectra, [(0, 0)] * (spectra.ndim - 1) + [(reach, reach)])
    shifted = [wide[..., reach + o : reach + o + n] for o in offsets]
    return sum(row * part for row, part in zip(resolution, shifted, strict=True))


def spectrum(
    flux: np.ndarray,
    ivar: np.ndarray,
    *,
    error_floor: float = 0.0,
    polynomials: np.ndarray | None = None,
    line_sigma: np.ndarray | None = None,
    line_pixels: np.ndarray | None = None,
    resolution: np.ndarray | None = None,
    offsets: tuple[int, ...] = (),
    wave: np.ndarray | None = None,
) -> Spectrum:
    """Build `Spectrum` from fluxes [pixel] and inverse variances.

    Args:
        flux: in any unit, which the predictions share.
        ivar: inverse variance; zero where a pixel is not to be used, whatever its flux.
        error_floor: relative uncertainty of the model, as a fraction of the observed flux, added in
            quadrature.
        polynomials: [term, pixel] times the prior widths of their coefficients.
        line_sigma: [line] prior widths of the line fluxes.
        line_pixels: [line pixel] indices of the pixels that lines reach, increasing, with as many
            dark pixels around each stretch as the resolution matrix has offsets; default: all.
        resolution: [diagonal, pixel] rows of the resolution matrix at the columns i + offsets.
        offsets: of the diagonals.
        wave: [pixel] observed wavelengths, kept for pictures.

    Raises ValueError for shapes that differ, for used pixels that are not finite, for negative
    inverse variances, and where no pixel is used.
    """
    flux, ivar = np.asarray(flux, float), np.asarray(ivar, float)
    if flux.ndim != 1 or flux.shape != ivar.shape:
        raise ValueError(f"expected flux and ivar [pixel], got {flux.shape} and {ivar.shape}")
    if not np.all(ivar >= 0) or not np.all(np.isfinite(ivar)):
        raise ValueError("expected inverse variances that are finite and not negative")
    used = ivar > 0
    if not used.any():
        raise ValueError("no pixel is used: every inverse variance is zero")
    if not np.all(np.isfinite(flux[used])):
        where = int(np.flatnonzero(used & ~np.isfinite(flux))[0])
        raise ValueError(f"pixel {where}: flux {flux[where]} with ivar {ivar[where]}: mask it")
    polynomials = np.zeros((0, flux.size)) if polynomials is None else np.asarray(polynomials)
    line_sigma = np.zeros(0) if line_sigma is None else np.asarray(line_sigma, float)
    for name, values in (("polynomials", polynomials), ("resolution", resolution)):
        if values is not None and (values.ndim != 2 or values.shape[1] != flux.size):
            raise ValueError(f"expected {name} [.., {flux.size}], got shape {values.shape}")
    if (0 if resolution is None else len(resolution)) != len(offsets):
        raise ValueError("expected an offset for every diagonal of the resolution matrix")
    line_pixels = np.arange(flux.size) if line_pixels is None else np.asarray(line_pixels, int)
    flux = np.where(used, flux, 0.0)
    variance = 1.0 / np.where(used, ivar, 1.0) + (error_floor * flux) ** 2
    inverse = np.where(used, 1.0 / np.sqrt(variance), 0.0)
    return Spectrum(
        scaled=jnp.asarray(flux * inverse, dtype=float),
        inverse_sigma=jnp.asarray(inverse, dtype=float),
        polynomials=jnp.asarray(polynomials, dtype=float),
        line_sigma=jnp.asarray(line_sigma, dtype=float),
        line_pixels=jnp.asarray(line_pixels, dtype=int),
        line_free=jnp.asarray(~np.isin(np.arange(flux.size), line_pixels), dtype=float),
        wave=jnp.asarray(np.arange(flux.size) if wave is None else wave, dtype=float),
        resolution=None if resolution is None else jnp.asarray(resolution, dtype=float),
        offsets=tuple(int(o) for o in offsets),
    )
