"""An emulator in one line: what it is of, what it covers, how wrong it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsed.core.types import Model
from jaxsed.emulators.photometric.stitched import StitchedEmulator
from jaxsed.emulators.registry import PREFIX, SPECTRUM_PREFIX, load_emulator
from jaxsed.emulators.spectral.emulator import SpectrumEmulator
from jaxsed.emulators.spectral.provabgs import ProvabgsSpectrum
from jaxsed.emulators.validation.photometric import mean_waves


class Summary(NamedTuple):
    """One line of ``jaxsed info``, in words."""

    name: str
    """As `load_emulator` or `load_spectrum_emulator` takes it."""
    kind: str
    physics: str
    covers: str
    """Bands or wavelengths."""
    redshift: str
    median_error: str
    """Of the bands' sigmas; of a spectrum the |error| that 68 % of galaxies stay within."""
    largest_error: str
    megabytes: float


def summary(path: str | Path) -> Summary:
    """The summary of an emulator's file.

    Raises FileNotFoundError, and ValueError for a file that is no emulator.
    """
    path = Path(path)
    emulator = load_emulator(path)
    name = path.stem.removeprefix(PREFIX).removeprefix(SPECTRUM_PREFIX)
    size = path.stat().st_size / 1e6
    if isinstance(emulator, ProvabgsSpectrum | SpectrumEmulator):
        physics, errors = "", np.array([np.nan])
        if isinstance(emulator, ProvabgsSpectrum):
            physics, errors = "provabgs", np.asarray(emulator.errors.percentiles, float)[:, 0]
        covers = f"{emulator.wave.size} wavelengths, {_range(emulator.wave)}"
        middle, worst = (f"{100 * v:.2g} %" for v in (np.median(errors), np.max(errors)))
        return Summary(name, "spectrum", physics, covers, "rest frame", middle, worst, size)
    waves = mean_waves(emulator)
    covers = f"{len(emulator.band_names)} bands"
    if np.isfinite(waves).all():
        covers += f", {_range(waves)}"
    sigma = np.asarray(emulator.error_ab.sigma, float)
    middle, worst = "not measured", "not measured"
    if known := sigma[np.isfinite(sigma)].tolist():
        middle, worst = f"{np.median(known):.2g} mag", f"{max(known):.2g} mag"
        if len(known) < sigma.size:
            worst += f"; {sigma.size - len(known)} of {sigma.size} bands not measured"
    kind = "photometry"
    if isinstance(emulator, StitchedEmulator):
        kind += f", {len(emulator.members)} windows"
    physics = emulator.record.physics
    return Summary(name, kind, physics, covers, _redshifts(emulator), middle, worst, size)


def _range(wave: np.ndarray) -> str:
    return f"{wave.min() / 1e4:.2g} to {wave.max() / 1e4:.3g} µm"


def _redshifts(emulator: Model) -> str:
    if "redshift" not in emulator.feature_names:
        return "any"
    z = emulator.feature_names.index("redshift")
    low, high = (round(float(edge[z]), 3) for edge in (emulator.box_low, emulator.box_high))
    return f"{low:g} to {high:g}"
