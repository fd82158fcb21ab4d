"""Filters: transmission curves by name, from files, and the mean flux through one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import h5py
import numpy as np

WAVE_UNITS = {"AA": 1.0, "nm": 10.0, "um": 1e4, "angstrom": 1.0, "micron": 1e4}
"""Å per unit of wavelength in the files of filters."""

ALIASES = {
    "SLOAN/SDSS.u": "sdss_u0",
    "SLOAN/SDSS.g": "sdss_g0",
    "SLOAN/SDSS.r": "sdss_r0",
    "SLOAN/SDSS.i": "sdss_i0",
    "SLOAN/SDSS.z": "sdss_z0",
    "GALEX/GALEX.FUV": "galex_FUV",
    "GALEX/GALEX.NUV": "galex_NUV",
    "2MASS/2MASS.J": "twomass_J",
    "2MASS/2MASS.H": "twomass_H",
    "2MASS/2MASS.Ks": "twomass_Ks",
    "Spitzer/IRAC.I1": "spitzer_irac_ch1",
    "Spitzer/IRAC.I2": "spitzer_irac_ch2",
    "Spitzer/IRAC.I3": "spitzer_irac_ch3",
    "Spitzer/IRAC.I4": "spitzer_irac_ch4",
    "WISE/WISE.W1": "wise_w1",
    "WISE/WISE.W2": "wise_w2",
    "WISE/WISE.W3": "wise_w3",
    "WISE/WISE.W4": "wise_w4",
}
"""Names of other filter services for curves of the astro-sedpy library; the SVO's JWST and HST
names, and speclite's SDSS names, are translated by rule in `load_filter`."""


@dataclass(frozen=True)
class Filter:
    """A transmission curve: `wave` in Å (vacuum), `trans` per photon in any normalisation."""

    name: str
    wave: np.ndarray
    trans: np.ndarray

    @property
    def pivot(self) -> float:
        """Pivot wavelength in Å (Tokunaga & Vacca 2005, eq. A11)."""
        top = np.trapezoid(self.trans * self.wave, self.wave)
        return float(np.sqrt(top / np.trapezoid(self.trans / self.wave, self.wave)))

    @property
    def limits(self) -> tuple[float, float]:
        """First and last wavelength in Å where the curve exceeds 0.1 % of its peak."""
        seen = self.wave[self.trans > 1e-3 * self.trans.max()]
        return float(seen[0]), float(seen[-1])


def make_filter(name: str, wave: np.ndarray, trans: np.ndarray) -> Filter:
    """Validate a curve and build a `Filter`; negative noise is set to zero.

    Raises ValueError for curves that are not finite, increasing in wavelength, or all zero.
    """
    wave, trans = np.asarray(wave, float), np.asarray(trans, float)
    if wave.ndim != 1 or wave.shape != trans.shape or wave.size < 3:
        raise ValueError(f"filter {name}: expected two columns of at least three rows")
    if not (np.isfinite(wave).all() and np.isfinite(trans).all()):
        raise ValueError(f"filter {name}: the curve has values that are not finite")
    order = np.argsort(wave, kind="stable")
    wave, trans = wave[order], np.clip(trans[order], 0.0, None)
    keep = np.concatenate([[True], np.diff(wave) > 0])
    wave, trans = wave[keep], trans[keep]
    if wave[0] <= 0 or trans.max() <= 0:
        raise ValueError(f"filter {name}: expected wavelengths above zero and some transmission")
    return Filter(name, wave, trans)


def read_filter(path: str | Path, wave_unit: str = "AA") -> Filter:
    """Read a two-column curve (wavelength, transmission) from a text file.

    Args:
        path: the file; lines starting with ``#`` are comments.
        wave_unit: ``AA``, ``nm`` or ``um``.

    Raises ValueError naming the file when it cannot be read as such, or when the wavelengths do
    not look like the declared unit.
    """
    if wave_unit not in WAVE_UNITS:
        raise ValueError(f"unknown wavelength unit {wave_unit!r}: use AA, nm or um")
    try:
        table = np.loadtxt(path, usecols=(0, 1), ndmin=2)
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"cannot read filter curve {path}: {error}") from error
    wave = table[:, 0] * WAVE_UNITS[wave_unit]
    result = make_filter(Path(path).stem, wave, table[:, 1])
    if not 500 < result.pivot < 2e7:
        raise ValueError(
            f"filter {path}: pivot wavelength {result.pivot:.4g} Å is outside 500 Å to 2 mm; "
            f'is the wavelength unit really {wave_unit}? Declare wave_unit = "um" or "nm".'
        )
    return result


def load_filter(name_or_path: str, wave_unit: str = "AA") -> Filter:
    """A filter by astro-sedpy name (``sdss_u0``, ``jwst_f200w``), by alias, or from a file.

    Curves shipped with the package (``goodss_ctio_u``) go by their names too.

    Raises ValueError for a name no library knows, with the nearest known names.
    """
    if Path(name_or_path).suffix or "/" in name_or_path and Path(name_or_path).exists():
        if Path(name_or_path).exists():
            return read_filter(name_or_path, wave_unit)
    shipped = _shipped_curves()
    if name_or_path in shipped:
        return make_filter(name_or_path, *shipped[name_or_path])
    name = _canonical(name_or_path)
    from sedpy import observate

    known = [*observate.list_available_filters(), *shipped]
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
        hint = f"; nearest known: {', '.join(close)}" if close else ""
        raise ValueError(
            f"unknown filter {name_or_path!r}: neither an astro-sedpy name nor a readable "
            f"two-column file{hint}"
        )
    curve = observate.Filter(name)
    return make_filter(name, curve.wavelength, curve.transmission)


@cache
def _shipped_curves() -> dict[str, np.ndarray]:
    curves: dict[str, np.ndarray] = {}
    for item in resources.files("jaxsed.weights").iterdir():
        if item.name.startswith("filters_") and item.name.endswith(".h5"):
            with item.open("rb") as handle, h5py.File(handle, "r") as file:
                curves |= {name: np.asarray(data, float) for name, data in file.items()}
    return curves


def _canonical(name: str) -> str:
    if name in ALIASES:
        return ALIASES[name]
    low = name.lower()
    if low.startswith("sdss2010-"):
        return f"sdss_{low[9:]}0"
    for prefix, ours in (
        ("jwst/nircam.", "jwst_"),
        ("jwst/miri.", "jwst_"),
        ("hst/acs_wfc.", "acs_wfc_"),
        ("hst/wfc3_uvis.", "wfc3_uvis_"),
        ("hst/wfc3_uvis1.", "wfc3_uvis_"),
        ("hst/wfc3_ir.", "wfc3_ir_"),
    ):
        if low.startswith(prefix):
            return ours + low[len(prefix) :]
    return name


def ab_flux(wave: np.ndarray, f_nu: np.ndarray, band: Filter) -> float:
    """Photon-weighted mean of an observed spectrum through a filter, in the unit of `f_nu`.

    ``<f> = int f_nu T dln(lambda) / int T dln(lambda)``, by trapezoids on the union of both
    grids; the reference for the fast projection, and for single spectra.
    """
    grid = np.union1d(wave, band.wave)
    grid = grid[(grid >= band.wave[0]) & (grid <= band.wave[-1])]
    trans = np.interp(grid, band.wave, band.trans)
    flux = np.interp(grid, wave, f_nu, left=0.0, right=0.0)
    ln = np.log(grid)
    return float(np.trapezoid(flux * trans, ln) / np.trapezoid(trans, ln))


def curve_difference(a: Filter, b: Filter) -> float:
    """Half the integral of |T_a - T_b| over ln wave, each T of unit integral: 0 same, 1 apart."""
    wave = np.union1d(a.wave, b.wave)
    x = np.log(wave)
    scaled = []
    for curve in (a, b):
        t = np.interp(wave, curve.wave, np.clip(curve.trans, 0, None), left=0, right=0)
        scaled.append(t / np.trapezoid(t, x))
    return float(0.5 * np.trapezoid(np.abs(scaled[0] - scaled[1]), x))
