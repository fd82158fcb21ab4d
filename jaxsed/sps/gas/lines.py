"""Nebular emission lines of galaxy spectra, by their wavelengths.

Wavelengths are those of the NIST Atomic Spectra Database in vacuum, as the SDSS and DESI
pipelines use them.  Ratios within a group are fixed by atomic physics: [O III] 1:2.98 (Storey &
Zeippen 2000, MNRAS 312, 813), [N II] 1:3.05 (the same), [O I] 3.03:1 and [Ne III] 3.32:1
(PyNeb; Luridiana+ 2015, A&A 573, A42).
"""

from __future__ import annotations

from typing import NamedTuple


class EmissionLine(NamedTuple):
    """Lines that share one amplitude: the flux of the first."""

    name: str
    waves: tuple[float, ...]
    """Vacuum wavelengths, Angstrom."""
    ratios: tuple[float, ...] = (1.0,)
    """Fluxes over that of the first."""


LINES = (
    EmissionLine("MgII 2796", (2796.352,)),
    EmissionLine("MgII 2803", (2803.531,)),
    EmissionLine("[OII] 3726", (3727.092,)),
    EmissionLine("[OII] 3729", (3729.875,)),
    EmissionLine("H9 3836", (3836.485,)),
    EmissionLine("[NeIII] 3869", (3869.860, 3968.590), (1.0, 1 / 3.32)),
    EmissionLine("H8+HeI 3889", (3890.166,)),
    EmissionLine("Hε 3970", (3971.198,)),
    EmissionLine("Hδ 4102", (4102.892,)),
    EmissionLine("Hγ 4340", (4341.692,)),
    EmissionLine("[OIII] 4363", (4364.435,)),
    EmissionLine("HeI 4472", (4472.735,)),
    EmissionLine("HeII 4686", (4687.021,)),
    EmissionLine("Hβ 4861", (4862.692,)),
    EmissionLine("[OIII] 5007", (5008.240, 4960.295), (1.0, 1 / 2.98)),
    EmissionLine("[NI] 5200", (5199.800,)),
    EmissionLine("HeI 5876", (5877.249,)),
    EmissionLine("[OI] 6300", (6302.046, 6365.535), (1.0, 1 / 3.03)),
    EmissionLine("Hα 6563", (6564.632,)),
    EmissionLine("[NII] 6583", (6585.271, 6549.862), (1.0, 1 / 3.05)),
    EmissionLine("HeI 6678", (6679.995,)),
    EmissionLine("[SII] 6716", (6718.294,)),
    EmissionLine("[SII] 6731", (6732.674,)),
    EmissionLine("HeI 7065", (7067.144,)),
    EmissionLine("[ArIII] 7136", (7137.770,)),
    EmissionLine("[OII] 7320", (7321.940,)),
    EmissionLine("[OII] 7330", (7332.210,)),
    EmissionLine("[SIII] 9069", (9071.090, 9533.210), (1.0, 2.47)),
)
"""From the near ultraviolet to 1 micron."""
