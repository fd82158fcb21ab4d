"""One way to open a file of jaxsed, whatever it holds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from jaxsed.catalog.result_file import SCHEMA
from jaxsed.catalog.results import load_results
from jaxsed.io import hdf5
from jaxsed.sps.ssp.grid import FORMAT, read_ssp

_LOADERS = {
    "jaxsed photometric emulator": "jaxsed.emulators:load_emulator",
    "jaxsed stitched emulator": "jaxsed.emulators:load_emulator",
    "jaxsed spectrum emulator": "jaxsed.emulators:load_emulator",
    "jaxsed PROVABGS spectrum emulator": "jaxsed.emulators:load_emulator",
    "jaxsed amortised posterior": "jaxsed.infer.amortised:load",
    "star network": "jaxsed.stars.model:load",
    "star autoencoder": "jaxsed.stars.autoencoder:load",
    "cannon model": "jaxsed.stars.cannon:load",
    "halo network": "jaxsed.halos.model:load",
    "halo baseline": "jaxsed.halos.baselines:load",
    "halo forest": "jaxsed.halos.forest:load",
}
"""Modules and functions by the kind that a file names; imported when they are needed."""


def load(path: str | Path) -> Any:
    """An emulator, a flow, a model of stars or halos, an SSP grid, or the results of a run.

    Its class says which.  Shipped emulators also go by name: see `jaxsed.load_emulator`.

    Raises JaxsedError for a file that is not there, and ValueError for one of another kind or that
    is damaged; the message names it.
    """
    path = Path(path)
    if not path.exists():
        return load_results(path)  # says so, and tells runs that are not finished
    with hdf5.opened(path) as file:
        known = {name: file.text_attribute(name) for name in ("kind", "format", "schema")
                 if name in file.attribute_names()}  # fmt: skip
    if known.get("schema") == SCHEMA:
        return load_results(path)
    if known.get("format") == FORMAT:
        return read_ssp(path)
    if known.get("kind") not in _LOADERS:
        found = f"a {known['kind']!r} file" if "kind" in known else "a file of another program"
        raise ValueError(
            f"{path}: {found}; expected results, an SSP grid, or one of: {', '.join(_LOADERS)}"
        )
    module, function = _LOADERS[known["kind"]].split(":")
    return getattr(import_module(module), function)(path)
