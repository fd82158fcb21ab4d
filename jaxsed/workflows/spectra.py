"""From an observed spectrum, with or without photometry, to a `Problem`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import struct
from numpyro.distributions import Distribution

from jaxsed import cosmology as cosmo
from jaxsed import likelihood, params
from jaxsed.bands.filters import load_filter
from jaxsed.core.types import Numbers, Prior, Theta
from jaxsed.likelihood import Joint, JointPrediction, MassShear, Photometry, Spectrum
from jaxsed.problem import Problem
from jaxsed.rest_frame.spectrum import RestModel
from jaxsed.sps.gas.lines import LINES, EmissionLine
from jaxsed.sps.spectra.observed import Arm, ObservedSpectrum
from jaxsed.sps.spectra.pixels import SpectrumModel, blur, spectrum_model
from jaxsed.sps.spectra.rest_photometry import RestPhotometry, rest_photometry

LINE_WIDTH_A = 10.0
"""The prior width of a line's flux is that of a line as high as the highest pixel and this wide,
in Angstrom: wide enough to say nothing."""

DISPERSION = (20.0, 450.0)
"""km/s, the default range of velocity dispersions."""


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class JointModel:
    """``model(theta) -> JointPrediction``: bands and pixels from one rest-frame spectrum."""

    bands: RestPhotometry
    spectrum: SpectrumModel

    transform = MassShear()
    """Of problems with this model, see `jaxsed.Problem`."""

    def __call__(self, theta: Theta) -> JointPrediction:
        """Fluxes of the bands in maggies, and the pixels."""
        ln_light = self.spectrum.rest(theta)
        return JointPrediction(
            self.bands.observe(theta, ln_light), self.spectrum.observe(theta, ln_light)
        )


def spectrum_problem(
    rest: RestModel,
    observed: ObservedSpectrum,
    prior: Prior,
    *,
    photometry: Mapping[str, tuple[float, float]] | None = None,
    velocity_dispersion: Distribution | float | None = None,
    gas_dispersion: Distribution | float | None = None,
    ln_aperture: Distribution | float = 0.0,
    lines: Sequence[EmissionLine] = LINES,
    calibration_order: int = 0,
    calibration_sigma: float = 0.1,
    error_floor: float = 0.0,
    photometry_floor: float = 0.05,
    max_blur: float = 1.0,
    mask_blurred: bool = False,
    redshift_range: tuple[float, float] | None = None,
    cosmology: cosmo.Cosmology | None = None,
) -> Problem:
    """The posterior of a galaxy given its spectrum, and its photometry if there is any.

    The parameters are those of `prior` and `velocity_dispersion`, `gas_dispersion` (where lines
    are in reach) and `ln_aperture`, in this order.

    Args:
        rest: rest-frame spectrum model; see `jaxsed.rest_frame.spectrum`.
        observed: the spectrum; see `jaxsed.sps.spectra.readers` and `observed.arm` beside it.
        prior: theta of distributions of the galaxy, with its redshift known or to be inferred.
        photometry: (flux, error) in maggies by filter name, of the whole galaxy.
        velocity_dispersion: of the stars in km/s, a prior or known; default: uniform over
            `DISPERSION`.
        gas_dispersion: of the gas in km/s, alike.
        ln_aperture: ln of the share of the galaxy's light that the spectrum holds: a prior where
            there is photometry.
        lines: whose fluxes are marginalised; those that no used pixel sees drop out.
        calibration_order: highest degree of the Chebyshev polynomials, from 1 on, that multiply
            the model in each arm.  Degree 0 is the mass (or the aperture) and left out.
        calibration_sigma: prior width of each coefficient.
        error_floor: relative uncertainty of the model in a pixel, a fraction of the observed flux.
        photometry_floor: the same in a band.
        max_blur: how much broader than the data the model may be, as a ratio of FWHM.
        mask_blurred: leave out pixels where it is broader still, instead of refusing.
        redshift_range: needed where the prior of the redshift is neither a number nor uniform.
        cosmology: sets the distance; that of `rest` if not given.  The ages that `prior` allows
            should be of the same.

    Raises ValueError for a prior that `params.check` refuses, where the data are sharper than the
    model or outside of it, where bands are out of reach, where an aperture is to be inferred
    without photometry, and where `rest` is of another cosmology than the one given.
    """
    limits = _redshift_range(prior.redshift, redshift_range)
    star = _dispersion(velocity_dispersion)
    slowest = float(star.support.lower_bound) if isinstance(star, Distribution) else float(star)
    arms = _resolved(rest, observed, limits, slowest, max_blur, mask_blurred)
    forward: Any = spectrum_model(
        rest, arms, redshift_range=limits, lines=lines, cosmology=cosmology
    )
    extra: dict[str, Any] = {"velocity_dispersion": star}
    if forward.line_names:
        extra["gas_dispersion"] = _dispersion(gas_dispersion)
    extra["ln_aperture"] = ln_aperture
    data: Any = _spectrum_data(arms, forward, calibration_order, calibration_sigma, error_floor)
    if photometry:
        filters = [load_filter(name) for name in photometry]
        bands = rest_photometry(rest, filters, redshift_range=limits, cosmology=cosmology)
        forward = JointModel(bands, forward)
        data = Joint(_photometry_data(photometry, photometry_floor), data)
    elif not params.is_fixed(ln_aperture):
        raise ValueError("an aperture is not known from a spectrum alone: give photometry")
    whole = params.extended(prior, **extra)
    params.check(whole)
    return Problem(whole, forward, data)


def spectrum_part(problem: Problem) -> tuple[SpectrumModel, Spectrum]:
    """The spectrum's model and data of a problem made by `spectrum_problem`."""
    if isinstance(problem.forward, JointModel):
        return problem.forward.spectrum, problem.data.spectrum  # type: ignore[attr-defined]
    return problem.forward, problem.data  # type: ignore[return-value]


def _dispersion(given: Distribution | float | None) -> Distribution | float:
    return params.distribution("uniform", *DISPERSION) if given is None else given


def _redshift_range(redshift: Numbers, given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        return given
    if not isinstance(redshift, Distribution):
        return float(redshift), float(redshift)
    if not hasattr(redshift, "low"):
        raise ValueError("the prior of the redshift is not uniform: give redshift_range")
    return float(redshift.low), float(redshift.high)


def _resolved(
    rest: RestModel,
    observed: ObservedSpectrum,
    redshift_range: tuple[float, float],
    slowest: float,
    max_blur: float,
    mask_blurred: bool,
) -> tuple[Arm, ...]:
    """The arms with used pixels, cut to them, where the model is sharp enough."""
    arms = []
    for arm in observed.arms:
        ratio = np.where(arm.used, blur(rest, arm, redshift_range, slowest), 0.0)
        if mask_blurred:
            arm = dataclasses.replace(arm, ivar=np.where(ratio <= max_blur, arm.ivar, 0.0))
        elif not ratio.max() <= max_blur:
            worst = int(ratio.argmax())
            bad = arm.wave[~(ratio <= max_blur)]
            raise ValueError(
                f"{observed.name}, arm {arm.name}: the data are sharper than the model "
                f"({rest.resolution.text}): at {arm.wave[worst]:.0f} Angstrom the model is "
                f"{ratio[worst]:.2f} times broader than the instrument ({arm.fwhm()[worst]:.2f} "
                f"Angstrom FWHM) with a velocity dispersion of {slowest:g} km/s, and broader "
                f"than {max_blur:g} times from {bad[0]:.0f} to {bad[-1]:.0f}. Use a sharper "
                "model, raise the lowest velocity dispersion, leave these pixels out "
                "(mask_blurred=True), or allow it (max_blur)"
            )
        if arm.used.any():
            arms.append(_cut(arm))
    if not arms:
        raise ValueError(f"{observed.name}: no pixel is left where the model is sharp enough")
    return tuple(arms)


def _cut(arm: Arm) -> Arm:
    """The arm from its first to its last used pixel, and what blurs into them."""
    reach = max((abs(o) for o in arm.offsets), default=1)
    first, last = np.flatnonzero(arm.used)[[0, -1]]
    kept = slice(max(first - reach, 0), last + reach + 1)
    return dataclasses.replace(
        arm,
        wave=arm.wave[kept],
        flux=arm.flux[kept],
        ivar=arm.ivar[kept],
        sigma=None if arm.sigma is None else arm.sigma[kept],
        resolution=None if arm.resolution is None else arm.resolution[:, kept],
    )


def _spectrum_data(
    arms: Sequence[Arm],
    model: SpectrumModel,
    order: int,
    calibration_sigma: float,
    error_floor: float,
) -> Spectrum:
    """The pixels of all arms on one axis."""
    sizes = [arm.wave.size for arm in arms]
    starts, n = np.concatenate([[0], np.cumsum(sizes)[:-1]]), sum(sizes)
    offsets = tuple(sorted({o for arm in arms for o in (arm.offsets or (0,))}))
    rows = np.zeros((len(offsets), n))
    polynomials = np.zeros((order * len(arms), n))
    for k, (arm, start) in enumerate(zip(arms, starts, strict=True)):
        own = slice(start, start + arm.wave.size)
        ends = arm.wave[arm.used][[0, -1]]
        x = np.clip(2 * (arm.wave - ends[0]) / max(np.ptp(ends), 1e-6) - 1, -1, 1)
        basis = np.polynomial.chebyshev.chebvander(x, order)[:, 1:].T
        polynomials[k * order : (k + 1) * order, own] = calibration_sigma * basis
        rows[:, own] = _rows(arm, offsets)
    flux, ivar = (np.concatenate([getattr(arm, part) for arm in arms]) for part in ("flux", "ivar"))
    line_sigma = LINE_WIDTH_A * np.abs(flux[ivar > 0]).max() * np.ones(len(model.line_names))
    blurred = offsets != (0,)
    return likelihood.spectrum(
        flux, ivar, error_floor=error_floor, polynomials=polynomials, line_sigma=line_sigma,
        line_pixels=np.asarray(model.lines.pixels),
        resolution=rows if blurred else None, offsets=offsets if blurred else (),
        wave=np.concatenate([arm.wave for arm in arms]),
    )  # fmt: skip


def _rows(arm: Arm, offsets: tuple[int, ...]) -> np.ndarray:
    """[diagonal, pixel] of an arm at these offsets, with nothing from beyond its pixels."""
    pixel, n = np.arange(arm.wave.size), arm.wave.size
    rows = np.zeros((len(offsets), n))
    if arm.resolution is None:
        rows[offsets.index(0)] = 1.0
        return rows
    for offset, row in zip(arm.offsets, arm.resolution, strict=True):
        inside = (pixel + offset >= 0) & (pixel + offset < n)
        rows[offsets.index(offset)] = np.where(inside, row, 0.0)
    return rows


def _photometry_data(photometry: Mapping[str, tuple[float, float]], floor: float) -> Photometry:
    flux, error = np.array(list(photometry.values()), float).T
    return likelihood.photometry(flux, error, error_floor=floor)
