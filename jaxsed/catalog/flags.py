"""Flags of one galaxy: a bit each, 0 is good.

The values are written to result files and never change meaning.
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxsed.core.diagnostics import ESS_MIN, RHAT_MAX, Diagnostics
from jaxsed.core.flags import flag_text

# A model that fits leaves a larger chi2 once in 10,000 galaxies.
POOR_FIT_P = 1e-4


class Flag(IntFlag):
    """Bits of the column ``flag``."""

    BAD_REDSHIFT = 1
    NO_BANDS = 2
    FEW_BANDS = 4
    NOT_CONVERGED = 8
    DIVERGENCES = 16
    POOR_FIT = 32
    OUTSIDE_EMULATOR = 64
    BAD_PHOTOMETRY = 128
    UNREACHABLE_BAND = 256
    DUPLICATE_ID = 512
    NUMERICAL_FAILURE = 1024
    DUST_EMISSION = 2048
    REDSHIFT_EDGE = 4096


# A row with one of these is not fitted.
NOT_FITTED = Flag.BAD_REDSHIFT | Flag.NO_BANDS

TEXT: dict[Flag, str] = {
    Flag.BAD_REDSHIFT: "redshift missing, not positive or beyond 12: not fitted",
    Flag.NO_BANDS: "no usable flux: not fitted",
    Flag.FEW_BANDS: "fewer than 3 bands: little but the prior",
    Flag.NOT_CONVERGED: f"R-hat >= {RHAT_MAX} or effective sample size < {ESS_MIN:.0f}",
    Flag.DIVERGENCES: "the sampler met divergences",
    Flag.POOR_FIT: f"chi2 improbable (p < {POOR_FIT_P:g}) even for the best draw",
    Flag.OUTSIDE_EMULATOR: "some draws lie outside the emulator's training range",
    Flag.BAD_PHOTOMETRY: "a flux or error was unusable and is left out",
    Flag.UNREACHABLE_BAND: "a band beyond the model's wavelengths is left out",
    Flag.DUPLICATE_ID: "another row has the same id",
    Flag.NUMERICAL_FAILURE: "no finite result",
    Flag.DUST_EMISSION: "a band beyond 2.5 micron at rest has little weight: no dust is modelled",
    Flag.REDSHIFT_EDGE: "the redshift runs into the upper end of its prior",
}


def text(flag: int) -> str:
    """The flag in words, '; ' between them; '' for 0."""
    return flag_text(flag, TEXT)


def from_diagnostics(
    diagnostics: Diagnostics, *, chi2: ArrayLike, n_detected: ArrayLike, finite: ArrayLike
) -> NDArray[np.int64]:
    """Bits that follow from galaxies' diagnostics, each input [galaxy]; returns [galaxy].

    A NaN diagnostic fails.  `chi2` is that of the best draw, compared with as many degrees
    of freedom as bands enter it: those with a detection, `n_detected`, without the upper limits.
    That is lenient by the number of parameters.
    """
    from scipy.stats import chi2 as chi2_distribution

    limit = chi2_distribution.isf(POOR_FIT_P, np.maximum(np.asarray(n_detected), 1))
    flag = np.where(diagnostics.passes(), 0, Flag.NOT_CONVERGED).astype(np.int64)
    flag |= np.where(np.asarray(diagnostics.divergences) == 0, 0, Flag.DIVERGENCES)
    flag |= np.where(np.asarray(chi2) <= limit, 0, Flag.POOR_FIT)
    flag |= np.where(np.asarray(finite), 0, Flag.NUMERICAL_FAILURE)
    return flag
