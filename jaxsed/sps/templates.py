"""Emission templates: tables of gas, dust and torus light, shipped or from a user's FSPS.

Everything here runs once, in numpy, before any trace.  A table is a record of arrays; what puts
it on the wavelengths of a model is in `jaxsed.sps.gas.nebular`, `dust_emission` and `agn`.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from jaxsed.io import files

KIND = "jaxsed emission templates"


class NebularTable(NamedTuple):
    """Light of H II regions per ionising photon (Byler+ 2017)."""

    log_z: np.ndarray
    """[met] log10 of the gas metallicity in solar units."""
    log_age: np.ndarray
    """[age] log10(Gyr) of the ionising stars."""
    log_u: np.ndarray
    """[u] log10 of the ionisation parameter."""
    line_wave: np.ndarray
    """[line] Å, vacuum."""
    ln_line: np.ndarray
    """[met, age, u, line] ln of Lsun per (photon/s)."""
    continuum_log_z: np.ndarray
    """[met'] axis of the continuum, which may be coarser."""
    continuum_log_age: np.ndarray
    """[age']."""
    wave: np.ndarray
    """[wave] Å."""
    ln_continuum: np.ndarray
    """[met', age', u, wave] ln of Lsun/Hz per (photon/s)."""


class DustTable(NamedTuple):
    """Emission of interstellar dust per hydrogen atom (Draine & Li 2007)."""

    q_pah: np.ndarray
    """[q] percent of the dust mass in PAHs."""
    u_min: np.ndarray
    """[u] lowest intensity of the starlight that heats the dust, in the local unit."""
    wave: np.ndarray
    """[wave] Å."""
    ln_emissivity: np.ndarray
    """[q, u, 2, wave] ln of the emissivity per frequency; heated by `u_min` alone, and by the
    power law from `u_min` to the highest intensity."""


class TorusTable(NamedTuple):
    """Emission of the dusty torus of an active nucleus (Nenkova+ 2008)."""

    tau: np.ndarray
    """[tau] optical depth of a clump at 5500 Å."""
    wave: np.ndarray
    """[wave] Å."""
    ln_lnu: np.ndarray
    """[tau, wave] ln of Lnu for unit luminosity."""


AnyTable = NebularTable | DustTable | TorusTable
Table = TypeVar("Table", NebularTable, DustTable, TorusTable)

SHIPPED: dict[type, str] = {
    NebularTable: "nebular_cloudy.h5",
    DustTable: "dust_dl07.h5",
    TorusTable: "agn_nenkova08.h5",
}


def load_templates(kind: type[Table]) -> Table:
    """The shipped table of this kind (its model card lies beside it in ``jaxsed/weights``)."""
    with resources.as_file(resources.files("jaxsed.weights").joinpath(SHIPPED[kind])) as path:
        return read_templates(path, kind)


def write_templates(path: str | Path, table: AnyTable, labels: dict[str, str]) -> Path:
    """Write a table; logarithms are kept to 1/65000 of each row's range.

    Args:
        path: the file.
        table: the table; its fields that start with ``ln_`` are packed.
        labels: title, citation and the like.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, values in table._asdict().items():
        if name.startswith("ln_"):
            arrays |= {f"{name}/{part}": array for part, array in _pack(values).items()}
        else:
            arrays[name] = np.asarray(values, np.float32)
    files.write(path, KIND, arrays, {"table": type(table).__name__, **labels})
    return Path(path)


def read_templates(path: str | Path, kind: type[Table]) -> Table:
    """Read a table that `write_templates` wrote.

    Raises ValueError if the file is damaged, foreign, or holds another kind of table.
    """
    arrays, attributes = files.read(path, KIND)
    if attributes.get("table") != kind.__name__:
        found = str(attributes.get("table"))[:100]
        raise ValueError(f"{path}: holds a {found}, expected a {kind.__name__}")
    with files.complete(path, KIND):
        fields = {
            name: _unpack(arrays, name) if name.startswith("ln_") else arrays[name].astype(float)
            for name in kind._fields
        }
        return kind(**fields)


_STEPS = 65000
_DARK = 65535
"""Code of no light at all."""


def _pack(values: np.ndarray) -> dict[str, np.ndarray]:
    """Logarithms as 16-bit steps between the lowest and highest of each last-axis column."""
    flat = np.asarray(values, float).reshape(-1, values.shape[-1])
    lit = np.isfinite(flat)
    low = np.min(np.where(lit, flat, np.inf), axis=0)
    high = np.max(np.where(lit, flat, -np.inf), axis=0)
    low = np.where(np.isfinite(low), low, 0.0)
    step = np.where(high > low, (high - low) / _STEPS, 1.0)
    codes = np.where(lit, np.round((np.where(lit, flat, low) - low) / step), _DARK)
    return {
        "codes": codes.astype(np.uint16).reshape(values.shape),
        "low": low.astype(np.float32),
        "step": step.astype(np.float32),
    }


def _unpack(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    codes = arrays[f"{name}/codes"]
    values = arrays[f"{name}/low"] + codes * arrays[f"{name}/step"].astype(float)
    return np.where(codes == _DARK, -np.inf, values)


# --- the tables of a user's FSPS ---------------------------------------------------------------


def read_fsps_dust(folder: str | os.PathLike) -> DustTable:
    """Draine & Li 2007 as FSPS has it: ``$SPS_HOME/dust/dustem/DL07_MW3.1_*.dat``.

    One file per PAH fraction: wavelength in micron, then pairs of columns for the intensities.

    Raises ValueError naming a file that is missing or has another number of columns.
    """
    paths = [Path(folder) / f"DL07_MW3.1_{k}0.dat" for k in range(len(_DL07_Q_PAH))]
    blocks = [_numbers(path, 1 + 2 * len(_DL07_U_MIN)) for path in paths]
    wave = blocks[0][:, 0] * 1e4
    emissivity = np.stack([b[:, 1:].T.reshape(len(_DL07_U_MIN), 2, -1) for b in blocks])
    return DustTable(np.array(_DL07_Q_PAH), np.array(_DL07_U_MIN), wave, _ln(emissivity))


def read_fsps_torus(path: str | os.PathLike) -> TorusTable:
    """Nenkova+ 2008 as FSPS has it: ``$SPS_HOME/dust/Nenkova08_y010_torusg_n10_q2.0.dat``.

    Raises ValueError for a file with other columns.
    """
    rows = _numbers(Path(path), 1 + len(_TORUS_TAU))
    return TorusTable(np.array(_TORUS_TAU), rows[:, 0], _ln(rows[:, 1:].T))


def read_fsps_nebular(lines: str | os.PathLike, continuum: str | os.PathLike) -> NebularTable:
    """A nebular grid of FSPS: ``$SPS_HOME/nebular/ZAU_*.lines`` and ``ZAU_*.cont``.

    Each has a comment, a row of wavelengths in Å, and then pairs of rows: log Z, age in yr and
    log U, and the luminosities per ionising photon.

    Raises ValueError for a file that is not such a grid.
    """
    line_axes, line_wave, line = _zau(Path(lines))
    axes, wave, light = _zau(Path(continuum))
    if not np.array_equal(axes[2], line_axes[2]):
        raise ValueError(f"{lines} and {continuum} differ in log U; give two files of one grid")
    keep = wave >= _FIRST_WAVE
    return NebularTable(
        line_axes[0], np.log10(line_axes[1] / 1e9), line_axes[2], line_wave, _ln(line),
        axes[0], np.log10(axes[1] / 1e9), wave[keep], _ln(light[..., keep]),
    )  # fmt: skip


_DL07_Q_PAH = (0.47, 1.12, 1.77, 2.50, 3.19, 3.90, 4.58)
_DL07_U_MIN = (
    0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 8.0,
    12.0, 15.0, 20.0, 25.0,
)  # fmt: skip
_TORUS_TAU = (5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0, 150.0)
_FIRST_WAVE = 900.0


def _ln(values: np.ndarray) -> np.ndarray:
    """Logarithm, minus infinity where there is no light."""
    with np.errstate(divide="ignore"):
        return np.where(values > 1e-69, np.log(np.maximum(values, 1e-300)), -np.inf)


def _numbers(path: Path, columns: int) -> np.ndarray:
    """Rows of numbers after the header of a text file.

    Raises ValueError unless every row has this many columns.
    """
    rows = []
    for text in _lines(path):
        try:
            row = [float(word) for word in text.split()]
        except ValueError:
            continue
        if len(row) == columns:
            rows.append(row)
        elif rows:
            raise ValueError(f"{path}: a row of {len(row)} numbers, expected {columns}")
    if len(rows) < 2:
        raise ValueError(f"{path}: found no rows of {columns} numbers; is it the file of FSPS?")
    return np.array(rows)


def _zau(path: Path) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    rows = [text for text in _lines(path) if text.strip() and not text.lstrip().startswith("#")]
    try:
        wave = np.array(rows[0].split(), float)
        points = np.array([text.split() for text in rows[1::2]], float)
        light = np.array([text.split() for text in rows[2::2]], float)
        axes = tuple(np.unique(points[:, k]) for k in range(3))
        shape = tuple(axis.size for axis in axes)
        grid = np.full((*shape, wave.size), np.nan)
        grid[tuple(np.searchsorted(axes[k], points[:, k]) for k in range(3))] = light
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a nebular grid of FSPS ({error})") from error
    if np.isnan(grid).any():
        raise ValueError(f"{path}: the grid has holes: {len(points)} points for {shape}")
    return axes, wave, grid


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
