"""APOGEE spectra: files, wavelength grids, chips, bad pixels, continuum, element windows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.core.constants import C_LIGHT_KM_S
from jaxsed.io import files
from jaxsed.io import fits as fits_files
from jaxsed.stars.continuum import normalise
from jaxsed.stars.data import Spectra, spectra

CHIPS: dict[str, tuple[tuple[int, int], ...]] = {
    "dr12": ((322, 3242), (3648, 6048), (6412, 8306)),
    "dr17": ((246, 3274), (3585, 6080), (6344, 8335)),
}
"""Pixels of the apStar grid that the three chips see, by the last release that had them so."""

RELEASES = {11: "dr12", 12: "dr12"} | dict.fromkeys((13, 14, 15, 16, 17), "dr17")

BAD_BITS = (0, 1, 2, 3, 4, 5, 6, 7, 12)
"""Of the pixel mask: bad, cosmic ray, saturated, unfixable, bad dark, flat or error, no sky, and
a strong sky line."""

WINDOWS = "apogee windows"


def full_grid() -> np.ndarray:
    """[8575] vacuum wavelengths in Angstrom of apStar and aspcapStar files."""
    return 10 ** (4.179 + 6e-6 * np.arange(8575))


def chips_of(release: int) -> tuple[tuple[int, int], ...]:
    """Pixels [first, last) of the three chips on the full grid.

    Raises ValueError for a release that is not known.
    """
    if release not in RELEASES:
        raise ValueError(f"unknown release DR{release}: choose one of {sorted(RELEASES)}")
    return CHIPS[RELEASES[release]]


def grid(release: int = 17) -> np.ndarray:
    """[pixel] vacuum wavelengths in Angstrom of the pixels that the chips see."""
    return np.concatenate([full_grid()[a:b] for a, b in chips_of(release)])


def ranges(release: int = 17) -> list[slice]:
    """Pixels of `grid` that each chip sees."""
    ends = np.cumsum([0, *(b - a for a, b in chips_of(release))])
    return [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def read_apogee(path: str | Path, *, release: int = 17, visits: bool = False) -> Spectra:
    """Continuum-normalised spectra at rest of an apVisit, apStar or aspcapStar file.

    Pixels with one of `BAD_BITS` are left out.  A visit is shifted by the velocity of its header
    (``VRAD``, relative to the observatory, in whose frame its wavelengths are) and interpolated
    onto the common grid; the others are at rest already.  An aspcapStar file is normalised already.

    Args:
        path: FITS file.
        release: data release, which fixes the grid (see `grid`) and the continuum pixels.
        visits: of an apStar file, the single visits instead of their combination.

    Raises FileNotFoundError, and ValueError for another kind of file or an apVisit file without a
    velocity.
    """
    chips = chips_of(release)
    with fits_files.opened(path) as file:
        header = file[0].header
        shape = np.shape(file[1].data)
        if shape == (3, 4096):
            flux, error, bad = _visit(path, header, [_image(path, file, i) for i in range(1, 5)])
        elif shape[-1:] == (8575,):
            flux, error, bad = _on_grid(path, file, visits)
        else:
            raise ValueError(
                f"{path}: expected an apVisit, apStar or aspcapStar file, whose first image "
                f"has 3 x 4096 or 8575 pixels, got {shape}"
            )
        normalised = shape[-1:] == (8575,) and not _has_mask(file)
    keep = np.concatenate([np.arange(a, b) for a, b in chips])
    flux, error, bad = flux[:, keep], error[:, keep], bad[:, keep]
    flux[bad], error[bad] = np.nan, np.inf
    if not normalised:
        flux, error = normalise(flux, error, continuum_pixels(release), ranges(release))
    return spectra(full_grid()[keep], flux, np.where(np.isfinite(flux), error, np.inf),
                   source=str(path))  # fmt: skip


def _has_mask(file: Any) -> bool:
    return len(file) > 3 and np.issubdtype(np.asarray(file[3].data).dtype, np.integer)


def _bad(mask: np.ndarray) -> np.ndarray:
    return (mask.astype(np.int64) & sum(1 << bit for bit in BAD_BITS)) != 0


def _image(path: Any, file: Any, i: int) -> np.ndarray:
    """The image of an extension, of the shape of the first."""
    image, first = np.asarray(file[i].data), np.shape(file[1].data)
    if image.shape != first or image.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: expected numbers of shape {first} in HDU {i}, got {image.dtype} of shape "
            f"{image.shape}"
        )
    return image


def _on_grid(path: Any, file: Any, visits: bool) -> tuple[np.ndarray, ...]:
    """Flux, error and bad pixels [spectrum, 8575] of files on the common grid."""
    flux, error = (np.atleast_2d(np.array(_image(path, file, i), float)) for i in (1, 2))
    bad = _bad(np.atleast_2d(_image(path, file, 3))) if _has_mask(file) else ~(error > 0)
    # the combinations with two kinds of weights come before the visits
    rows = slice(2, None) if visits and len(flux) > 2 else slice(0, 1)
    return flux[rows], error[rows], bad[rows]


def _visit(path: Any, header: Any, images: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Flux, error and bad pixels [1, 8575] of a visit on the common grid."""
    velocity = header.get("VRAD")
    if velocity is None or not np.isfinite(velocity):
        raise ValueError(
            f"{path}: its header has no radial velocity VRAD: the labels need a spectrum at rest"
        )
    target = full_grid()
    flux, error = np.full(target.size, np.nan), np.full(target.size, np.inf)
    bad = np.ones(target.size, bool)
    for f, e, mask, wave in zip(*images, strict=True):
        order = np.argsort(wave)
        rest = wave[order] / (1 + velocity / C_LIGHT_KM_S)
        inside = (target > rest[0]) & (target < rest[-1])
        at = target[inside]
        flux[inside] = np.interp(at, rest, f[order])
        error[inside] = np.sqrt(np.interp(at, rest, e[order].astype(float) ** 2))
        # a pixel of the grid is bad if either of its two neighbours is
        bad[inside] = np.interp(at, rest, _bad(mask[order]).astype(float)) > 0
    return flux[None], error[None], bad[None]


@cache
def _windows_file() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with resources.as_file(resources.files("jaxsed.weights") / "apogee_windows.h5") as path:
        return files.read(path, WINDOWS)


def _pixels(runs: np.ndarray, size: int) -> np.ndarray:
    """[pixel] whether one of the runs (first, last + 1) holds it."""
    inside = np.zeros(size, bool)
    for first, end in runs:
        inside[first:end] = True
    return inside


def continuum_pixels(release: int = 17) -> np.ndarray:
    """[pixel] whether a pixel of `grid` is one of the continuum.

    For the older grid they are those at the same wavelengths.
    """
    arrays, _ = _windows_file()
    name = "continuum/dr14" if release < 16 else "continuum/dr17"
    return _regridded(_pixels(arrays[name], grid().size), release)


def windows(release: int = 17) -> Mapping[str, np.ndarray]:
    """[pixel] whether a pixel of `grid` is in an element's window, by element ("Mg"); the windows
    are those of the APOGEE pipeline (Garcia Perez et al. 2016)."""
    arrays, _ = _windows_file()
    return {
        name.removeprefix("window/"): _regridded(_pixels(runs, grid().size), release)
        for name, runs in arrays.items()
        if name.startswith("window/")
    }


def _regridded(chosen: np.ndarray, release: int) -> np.ndarray:
    full = np.zeros(8575, bool)
    full[np.concatenate([np.arange(a, b) for a, b in CHIPS["dr17"]])] = chosen
    return np.concatenate([full[a:b] for a, b in chips_of(release)])
