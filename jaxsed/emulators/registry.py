"""Registry of emulators: those of the package and those trained on this machine."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxsed.emulators.photometric.emulator import PhotometricEmulator
from jaxsed.emulators.photometric.stitched import StitchedEmulator
from jaxsed.emulators.spectral.emulator import SpectrumEmulator
from jaxsed.emulators.spectral.provabgs import ProvabgsSpectrum
from jaxsed.io import components, files

PREFIX = "emulator_"
SPECTRUM_PREFIX = "spectrum_"

PHOTOMETRIC = (PhotometricEmulator, StitchedEmulator)


def cache_folder() -> Path:
    """Where emulators trained on this machine are kept; the environment's XDG rules apply."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "jaxsed" / "emulators"


def emulator_files() -> list[Path]:
    """Emulators that come with the package, and those in the user's cache."""
    shipped = Path(str(resources.files("jaxsed.weights")))
    return sorted(shipped.glob(f"{PREFIX}*.h5")) + sorted(cache_folder().glob("*.h5"))


def is_photometric(path: str | Path) -> bool:
    """Whether a file holds an emulator of photometry, of one window of redshift or several.

    Raises FileNotFoundError, and ValueError for a file that is no component's.
    """
    return components.class_of(path) in PHOTOMETRIC


def load_emulator(name: str | Path) -> Any:
    """An emulator by name (such as ``provabgs_sdss`` or one in the user's cache), or from a file.

    Its class is that of the file: `PhotometricEmulator`, `StitchedEmulator`, `SpectrumEmulator`
    or `ProvabgsSpectrum`.

    Raises ValueError for an unknown name, with the known ones, and for a file that is no emulator.
    """
    path = _path_of(name, "emulator", emulator_files(), PREFIX)
    if not path.is_file():
        return _load(path)  # which says what is wrong
    status = path.stat()
    unchanged = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _load_once(path, unchanged, jnp.result_type(float))


@lru_cache(maxsize=16)
def _load_once(path: Path, unchanged: tuple[int, ...], dtype: Any) -> Any:
    """The emulator of a file, shared by all who ask for it: a run asks each of them for its bands.

    Args:
        path: the file.
        unchanged: what tells this content of the file from a later one.
        dtype: of floating-point arrays where none is asked for.
    """
    with jax.ensure_compile_time_eval():  # also where a traced function asks first
        return _load(path)


def _load(path: Path) -> Any:
    found = components.class_of(path)
    if found not in (*PHOTOMETRIC, SpectrumEmulator, ProvabgsSpectrum):
        raise ValueError(f"{path}: expected an emulator, got a {files.kind(path)!r} file")
    return found.load(path)


def spectrum_files() -> list[Path]:
    """Emulators of whole galaxies' spectra that come with the package."""
    shipped = Path(str(resources.files("jaxsed.weights")))
    return sorted(shipped.glob(f"{SPECTRUM_PREFIX}*.h5"))


def load_spectrum_emulator(name: str | Path = "provabgs") -> ProvabgsSpectrum:
    """The spectrum emulator of a galaxy model by name (``provabgs``), or from a file.

    Raises ValueError for an unknown name, with the known ones, and for a file that is none.
    """
    return ProvabgsSpectrum.load(
        _path_of(name, "spectrum emulator", spectrum_files(), SPECTRUM_PREFIX)
    )


def _path_of(name: str | Path, what: str, paths: list[Path], prefix: str) -> Path:
    """A file as it is given, or the one among `paths` that a name stands for."""
    path = Path(name)
    if path.suffix == ".h5":
        return path
    known = {path.stem.removeprefix(prefix): path for path in paths}
    if str(name) not in known:
        raise ValueError(f"no {what} {str(name)!r}: known are {', '.join(known)}")
    return known[str(name)]
