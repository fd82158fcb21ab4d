"""Tabulate the CANDELS GOODS-S filter curves in our own format.

usage: python -m jaxsed.weights.make_filters_goodss FOLDER

FOLDER holds two-column curves (wavelength in Angstrom, transmission), one file per band. A curve
is thinned to the points that linear interpolation needs to stay within 0.1 % of its peak.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

from jaxsed.sps.photometry import read_filter

TOLERANCE = 1e-3


def thin(wave: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """Indices of points that suffice for linear interpolation (Douglas & Peucker 1973)."""
    keep, stack = {0, wave.size - 1}, [(0, wave.size - 1)]
    while stack:
        low, high = stack.pop()
        if high - low < 2:
            continue
        inside = slice(low + 1, high)
        line = np.interp(wave[inside], wave[[low, high]], trans[[low, high]])
        gap = np.abs(trans[inside] - line)
        worst = int(np.argmax(gap))
        if gap[worst] > TOLERANCE:
            middle = low + 1 + worst
            keep.add(middle)
            stack += [(low, middle), (middle, high)]
    return np.array(sorted(keep))


def main(folder: str) -> None:
    """Read every curve of the folder and write ``filters_goodss.h5`` beside this script."""
    with h5py.File(Path(__file__).with_name("filters_goodss.h5"), "w") as file:
        file.attrs["title"] = "Filter curves of the CANDELS GOODS-S photometry"
        file.attrs["kind"] = "filter curves"
        file.attrs["schema_version"] = 1
        file.attrs["citation"] = "Pacifici et al. 2023; Guo et al. 2013"
        for path in sorted(Path(folder).glob("*.dat")):
            curve = read_filter(path)
            trans = curve.trans / curve.trans.max()
            index = thin(curve.wave, trans)
            data = np.stack([curve.wave[index], trans[index]]).astype(np.float32)
            name = f"goodss_{path.stem.lower()}"
            dataset = file.create_dataset(name, data=data, compression="gzip")
            dataset.attrs["unit"] = "Angstrom (vacuum); transmission relative to the peak"


if __name__ == "__main__":
    main(*sys.argv[1:])
