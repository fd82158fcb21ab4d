"""Readers of spectra as surveys publish them: DESI coadds and SDSS spectra."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.io import fits as fits_files
from jaxsed.sps.spectra.observed import Arm, ObservedSpectrum, arm

DESI_BANDS = {
    "G": ("bass_g", "decam_g"),
    "R": ("bass_r", "decam_r"),
    "Z": ("mzls_z", "decam_z"),
    "W1": ("wise_w1", "wise_w1"),
    "W2": ("wise_w2", "wise_w2"),
}
"""Filters of the Legacy Surveys' FLUX columns, north (PHOTSYS N) and south."""

SDSS_BAD = {
    "NOPLUG": 0,
    "BADTRACE": 1,
    "BADFLAT": 2,
    "BADARC": 3,
    "FULLREJECT": 18,
    "NOSKY": 22,
    "BRIGHTSKY": 23,
    "NODATA": 24,
    "COMBINEREJ": 25,
    "REDMONSTER": 28,
}
"""Bits of the SDSS pixel masks (SPPIXMASK) after which a pixel is not used."""

SDSS_LN_STEP = 1e-4 * np.log(10.0)
"""Pixel of an SDSS spectrum in ln(wavelength)."""

_PREFIX = re.compile(r"^\s*(?:1e-17|10\*\*-17|1\.0?e-17)", re.IGNORECASE)


def read_desi_coadd(path: str | Path, target: int | None = None) -> list[ObservedSpectrum]:
    """Spectra of a DESI coadd file (``coadd-*.fits``), three arms each.

    Fluxes, inverse variances, masks and resolution matrices are the file's; fluxes in g, r, z, W1
    and W2, and E(B-V), come from its fiber map.  Nothing is corrected for the extinction of the
    Milky Way: see `jaxsed.sps.dust.milky_way.dereddened`.

    Args:
        path: of the file.
        target: TARGETID of the one to read; default: all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a DESI coadd, parts missing or in other units, no such target; the message
            names the file.
    """
    with fits_files.opened(path) as hdus:
        names = [hdu.name for hdu in hdus]
        arms = [name.removesuffix("_FLUX") for name in names if name.endswith("_FLUX")]
        if "FIBERMAP" not in names or not arms:
            raise ValueError(
                f"{path}: not a DESI coadd: expected FIBERMAP and *_FLUX extensions, got "
                f"{', '.join(names) or 'none'}"
            )
        table = hdus["FIBERMAP"].data
        ids = np.asarray(table["TARGETID"])
        rows = np.arange(ids.size) if target is None else np.flatnonzero(ids == target)
        if not rows.size:
            some = ", ".join(str(i) for i in ids[:3])
            raise ValueError(f"{path}: no target {target} among {ids.size} (such as {some})")
        parts = {name: _desi_arm(path, hdus, name, ids.size) for name in arms}
        found = []
        for row in rows:
            try:
                of_row = tuple(_arm_of_row(name, parts[name], int(row)) for name in arms)
            except ValueError as problem:
                raise ValueError(f"{path}: target {ids[row]}: {problem}") from problem
            photometry = _legacy_photometry(table[row], table.names)
            ebv = float(table["EBV"][row]) if "EBV" in table.names else None
            found.append(ObservedSpectrum(f"DESI {ids[row]}", of_row, None, photometry, ebv))
    return found


def read_redrock(path: str | Path) -> dict[int, float]:
    """Redshift by TARGETID of a redrock file (``redrock-*.fits``).

    Raises FileNotFoundError or ValueError as `read_desi_coadd` does.
    """
    with fits_files.opened(path) as hdus:
        if "REDSHIFTS" not in [hdu.name for hdu in hdus]:
            raise ValueError(f"{path}: not a redrock file: it has no REDSHIFTS extension")
        table = hdus["REDSHIFTS"].data
        return dict(zip(map(int, table["TARGETID"]), map(float, table["Z"]), strict=True))


def read_sdss_spectrum(path: str | Path) -> ObservedSpectrum:
    """A spectrum of SDSS (``spec-plate-mjd-fiber.fits``, Data Release 9 and later).

    Wavelengths are in vacuum; pixels are left out where `and_mask` has a bit of `SDSS_BAD`; the
    line-spread function is Gaussian with the file's `wdisp`; the redshift is the pipeline's.
    The fluxes are not corrected for the extinction of the Milky Way.

    Raises FileNotFoundError or ValueError as `read_desi_coadd` does.
    """
    with fits_files.opened(path) as hdus:
        table: Any = hdus[1].data if len(hdus) > 1 else None
        columns = {name.lower() for name in getattr(table, "names", None) or []}
        missing = {"loglam", "flux", "ivar", "and_mask", "wdisp"} - columns
        if missing:
            raise ValueError(
                f"{path}: not an SDSS spectrum: the first table lacks {', '.join(sorted(missing))}"
            )
        _check_unit(path, hdus[0].header.get("BUNIT", "1E-17"))
        flux, ivar, width, loglam = (
            np.asarray(table[name], float) for name in ("flux", "ivar", "wdisp", "loglam")
        )
        bits = np.asarray(table["and_mask"], np.int64)
        wave = np.power(10.0, loglam)
        bad = (bits & sum(1 << bit for bit in SDSS_BAD.values())) != 0
        bad |= ~(width > 0)
        try:
            of_file = arm(
                wave, flux, np.maximum(ivar, 0.0), name="sdss", mask=bad,
                sigma=width * SDSS_LN_STEP * wave,
            )  # fmt: skip
        except ValueError as problem:
            raise ValueError(f"{path}: {problem}") from problem
        redshift = None
        if len(hdus) > 2 and "Z" in (getattr(hdus[2].data, "names", None) or []):
            redshift = float(hdus[2].data["Z"][0])
        name = str(hdus[0].header.get("NAME", Path(path).stem))
        return ObservedSpectrum(f"SDSS {name}", (of_file,), redshift)


def _check_unit(path: str | Path, unit: str) -> None:
    if not _PREFIX.match(str(unit)):
        raise ValueError(f"{path}: expected fluxes in 1e-17 erg/s/cm2/Angstrom, got {unit!r}")


def _desi_arm(path: str | Path, hdus: Any, name: str, n_targets: int) -> dict[str, np.ndarray]:
    """Wavelengths [pixel], and the rest with a leading target axis."""
    wanted = ("WAVELENGTH", "FLUX", "IVAR", "MASK", "RESOLUTION")
    missing = [part for part in wanted if f"{name}_{part}" not in hdus]
    if missing:
        raise ValueError(f"{path}: arm {name} lacks {', '.join(missing)}")
    _check_unit(path, hdus[f"{name}_FLUX"].header.get("BUNIT", "1e-17"))
    parts = {part: np.asarray(hdus[f"{name}_{part}"].data) for part in wanted}
    n = parts["WAVELENGTH"].size
    for part in wanted[1:]:
        shape = parts[part].shape
        if shape[0] != n_targets or shape[-1] != n:
            raise ValueError(f"{path}: {name}_{part} has shape {shape}, not [{n_targets}, .., {n}]")
    return parts


def _arm_of_row(name: str, parts: dict[str, np.ndarray], row: int) -> Arm:
    diagonals = np.asarray(parts["RESOLUTION"][row], float)
    half = diagonals.shape[0] // 2
    offsets = np.arange(half, -half - 1, -1)
    return arm(
        parts["WAVELENGTH"], parts["FLUX"][row], parts["IVAR"][row], name=name.lower(),
        mask=parts["MASK"][row], resolution=rows_of_diagonals(diagonals, offsets),
        offsets=tuple(offsets),
    )  # fmt: skip


def rows_of_diagonals(diagonals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """[diagonal, pixel] entries of row i at column i + offset, from scipy's storage of diagonals.

    ``scipy.sparse.dia_matrix``, which DESI writes, stores entry (i, i + offset) at i + offset;
    entries beyond the matrix are zero.
    """
    rows, n = np.zeros_like(diagonals, dtype=float), diagonals.shape[1]
    for k, offset in enumerate(offsets):
        kept = slice(max(0, -offset), n - max(0, offset))
        rows[k, kept] = diagonals[k, kept.start + offset : kept.stop + offset]
    return rows


def _legacy_photometry(row: Any, names: list[str]) -> dict[str, tuple[float, float]]:
    """Flux and error in maggies by filter."""
    south = "PHOTSYS" in names and str(row["PHOTSYS"]).strip() == "S"
    found = {}
    for band, filters in DESI_BANDS.items():
        if f"FLUX_{band}" not in names or f"FLUX_IVAR_{band}" not in names:
            continue
        flux, ivar = float(row[f"FLUX_{band}"]), float(row[f"FLUX_IVAR_{band}"])
        if ivar > 0 and np.isfinite(flux):
            found[filters[south]] = (1e-9 * flux, 1e-9 / np.sqrt(ivar))
    return found
