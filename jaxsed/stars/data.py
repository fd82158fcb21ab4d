"""Spectra of stars and their labels, as files hold them and as networks take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import IntFlag
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxsed.core import flags
from jaxsed.core.types import Numbers
from jaxsed.io import files, hdf5

SENTINEL = -9000.0
"""A label at or below this is missing: surveys write -9999."""

MANY_BAD = 0.3
"""Share of unusable pixels beyond which a spectrum is flagged."""

GRID_TOLERANCE = 0.1
"""Pixels by which wavelengths may differ."""


class StarFlag(IntFlag):
    """Bits of the column ``flag``; 0 is good.  The values never change meaning."""

    NO_PIXELS = 1
    MANY_BAD_PIXELS = 2
    BAD_ERRORS = 4
    OUTSIDE_TRAINING = 8
    NUMERICAL_FAILURE = 16


TEXT: dict[StarFlag, str] = {
    StarFlag.NO_PIXELS: "no usable pixel: no labels",
    StarFlag.MANY_BAD_PIXELS: f"more than {MANY_BAD:.0%} of the pixels unusable",
    StarFlag.BAD_ERRORS: "pixels with a negative, zero or missing uncertainty are left out",
    StarFlag.OUTSIDE_TRAINING: "unlike every spectrum of the training",
    StarFlag.NUMERICAL_FAILURE: "no finite result",
}


def flag_text(flag: int) -> str:
    """The flag in words, '; ' between them; '' for 0."""
    return flags.flag_text(flag, TEXT)


@dataclasses.dataclass(frozen=True)
class Spectra:
    """Continuum-normalised spectra on one grid, and labels where they are known."""

    wave: np.ndarray
    """[pixel] vacuum wavelengths at rest in Angstrom."""
    flux: np.ndarray
    """[star, pixel] float32; NaN where unusable."""
    error: np.ndarray
    """[star, pixel] float32, positive; NaN where unusable."""
    flag: np.ndarray
    """[star] `StarFlag` bits."""
    names: tuple[str, ...] = ()
    """Of the labels."""
    labels: np.ndarray | None = None
    """[star, label]; NaN where missing."""
    label_error: np.ndarray | None = None
    """[star, label] standard deviations; zero where unknown."""
    windows: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """[pixel] weights of an element's pixels by label, for the censored network."""

    def __len__(self) -> int:
        return len(self.flux)

    def take(self, rows: Any) -> Spectra:
        """Some of the stars."""
        part: dict[str, Any] = {"flux": self.flux[rows], "error": self.error[rows]}
        part["flag"] = self.flag[rows]
        if self.labels is not None and self.label_error is not None:
            part |= {"labels": self.labels[rows], "label_error": self.label_error[rows]}
        return dataclasses.replace(self, **part)


def spectra(
    wave: Numbers,
    flux: Numbers,
    error: Numbers,
    *,
    names: Any = (),
    labels: Numbers = None,
    label_error: Numbers = None,
    windows: dict[str, Any] | None = None,
    source: str = "spectra",
) -> Spectra:
    """Check arrays and make `Spectra` of them.

    A pixel is left out where its flux is not finite or its uncertainty is not positive and finite
    (an infinite one is the usual way to mask a pixel and is not flagged); a label is missing where
    it is not finite or at most -9000.

    Args:
        wave: [pixel] vacuum wavelengths at rest in Angstrom, increasing.
        flux: [star, pixel], the continuum at one.
        error: [star, pixel] standard deviations.
        names: of the labels.
        labels: [star, label].
        label_error: [star, label] standard deviations.
        windows: [pixel] by label.
        source: what messages call the arrays.

    Raises ValueError for shapes that do not fit, wavelengths that do not increase, labels that
    have no name or one name twice, and a label that no star has.
    """
    wave = np.asarray(wave, float)
    flux = np.array(flux, np.float32, ndmin=2)
    error = np.array(error, np.float32, ndmin=2)
    if wave.ndim != 1 or flux.shape[1:] != wave.shape or error.shape != flux.shape:
        raise ValueError(
            f"{source}: expected wavelengths [pixel] and fluxes and uncertainties [star, pixel], "
            f"got shapes {wave.shape}, {flux.shape} and {error.shape}"
        )
    if not (np.isfinite(wave).all() and (np.diff(wave) > 0).all()):
        where = int(np.argmin(np.append(np.diff(wave) > 0, False)))
        raise ValueError(
            f"{source}: wavelengths must be finite and increase, but pixel {where + 1} does not: "
            "sort the pixels of flux, uncertainty and wavelength together"
        )
    with np.errstate(invalid="ignore"):
        broken = ~(error > 0)
        bad = broken | ~np.isfinite(error) | ~np.isfinite(flux)
    flux[bad] = error[bad] = np.nan
    share = bad.mean(axis=1)
    flag = np.where(share == 1, int(StarFlag.NO_PIXELS), 0)
    flag |= np.where((share > MANY_BAD) & (share < 1), int(StarFlag.MANY_BAD_PIXELS), 0)
    flag |= np.where(broken.any(axis=1), int(StarFlag.BAD_ERRORS), 0)
    names = tuple(str(name) for name in names)
    if labels is not None:
        labels, label_error = _labels(labels, label_error, names, len(flux), source)
    known = {str(k): np.asarray(v, float) for k, v in (windows or {}).items()}
    for name, window in known.items():
        if window.shape != wave.shape:
            raise ValueError(
                f"{source}: the window of {name} has {window.size} pixels, a spectrum {wave.size}"
            )
    return Spectra(wave, flux, error, flag, names, labels, label_error, known)


def _labels(
    labels: Numbers, label_error: Numbers, names: tuple[str, ...], stars: int, source: str
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.array(labels, float, ndmin=2)
    if labels.shape != (stars, len(names)):
        raise ValueError(
            f"{source}: expected labels [{stars} stars, {len(names)} names], got {labels.shape}"
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{source}: labels named twice: {', '.join(sorted(twice))}")
    with np.errstate(invalid="ignore"):
        labels[~(np.isfinite(labels) & (labels > SENTINEL))] = np.nan
    empty = [name for name, good in zip(names, np.isfinite(labels).any(axis=0), strict=True)
             if not good]  # fmt: skip
    if empty:
        raise ValueError(f"{source}: no star has a label {', '.join(empty)}: leave it out")
    found = np.zeros_like(labels) if label_error is None else np.array(label_error, float)
    if found.shape != labels.shape:
        raise ValueError(
            f"{source}: expected label uncertainties {labels.shape}, got {found.shape}"
        )
    with np.errstate(invalid="ignore"):
        row, column = np.nonzero((found < 0) & (found > SENTINEL) & np.isfinite(labels))
    if row.size:
        raise ValueError(
            f"{source}: the uncertainty of {names[column[0]]} in row {row[0]} is negative "
            f"({found[row[0], column[0]]:g}): give standard deviations, 0 or NaN where unknown"
        )
    return labels, np.where(np.isfinite(found) & (found > 0), found, 0.0)


def read_spectra(path: str | Path) -> Spectra:
    """Spectra of an HDF5 file.

    Datasets: ``flux`` (star, pixel), ``flux_uncertainty``, ``wave_A`` (pixel), and where labels
    are known ``labels`` (star, label; NaN where missing), ``label_names``, and if there are any
    ``label_uncertainty`` and ``windows`` (label, pixel).

    Raises FileNotFoundError, and ValueError for a file that lacks a dataset or whose arrays are
    not as `spectra` wants them; the message names the file.
    """
    with hdf5.opened(path) as file:
        missing = [n for n in ("flux", "flux_uncertainty", "wave_A") if n not in file]
        if "labels" in file and "label_names" not in file:
            missing.append("label_names")
        if missing:
            raise ValueError(
                f"{path}: no dataset {', '.join(missing)}; it has {', '.join(file.names()[:40])}"
            )
        wave = file.array("wave_A", shape=(None,))
        flux, error = (
            file.array(name, shape=(None, wave.size)) for name in ("flux", "flux_uncertainty")
        )
        names: tuple[str, ...] = ()
        found: dict[str, Any] = {}
        if "labels" in file:
            names = tuple(file.texts("label_names"))
            shape = (len(flux), len(names))
            found = {"names": names, "labels": file.array("labels", shape=shape)}
            if "label_uncertainty" in file:
                found["label_error"] = file.array("label_uncertainty", shape=shape)
            if "windows" in file:
                windows = file.array("windows", shape=(len(names), wave.size))
                found["windows"] = dict(zip(names, windows, strict=True))
    return spectra(wave, flux, error, source=str(path), **found)


def write_spectra(path: str | Path, stars: Spectra, sources: Sequence[str] = ()) -> None:
    """The HDF5 file that `read_spectra` reads, written whole or not at all.

    `sources` [spectrum] say where each spectrum is from; the dataset ``file`` keeps them.
    """
    with files.creating(path) as file:
        file["wave_A"] = stars.wave
        if len(sources):
            file.create_dataset("file", data=list(sources), dtype=h5py.string_dtype())
        for name, values in (("flux", stars.flux), ("flux_uncertainty", stars.error)):
            file.create_dataset(name, data=values, chunks=(1, values.shape[1]))
        if stars.labels is not None:
            file["labels"], file["label_uncertainty"] = stars.labels, stars.label_error
            file.create_dataset("label_names", data=list(stars.names), dtype=h5py.string_dtype())
            if stars.windows:
                none = np.zeros_like(stars.wave)
                file["windows"] = [stars.windows.get(name, none) for name in stars.names]


def check_grid(wave: np.ndarray, expected: np.ndarray) -> None:
    """Raises ValueError unless two wavelength grids agree to a tenth of a pixel."""
    if wave.shape != expected.shape:
        raise ValueError(
            f"the spectra have {wave.size} pixels, the network was trained with {expected.size}: "
            "resample them onto its grid, or train a network for theirs"
        )
    gap = np.abs(wave - expected) / np.gradient(expected)
    worst = int(gap.argmax())
    if not gap[worst] <= GRID_TOLERANCE:
        raise ValueError(
            f"pixel {worst} is at {wave[worst]:.3f} A, the network was trained with "
            f"{expected[worst]:.3f} A there ({gap[worst]:.1f} pixels off): resample the spectra "
            "onto its grid, and mind air against vacuum wavelengths"
        )
