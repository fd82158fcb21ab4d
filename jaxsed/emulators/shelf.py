"""The emulators there are: those of the package and those trained on this machine."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from jaxsed.emulators.photometric import PhotometricEmulator

PREFIX = "emulator_"


def cache_folder() -> Path:
    """Where emulators trained on this machine are kept; the environment's XDG rules apply."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "jaxsed" / "emulators"


def emulator_files() -> list[Path]:
    """Emulators that come with the package, and those in the user's cache."""
    shipped = Path(str(resources.files("jaxsed.weights")))
    return sorted(shipped.glob(f"{PREFIX}*.h5")) + sorted(cache_folder().glob("*.h5"))


def load_emulator(name: str | Path) -> PhotometricEmulator:
    """An emulator by name (``provabgs_sdss``, ``provabgs_goodss``, ``provabgs_broad``, or one in
    the user's cache), or from a file.

    Raises ValueError for an unknown name, with those there are, and for a file that is no emulator.
    """
    if Path(name).suffix == ".h5":
        return PhotometricEmulator.load(name)
    files = {path.stem.removeprefix(PREFIX): path for path in emulator_files()}
    if str(name) not in files:
        raise ValueError(f"no emulator {str(name)!r}: there are {', '.join(files)}")
    return PhotometricEmulator.load(files[str(name)])
