"""One way to open a file of jaxsed, whatever it holds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from jaxsed.catalog.results import load_results
from jaxsed.catalog.results.file import SCHEMA
from jaxsed.io import hdf5
from jaxsed.io.components import KINDS
from jaxsed.sps.ssp.grid import FORMAT, read_ssp

_MODULES = ("emulators", "infer.amortised", "stars", "halos")
"""With components; imported when one is to be read."""


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
    for module in _MODULES:
        import_module(f"jaxsed.{module}")
    if known.get("kind") not in KINDS:
        found = f"a {known['kind']!r} file" if "kind" in known else "a file of another program"
        raise ValueError(
            f"{path}: {found}; expected results, an SSP grid, or one of: {', '.join(KINDS)}"
        )
    return KINDS[known["kind"]].load(path)
