"""Spectra of any survey onto a network's grid: vacuum, rest frame, resolution, pixels.

    wave = at_rest(wave, velocity, air=True)
    flux, error = resample(wave, flux, error, grid)
    flux, error = normalise(flux, error, continuum, chips)
    stars = spectra(grid, flux, error)

Every step is linear in the flux, with the same weights squared for the variances; pixels that are
unusable have no weight.  Afterwards neighbouring pixels are correlated, which no uncertainty says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from jaxsed.bands.wavelengths import air_to_vacuum
from jaxsed.core.constants import C_LIGHT_KM_S
from jaxsed.core.types import Numbers

LOST = 0.2
"""Share of a pixel's weight on unusable pixels beyond which it is unusable itself."""

REACH = 4.0
"""Standard deviations of the line-spread function at which it is cut."""

FWHM = 2 * np.sqrt(2 * np.log(2))


def at_rest(
    wave: Numbers, velocity: Numbers, *, barycentric: Numbers = 0.0, air: bool = False
) -> np.ndarray:
    """[.., pixel] vacuum wavelengths at rest.

    Args:
        wave: [pixel] or [star, pixel] in Angstrom as observed.
        velocity: c z of the star in km/s against the barycentre, positive where it recedes; one, or
            [star].
        barycentric: the correction in km/s that makes a velocity barycentric (astropy's
            `radial_velocity_correction`), where the wavelengths are those of the observatory; 0
            where the survey has applied it.
        air: whether the wavelengths are in air.

    Raises ValueError for a velocity that is not finite.
    """
    shift = (1 + np.asarray(barycentric, float) / C_LIGHT_KM_S) / (
        1 + np.asarray(velocity, float) / C_LIGHT_KM_S
    )
    if not np.isfinite(shift).all():
        raise ValueError(
            "a velocity is not finite: the labels need spectra at rest, so leave such stars out"
        )
    wave = np.asarray(wave, float)
    return (air_to_vacuum(wave) if air else wave) * shift[..., None]


def resample(
    wave: Numbers, flux: Numbers, error: Numbers, target: Any, *, mask: Numbers = None
) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error [star, pixel] on a target grid; NaN and infinity where unusable.

    A pixel of the target has the mean over its width of the straight lines between the fluxes, so
    that finer pixels are averaged and coarser ones interpolated.  It is unusable where more than a
    fifth of that comes from unusable pixels or from outside of the spectrum.

    Args:
        wave: [pixel] or [star, pixel] in the frame of the target, increasing.
        flux: [star, pixel]; a pixel that is not finite is unusable.
        error: [star, pixel] standard deviations; unusable where not finite or not positive.
        target: [pixel] wavelengths, increasing.
        mask: [star, pixel] nonzero where a pixel is unusable.

    Raises ValueError for shapes that do not fit and wavelengths that do not increase.
    """
    wave, flux, error, usable = _checked(wave, flux, error, mask)
    target = np.asarray(target, float)
    if target.ndim != 1 or target.size < 2 or not (np.diff(target) > 0).all():
        raise ValueError("expected a target grid [pixel] of two or more increasing wavelengths")
    return _each(lambda w: _overlaps(w, target), wave, flux, error, usable, target.size)


def to_resolution(
    wave: Numbers,
    flux: Numbers,
    error: Numbers,
    power: float,
    *,
    of: float = np.inf,
    mask: Numbers = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error [star, pixel] at a lower resolving power, by a Gaussian.

    Args:
        wave: [pixel] or [star, pixel] in Angstrom, increasing.
        flux: [star, pixel].
        error: [star, pixel] standard deviations.
        power: the resolving power wanted, wavelength over full width at half maximum.
        of: that of the spectra.
        mask: [star, pixel] nonzero where a pixel is unusable.

    Raises ValueError for a power that is not below that of the spectra, and as `resample` does.
    """
    if not 0 < power < of:
        raise ValueError(f"expected a resolving power below the spectra's {of:g}, got {power:g}")
    wave, flux, error, usable = _checked(wave, flux, error, mask)
    width = np.sqrt(power**-2 - of**-2) / FWHM
    return _each(lambda w: _gaussians(w, width), wave, flux, error, usable, wave.shape[-1])


def _checked(wave: Numbers, flux: Numbers, error: Numbers, mask: Numbers) -> tuple[np.ndarray, ...]:
    wave = np.asarray(wave, float)
    flux, error = (np.array(a, float, ndmin=2) for a in (flux, error))
    mask = np.zeros(flux.shape) if mask is None else np.array(mask, ndmin=2)
    fits = wave.shape in (flux.shape, flux.shape[1:])
    if not fits or error.shape != flux.shape or mask.shape != flux.shape:
        raise ValueError(
            "expected wavelengths [pixel] or [star, pixel] and fluxes, uncertainties and masks "
            f"[star, pixel], got shapes {wave.shape}, {flux.shape}, {error.shape} and {mask.shape}"
        )
    if not (np.isfinite(wave).all() and (np.diff(wave) > 0).all() and (wave > 0).all()):
        raise ValueError("expected wavelengths that are finite, positive and increase")
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(flux) & np.isfinite(error) & (error > 0) & (mask == 0)
    return wave, flux, error, usable


def _each(
    weights_of: Any, wave: np.ndarray, flux: np.ndarray, error: np.ndarray, usable: np.ndarray,
    pixels: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Weights applied to each star; stars on the same wavelengths share them."""
    out, noise = np.full((len(flux), pixels), np.nan), np.full((len(flux), pixels), np.inf)
    shared = weights_of(wave) if wave.ndim == 1 else None
    for row in range(len(flux)):
        weights = weights_of(wave[row]) if shared is None else shared
        use = usable[row]
        kept = weights @ use.astype(float)
        good = kept > 1 - LOST
        norm = np.where(good, kept, 1.0)
        value = weights @ np.where(use, flux[row], 0.0) / norm
        variance = weights.power(2) @ np.where(use, error[row] ** 2, 0.0) / norm**2
        out[row, good], noise[row, good] = value[good], np.sqrt(variance[good])
    return out, noise


def _overlaps(wave: np.ndarray, target: np.ndarray) -> Any:
    """[target, pixel] means of straight lines between the pixels' centres; rows sum to the share
    of the target's pixel that the spectrum covers."""
    middle = (target[1:] + target[:-1]) / 2
    edges = np.concatenate([[2 * target[0] - middle[0]], middle, [2 * target[-1] - middle[-1]]])
    cuts = np.unique(np.concatenate([edges, wave]))
    cuts = cuts[(cuts >= max(edges[0], wave[0])) & (cuts <= min(edges[-1], wave[-1]))]
    # Between two cuts the line is one line, whose mean is its value in the middle.
    at, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    left = np.searchsorted(wave, at) - 1
    row = np.searchsorted(edges, at) - 1
    share = (at - wave[left]) / (wave[left + 1] - wave[left])
    width = width / np.diff(edges)[row]
    return sparse.csr_array(
        (
            np.concatenate([width * (1 - share), width * share]),
            (np.concatenate([row, row]), np.concatenate([left, left + 1])),
        ),
        shape=(target.size, wave.size),
    )


def _gaussians(wave: np.ndarray, width: float) -> Any:
    """[pixel, pixel] Gaussians of a standard deviation in ln wavelength, over widths of pixels."""
    place, step = np.log(wave), np.gradient(wave)
    first = np.searchsorted(place, place - REACH * width)
    last = np.searchsorted(place, place + REACH * width, side="right")
    count = last - first
    row = np.repeat(np.arange(wave.size), count)
    column = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    weight = step[column] * np.exp(-0.5 * ((place[column] - place[row]) / width) ** 2)
    total = np.bincount(row, weight, minlength=wave.size)
    return sparse.csr_array((weight / total[row], (row, column)), shape=(wave.size, wave.size))
