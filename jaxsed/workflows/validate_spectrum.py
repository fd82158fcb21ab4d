"""``jaxsed validate`` of an emulator of rest-frame spectra, against its physics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from astropy.table import Table
from rich.table import Table as View

from jaxsed.core.errors import JaxsedError
from jaxsed.emulators import ProvabgsSpectrum, SpectrumErrors
from jaxsed.emulators.validation.report import without_nan
from jaxsed.emulators.validation.spectral import PERCENT, QUANTILES, joint_jumps, ln_flux_residuals
from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR
from jaxsed.sps.ssp.grid import load_ssp, read_ssp
from jaxsed.workflows.train_spectra import rest_frame_provabgs, unseen_galaxies

GALAXIES = 10_000
"""Whose spectra are compared by default."""

_RED = 3000.0  # Angstrom; Kwon et al. (2022) state errors beyond it


class SpectrumOutcome(NamedTuple):
    """Errors on fresh galaxies of the prior."""

    errors: SpectrumErrors
    wave: np.ndarray
    """[wave] Angstrom at rest."""
    joints: tuple[float, ...]
    """Wavelengths where the emulator's windows meet."""
    jumps: list[dict[str, float]]
    """See `joint_jumps`."""
    galaxies: int

    @property
    def percentiles(self) -> np.ndarray:
        """[wave, percentage] of |fractional error|."""
        return np.asarray(self.errors.percentiles, float)

    def table(self) -> Table:
        """A row per wavelength."""
        columns = {"wavelength": self.wave, "bias": np.asarray(self.errors.bias, float)}
        columns |= {f"absolute_{p:g}": self.percentiles[:, i] for i, p in enumerate(PERCENT)}
        table = Table(columns, meta={"unit": "fraction of the flux, emulated / simulated - 1"})
        table["wavelength"].unit = "Angstrom"
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        mean = np.asarray(self.errors.mean, float).tolist()
        found = {
            "galaxies": self.galaxies,
            "percent": list(PERCENT),
            "largest": self.percentiles.max(0).tolist(),
            "largest_beyond_3000A": self.percentiles[self.wave > _RED].max(0).tolist(),
            "mean_error": dict(zip(map(str, QUANTILES), mean, strict=True)),
            "joints": self.jumps,
        }
        return dict(without_nan(found))

    def view(self) -> View:
        """A `rich` table."""
        view = View("|fractional error|", *(f"{p:g} % of galaxies" for p in PERCENT))
        for words, part in (
            ("worst wavelength", self.percentiles),
            (f"worst beyond {_RED:g} Å", self.percentiles[self.wave > _RED]),
        ):
            view.add_row(words, *(f"{v:.4f}" for v in part.max(0)))
        return view


def validate_spectrum(
    emulator: ProvabgsSpectrum, galaxies: int = GALAXIES, *, ssp: Path | None = None, seed: int = 0
) -> SpectrumOutcome:
    """Compare spectra of fresh galaxies of the prior.

    Raises JaxsedError for an emulator whose SSP grid cannot be had.
    """
    name = emulator.provenance.get("ssp", "")
    try:
        grid = read_ssp(ssp) if ssp else load_ssp(name)
        ends = float(emulator.wave[0]), float(emulator.wave[-1])
        model = rest_frame_provabgs(
            grid, wave_range=ends, cosmology=emulator.cosmology,
            birth_cloud_age=emulator.provenance.get("birth_cloud_age", BIRTH_CLOUD_AGE_GYR),
        )  # fmt: skip
    except (ValueError, OSError) as error:
        raise JaxsedError(f"the physics of the emulator: {error} (see --ssp)") from error
    if not np.array_equal(model.wave, emulator.wave):
        raise JaxsedError(
            f"the wavelengths of the SSP grid {grid.name!r} are not those of the emulator"
        )
    thetas, truth = unseen_galaxies(jax.random.key(seed), model, galaxies)
    residual = ln_flux_residuals(emulator, thetas, truth)
    settings = emulator.provenance.get("training", {}).get("smooth", {}).get("settings", {})
    joints = tuple(settings.get("joints", ()))
    return SpectrumOutcome(
        SpectrumErrors.of(residual, emulator.wave),
        emulator.wave,
        joints,
        joint_jumps(residual, emulator.wave, joints),
        galaxies,
    )
