"""Make `apogee_windows.h5`: the pixels of APOGEE's continuum and of each element's lines.

    python -m jaxsed.weights.make_apogee_windows FILTERS MASKS

FILTERS is the folder of the pipeline's window files (one weight per pixel and element, ``Mg.filt``;
Garcia Perez et al. 2016), MASKS that of the continuum pixels (``dr14_contmask.npy``; Leung & Bovy
2018).  Only which pixels count is kept, as runs on the DR17 grid.
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

import numpy as np

from jaxsed.io import files
from jaxsed.stars import apogee

ELEMENTS = (
    "C", "CI", "N", "O", "Na", "Mg", "Al", "Si", "P", "S", "K", "Ca", "Ti", "TiII", "V", "Cr",
    "Mn", "Fe", "Co", "Ni",
)  # fmt: skip


def runs(chosen: np.ndarray) -> np.ndarray:
    """[run, 2] first and last + 1 of each run of true pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    return edges.reshape(-1, 2).astype(np.int16)


def main() -> None:
    """Read, pack, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("filters", type=Path)
    parser.add_argument("masks", type=Path)
    options = parser.parse_args()
    arrays = {
        f"window/{name}": runs(np.loadtxt(options.filters / f"{name}.filt") > 0)
        for name in ELEMENTS
    }
    for release in ("dr14", "dr17"):
        mask = np.load(options.masks / f"{release}_contmask.npy", allow_pickle=False)
        arrays[f"continuum/{release}"] = runs(mask)
    with resources.as_file(resources.files("jaxsed.weights")) as folder:
        files.write(
            folder / "apogee_windows.h5", apogee.WINDOWS, arrays,
            {"windows": "Garcia Perez et al. 2016", "continuum": "Leung & Bovy 2018"},
        )  # fmt: skip
    print({name: int(np.diff(r).sum()) for name, r in arrays.items()})


if __name__ == "__main__":
    main()
