"""Simple stellar populations (SSPs): the grid, its file, its shipped copy, and other nodes for it.

Everything here runs once, in numpy, before any trace; what comes out is an `SSPGrid`, a pytree
of float32 arrays.  Readers of other people's files are in `jaxsed.sps.ssp.readers`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from flax import struct

from jaxsed.core.types import Numbers
from jaxsed.io import files, hdf5
from jaxsed.io.limits import megabytes, memory_limit
from jaxsed.sps.ssp.wavelengths import deposit_lines, mean_over_hats

FORMAT = "jaxsed-ssp"
SCHEMA_VERSION = 1
#: `log_nlyc` of a population that makes no ionising photons (its source gives zero).
LOG_NLYC_NONE = 30.0

_LEAF_UNITS = {
    "log_z": "log10 of the metal mass fraction Z",
    "log_age": "log10(Gyr)",
    "wave": "Angstrom, vacuum",
    "lnu": "Lsun/Hz per Msun formed",
    "mass_surviving": "Msun per Msun formed",
    "log_nlyc": "log10(photons/s) per Msun formed",
}
_LABELS = ("name", "citation", "imf", "z_solar", "resolution", "gas", "notes")


@struct.dataclass
class SSPGrid:
    """Spectra of simple stellar populations on a grid of metallicity and age.

    Lnu is piecewise linear in wavelength between the nodes of `wave`: that is the reading under
    which `jaxsed.sps.ssp.wavelengths` conserves energy.
    """

    log_z: Numbers
    """[met] log10 of the absolute metal mass fraction Z, increasing."""
    log_age: Any
    """[age] log10(age / Gyr), increasing; age zero is not part of a grid."""
    wave: Numbers
    """[wave] rest-frame vacuum wavelength, Angstrom, increasing."""
    lnu: Any
    """[met, age, wave] Lsun/Hz per Msun formed; zero where the source has no light."""
    mass_surviving: Any
    """[met, age] living stars and remnants, Msun per Msun formed (see `notes`)."""
    log_nlyc: Any = None
    """[met, age] log10 of ionising photons/s per Msun formed (`LOG_NLYC_NONE`: none), or None."""
    name: str = struct.field(pytree_node=False, default="")
    citation: str = struct.field(pytree_node=False, default="")
    imf: str = struct.field(pytree_node=False, default="")
    z_solar: float = struct.field(pytree_node=False, default=0.02)
    """Absolute metal mass fraction that the source calls solar."""
    resolution: str = struct.field(pytree_node=False, default="")
    gas: str = struct.field(pytree_node=False, default="")
    """"included" where the light of ionised gas is part of `lnu`, "none", or "" if not known."""
    notes: str = struct.field(pytree_node=False, default="")


def validated(grid: SSPGrid) -> SSPGrid:
    """`grid` with float32 numpy leaves.

    Raises ValueError for shapes that do not agree, axes that do not increase, and values that
    cannot be (negative or non-finite light, masses outside (0, 1]).
    """
    leaves: dict[str, Any] = {
        name: np.asarray(getattr(grid, name), np.float32)
        for name in _LEAF_UNITS
        if getattr(grid, name) is not None
    }
    for name in ("log_z", "log_age", "wave"):
        axis = leaves[name]
        if axis.ndim != 1 or axis.size < 2 or not np.all(np.isfinite(axis)):
            raise ValueError(f"{name} must be a finite vector of two or more; got {axis!r}")
        if np.any(np.diff(axis) <= 0):
            raise ValueError(f"{name} must increase strictly; sort the grid (and drop age zero)")
    if leaves["wave"][0] <= 0:
        raise ValueError(f"wavelengths must be positive Angstrom; got {leaves['wave'][0]}")
    shape = (leaves["log_z"].size, leaves["log_age"].size)
    expected = {"lnu": (*shape, leaves["wave"].size), "mass_surviving": shape, "log_nlyc": shape}
    for name in expected.keys() & leaves.keys():
        if leaves[name].shape != expected[name]:
            raise ValueError(
                f"{name} has shape {leaves[name].shape}; expected {expected[name]} "
                "from the lengths of log_z, log_age (and wave)"
            )
        if not np.all(np.isfinite(leaves[name])):
            raise ValueError(f"{name} has values that are not finite; mend them in the source")
    lnu, mass = leaves["lnu"], leaves["mass_surviving"]
    if np.any(lnu < 0):
        raise ValueError(f"lnu has {int(np.sum(lnu < 0))} negative values; set them to zero")
    if np.any(mass <= 0) or np.any(mass > 1.001):
        raise ValueError(
            f"mass_surviving is {mass.min():.4g} to {mass.max():.4g}; expected a fraction in (0, 1]"
        )
    return replace(grid, **leaves)


# --- our file ----------------------------------------------------------------------------------


def write_ssp(path: str | os.PathLike, grid: SSPGrid) -> Path:
    """Write `grid` to an HDF5 file of our schema; returns its path."""
    grid = validated(grid)
    arrays = {name: getattr(grid, name) for name in _LEAF_UNITS}
    return write_arrays(
        path,
        {name: a for name, a in arrays.items() if a is not None},
        {name: getattr(grid, name) for name in _LABELS},
        encoding="dense",
        units=_LEAF_UNITS,
    )


def write_arrays(
    path: str | os.PathLike, arrays: dict, labels: dict, *, encoding: str, units: dict
) -> Path:
    """Write named arrays with units, labels, schema version and checksum, whole or not at all."""
    path = Path(path)
    with files.creating(path) as file:
        file.attrs.update(labels)
        file.attrs["format"] = FORMAT
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["encoding"] = encoding
        for name, array in arrays.items():
            array = np.asarray(array)
            packing = {"compression": "gzip", "shuffle": True} if array.size > 100 else {}
            file.create_dataset(name, data=array, **packing).attrs["units"] = units[name]
        file.attrs["checksum"] = _checksum({name: np.asarray(a) for name, a in arrays.items()})
    return path


def read_ssp(path: str | os.PathLike) -> SSPGrid:
    """Read an SSP grid from a file of our schema, dense or compressed.

    Raises ValueError if the file is absent, truncated, of another kind or version, or if its
    contents do not give the stored checksum.
    """
    path = Path(path)
    arrays, attrs = _read_arrays(path)
    labels: dict[str, Any] = {name: attrs[name] for name in _LABELS if name in attrs}
    with files.complete(path, "SSP grid"):
        if attrs["encoding"] == "dense":
            parts: dict[str, Any] = {**arrays, **labels}
            return validated(SSPGrid(**parts))
        if attrs["encoding"] == "principal components":
            return validated(_decompress(path, arrays, labels))
    raise ValueError(f"{path}: unknown encoding {attrs['encoding'][:100]!r}; update jaxsed")


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the path of an SSP grid")
    with hdf5.opened(path) as file:
        if file.attribute("format") != FORMAT:
            raise ValueError(
                f"{path}: HDF5, but not a jaxsed SSP grid (keys: {file.names()[:20]}); a DSPS "
                "file is read by jaxsed.sps.ssp.readers.read_dsps"
            )
        version = file.number_attribute("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: schema version {version:g}, this jaxsed reads "
                f"{SCHEMA_VERSION}; write the grid again or change jaxsed's version"
            )
        attrs: dict[str, Any] = {
            name: file.text_attribute(name) for name in ("encoding", "checksum")
        }
        attrs |= {
            name: file.number_attribute(name) if name == "z_solar" else file.text_attribute(name)
            for name in file.attribute_names() if name in _LABELS
        }  # fmt: skip
        arrays = {name: file.array(name) for name in file.names()}
    if _checksum(arrays) != attrs["checksum"]:
        raise ValueError(f"{path}: the contents do not match the checksum; copy or make it again")
    return arrays, attrs


def _checksum(arrays: dict) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def load_ssp(name: str = "pegase2") -> SSPGrid:
    """An SSP grid that comes with jaxsed (its model card lies beside it in ``jaxsed/weights``)."""
    weights = resources.files("jaxsed").joinpath("weights")
    shipped = sorted(
        item.name.removeprefix("ssp_").removesuffix(".h5")
        for item in weights.iterdir()
        if item.name.startswith("ssp_") and item.name.endswith(".h5")
    )
    if name not in shipped:
        raise ValueError(
            f"no shipped SSP grid {name!r}; expected one of {shipped}, or use read_ssp"
        )
    with resources.as_file(weights.joinpath(f"ssp_{name}.h5")) as path:
        return read_ssp(path)


def _decompress(path: Path, arrays: dict, labels: dict) -> SSPGrid:
    """The grid from principal components of ln Lnu, and its emission lines, if any, from Hbeta.

    ln Lnu = mean + coefficients @ components from the first node with light on; the lines are
    deposited on top.  `jaxsed.weights.make_ssp_pegase2` writes these files.
    """
    axes = [name for name in ("wave", "components", "line_wave") if name in arrays]
    last = max(arrays[name].shape[-1] for name in axes)
    shape = (*arrays["coefficients"].shape[:-1], last)
    size, limit = 8 * int(np.prod(shape, dtype=object)), memory_limit(path.stat().st_size)
    if size > limit:  # the product of small arrays
        raise ValueError(f"a grid of {megabytes(size)}, expected at most {megabytes(limit)}")
    components = arrays["components"] * arrays["component_scale"][:, None]
    continuum = arrays["coefficients"] @ components + arrays["mean_ln_lnu"]
    wave = arrays["wave"]
    lnu = np.zeros((*continuum.shape[:2], wave.size), np.float32)
    lnu[..., wave.size - continuum.shape[-1] :] = np.exp(continuum)
    if "hbeta" in arrays:
        line_lum = arrays["hbeta"][..., None] * arrays["line_ratio"]
        lnu = deposit_lines(wave, lnu, arrays["line_wave"], line_lum)
    return SSPGrid(
        lnu=lnu,
        **{name: arrays[name] for name in _LEAF_UNITS if name in arrays},
        **labels,
    )


# --- wavelength and age ------------------------------------------------------------------------


def resample(grid: SSPGrid, wave_new: np.ndarray) -> SSPGrid:
    """The grid on other wavelengths, conserving energy.

    Each new node takes the mean of Lnu under its hat function, in frequency:
    Lnu_j = int hat_j Lnu c/lambda^2 dlambda / int hat_j c/lambda^2 dlambda.  The hats sum to one,
    so the integral of the new piecewise-linear Lnu over `wave_new` equals that of the old one,
    and so does, to second order in the step, the energy in any band wider than it.  On a finer
    grid this tends to linear interpolation; on a coarser one nothing between nodes is lost.
    """
    lnu = np.asarray(grid.lnu)
    new = mean_over_hats(grid.wave, lnu, wave_new).astype(lnu.dtype)
    return replace(grid, wave=np.asarray(wave_new, np.float32), lnu=new)


def with_red_tail(grid: SSPGrid, wave_max: float, step: float = 0.02) -> SSPGrid:
    """The grid continued to `wave_max` Å as Lnu ~ wave^-2 (Rayleigh-Jeans), where it ends before.

    Stars, and what their gas adds, are power laws in the far infrared; dust outshines both.
    """
    last = float(grid.wave[-1])
    if wave_max <= last:
        return grid
    ratio = np.exp(step * np.arange(1, int(np.ceil(np.log(wave_max / last) / step)) + 2))
    tail = np.asarray(grid.lnu)[..., -1:] * ratio.astype(np.float32) ** -2
    return replace(
        grid,
        wave=np.concatenate([grid.wave, (last * ratio).astype(np.float32)]),
        lnu=np.concatenate([grid.lnu, tail], axis=-1),
    )


def insert_age(grid: SSPGrid, age_gyr: float) -> SSPGrid:
    """The grid with a node at `age_gyr`, linear in log age between its neighbours.

    Lnu, the surviving mass and the ionising photon rate (not its log) are interpolated, so
    linear interpolation on the new grid gives what it gave on the old one.  A grid that has the
    age already (within 1e-5 dex) comes back unchanged.
    """
    log_age = np.asarray(grid.log_age, float)
    new = np.log10(age_gyr) if age_gyr > 0 else -np.inf
    if np.any(np.abs(log_age - new) < 1e-5):
        return grid
    if not log_age[0] < new < log_age[-1]:
        raise ValueError(
            f"age {age_gyr} Gyr is outside the grid, {10 ** log_age[0]:.4g} to "
            f"{10 ** log_age[-1]:.4g} Gyr; choose one inside"
        )
    upper = int(np.searchsorted(log_age, new))
    share = (new - log_age[upper - 1]) / (log_age[upper] - log_age[upper - 1])

    def with_node(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        node = (1 - share) * values[:, upper - 1] + share * values[:, upper]
        return np.insert(values, upper, node.astype(values.dtype), axis=1)

    log_nlyc = grid.log_nlyc
    if log_nlyc is not None:
        linear = with_node(10.0 ** np.asarray(log_nlyc, np.float64))
        log_nlyc = np.log10(linear).astype(np.float32)
    return replace(
        grid,
        log_age=np.insert(log_age, upper, new).astype(np.float32),
        lnu=with_node(grid.lnu),
        mass_surviving=with_node(grid.mass_surviving),
        log_nlyc=log_nlyc,
    )
