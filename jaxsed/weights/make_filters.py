"""Tabulate filter curves that astro-sedpy lacks, in our own format.

    python -m jaxsed.weights.make_filters goodss FOLDER/*.dat
    python -m jaxsed.weights.make_filters mathews137 1d3mm.par hsc_zpp.par

The files are two-column curves (wavelength in Angstrom, transmission), one per band. A curve is
thinned to the points that linear interpolation needs to stay within 0.1 % of its peak; one of two
points is a box.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from jaxsed.bands.filters import Filter, make_filter, read_filter
from jaxsed.io import files

TOLERANCE = 1e-3
BOX_EDGE = 1e-4
"""Relative width of the edges of a box."""

COLLECTIONS = {
    "goodss": (
        "goodss_", "Filter curves of the CANDELS GOODS-S photometry",
        "Pacifici et al. 2023; Guo et al. 2013",
    ),
    "mathews137": (
        "", "Filter curves of Mathews et al. (2023) that are not in astro-sedpy",
        "Mathews et al. 2023; Johnson 2021",
    ),
}  # fmt: skip
"""Prefix of the names, title and citation."""


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


def curve_of(path: Path) -> Filter:
    """The curve in a file, a box where it has two points."""
    table = np.loadtxt(path, usecols=(0, 1), ndmin=2)
    if len(table) > 2:
        return read_filter(path)
    (low, high), (a, b) = table[:, 0], table[:, 1]
    wave = [low * (1 - BOX_EDGE), low, high, high * (1 + BOX_EDGE)]
    return make_filter(path.stem, np.array(wave), np.array([0.0, a, b, 0.0]))


def main(collection: str, *paths: str) -> None:
    """Read the curves and write ``filters_<collection>.h5`` beside this script."""
    prefix, title, citation = COLLECTIONS[collection]
    output = Path(__file__).with_name(f"filters_{collection}.h5")
    with files.creating(output) as file:
        file.attrs["title"] = title
        file.attrs["kind"] = "filter curves"
        file.attrs["schema_version"] = 1
        file.attrs["citation"] = citation
        for path in sorted(Path(p) for p in paths):
            curve = curve_of(path)
            trans = curve.trans / curve.trans.max()
            index = thin(curve.wave, trans)
            data = np.stack([curve.wave[index], trans[index]]).astype(np.float32)
            dataset = file.create_dataset(prefix + path.stem.lower(), data=data, compression="gzip")
            dataset.attrs["unit"] = "Angstrom (vacuum); transmission relative to the peak"


if __name__ == "__main__":
    main(*sys.argv[1:])
