"""The continuum of a star's spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.polynomial import chebyshev

DEGREE = 2
"""Of the polynomials, as for APOGEE in Leung & Bovy (2018)."""


def normalise(
    flux: np.ndarray,
    error: np.ndarray,
    continuum: np.ndarray,
    chips: Sequence[slice],
    degree: int = DEGREE,
) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error over a continuum: one Chebyshev polynomial per chip.

    Fitted to the continuum pixels of a chip that are finite, each weighted by its inverse variance.

    Args:
        flux: [star, pixel]; NaN where unusable.
        error: [star, pixel] standard deviations.
        continuum: [pixel] whether it is a continuum pixel.
        chips: ranges of pixels.
        degree: of the polynomials.

    A chip with too few continuum pixels for its polynomial, or whose polynomial is not positive
    everywhere, becomes NaN.
    """
    out, noise = np.full_like(flux, np.nan, dtype=float), np.full_like(error, np.nan, dtype=float)
    for chip in chips:
        place = np.linspace(-1, 1, len(range(*chip.indices(flux.shape[1]))))
        for row in range(len(flux)):
            f, e = flux[row, chip].astype(float), error[row, chip].astype(float)
            with np.errstate(invalid="ignore"):
                use = continuum[chip] & np.isfinite(f) & np.isfinite(e) & (e > 0)
            if use.sum() <= degree + 1:
                continue
            # numpy's weights multiply residuals, so the inverse error weighs by inverse variance
            c = chebyshev.chebfit(place[use], f[use], degree, w=1 / e[use])
            level = chebyshev.chebval(place, c)
            if (level > 0).all():
                out[row, chip], noise[row, chip] = f / level, e / level
    return out, noise
