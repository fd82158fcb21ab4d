"""Tabulate the NMF bases of PROVABGS (Hahn+ 2022) in our own format.

usage: python -m jaxsed.weights.make_provabgs_bases FOLDER

FOLDER holds the published text tables of the star formation and metallicity bases and of their
cosmic-time grid.  The published order of the star formation bases is [2, 0, 1, 3].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from jaxsed.io import files

ORDER = [2, 0, 1, 3]


def main(folder: str) -> None:
    """Read the three tables and write ``provabgs_bases.h5`` beside this script."""
    source = Path(folder)
    time = np.loadtxt(source / "sfh_t_int.txt")[::-1]
    sfh = np.loadtxt(source / "NMF_2basis_SFH_components_nowgt_lin_Nc4.txt")[ORDER, ::-1]
    zh = np.loadtxt(source / "NMF_2basis_Z_components_nowgt_lin_Nc2.txt")[:, ::-1]
    output = Path(__file__).with_name("provabgs_bases.h5")
    with files.creating(output) as file:
        file.attrs["title"] = "NMF bases of PROVABGS star formation and metallicity histories"
        file.attrs["kind"] = "tabulated bases"
        file.attrs["schema_version"] = 1
        file.attrs["citation"] = "Hahn et al. 2022 (PROVABGS); Kwon, Hahn & Alsing 2022; MIT"
        for name, values, unit in (
            ("lookback_time", time, "Gyr"),
            ("sfh", sfh, "Msun/yr, relative"),
            ("metallicity", zh, "absolute metallicity per unit coefficient"),
        ):
            file.create_dataset(name, data=values.astype(np.float32)).attrs["unit"] = unit


if __name__ == "__main__":
    main(*sys.argv[1:])
