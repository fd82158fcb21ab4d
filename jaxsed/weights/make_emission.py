"""Make the shipped emission templates and their model cards from published tables.

    python -m jaxsed.weights.make_emission --dust dl07_fsps.npz --lines ZAU_ND_mist.lines.npz \
        --continuum ZAU_NX_bpss_cont.npz --torus Nenkova08_y010_torusg_n10_q2.0.dat

The first three are the tables of FSPS as plain arrays: wave_um, qpah_percent, umin and
lnu_Jy_cm2_per_sr_per_H [q, u, 2, wave]; wave_A, logZ, age_yr, logU and lum [met, age, u, wave] in
Lsun (lines) or Lsun/Hz (continuum) per ionising photon/s. The last is FSPS's own file.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.core.constants import LYMAN_ALPHA, LYMAN_LIMIT
from jaxsed.io import files
from jaxsed.sps.templates import (
    SHIPPED,
    AnyTable,
    DustTable,
    NebularTable,
    TorusTable,
    read_fsps_torus,
    read_templates,
    write_templates,
)

FIRST_WAVE, LAST_WAVE = 900.0, 1e8
"""Å; shortwards no light leaves a galaxy, longwards no band looks."""


def dust(path: Path) -> DustTable:
    """Draine & Li 2007."""
    with np.load(path, allow_pickle=False) as table:
        return DustTable(
            table["qpah_percent"], table["umin"], table["wave_um"] * 1e4,
            _ln(table["lnu_Jy_cm2_per_sr_per_H"]),
        )  # fmt: skip


def nebular(lines: Path, continuum: Path) -> NebularTable:
    """Byler+ 2017."""
    with np.load(lines, allow_pickle=False) as line, np.load(continuum, allow_pickle=False) as cont:
        keep = (cont["wave_A"] >= FIRST_WAVE) & (cont["wave_A"] <= LAST_WAVE)
        assert np.array_equal(line["logU"], cont["logU"]), "lines and continuum differ in log U"
        return NebularTable(
            line["logZ"], np.log10(line["age_yr"] / 1e9), line["logU"], line["wave_A"],
            _ln(line["lum"]), cont["logZ"], np.log10(cont["age_yr"] / 1e9), cont["wave_A"][keep],
            without_lines(cont["wave_A"][keep], _ln(cont["lum"][..., keep])),
        )  # fmt: skip


RYDBERG_EDGE = 911.267
EDGES = (LYMAN_LIMIT, LYMAN_ALPHA, *(RYDBERG_EDGE * n**2 for n in range(2, 9)))
"""Å; between the limits of the hydrogen series the continuum is smooth."""


def without_lines(wave: np.ndarray, ln: np.ndarray, degree: int = 7) -> np.ndarray:
    """The smooth lower envelope of spectra that have lines in them.

    The source's "continuum" holds the lines as well, which are tabulated apart: counted twice,
    Hbeta would be twice what its photons give. Each stretch between two series limits is replaced
    by the polynomial through the pixels that no line lifts.
    """
    ln = ln.copy()
    ends = np.searchsorted(wave, (wave[0], *EDGES, 2 * wave[-1]))
    for first, last in zip(ends[:-1], ends[1:], strict=True):
        n = last - first
        if n < 8:
            continue
        x = np.log(wave[first:last])
        x = 2 * (x - x[0]) / (x[-1] - x[0]) - 1
        basis = np.polynomial.chebyshev.chebvander(x, min(degree, n // 6))
        rows = ln[..., first:last].reshape(-1, n)
        for row, y in enumerate(rows):
            keep = y <= np.quantile(y, 0.9)
            for cut in (0.5, 0.2, 0.1, 0.05, 0.03, *[0.02] * 3, *[0.015] * 3):
                smooth = basis @ np.linalg.lstsq(basis[keep], y[keep], rcond=None)[0]
                gap = y - smooth
                keep = gap < np.quantile(gap, 0.25) + cut
            rows[row] = smooth
        ln[..., first:last] = rows.reshape(*ln.shape[:-1], n)
    return ln


def _ln(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values)


NOTES = {
    DustTable: (
        "Emission of interstellar dust",
        "Draine & Li 2007, ApJ 657, 810, as tabulated in FSPS (MIT licence)",
        "Milky Way dust; a model with mixed heating uses one file row of each kind.",
    ),
    TorusTable: (
        "Emission of the dusty torus of an active nucleus",
        "Nenkova+ 2008, ApJ 685, 160, as tabulated in FSPS (MIT licence)",
        "Clumpy torus: radial thickness 10, 10 clumps along the equator, index 2.0.",
    ),
    NebularTable: (
        "Nebular lines and continuum per ionising photon",
        "Byler+ 2017, ApJ 840, 44, as tabulated in FSPS (MIT licence)",
        "CLOUDY models. The lines are of ionising stars from MIST on a fine grid of metallicity; "
        "the continuum, on its coarser one (log Z -2, -1, 0, the ends continued), is of BPASS "
        "stars, rid of the lines that it holds as well: smooth between the limits of the hydrogen "
        "series. The ages are those of the ionising stars.",
    ),
}


def model_card(path: Path, table: AnyTable, sources: list[Path]) -> str:
    """The text of the model card: what it is and the error of the packing."""
    title, citation, notes = NOTES[type(table)]
    kind: Any = type(table)
    stored = read_templates(path, kind)
    rows = []
    for name, values in table._asdict().items():
        shape = " x ".join(map(str, np.shape(values)))
        if name.startswith("ln_"):
            lit = np.isfinite(values)
            error = np.abs(np.expm1(getattr(stored, name)[lit] - values[lit])).max()
            rows.append(f"| {name} | {shape} | | {error:.1e} |")
        else:
            rows.append(f"| {name} | {shape} | {np.min(values):.5g} to {np.max(values):.5g} | |")
    digests = "; ".join(hashlib.sha256(p.read_bytes()).hexdigest() for p in sources)
    return "\n".join(
        [
            f"# {title}",
            "",
            f"`{path.name}` ({path.stat().st_size / 1e6:.2f} MB), made by "
            f"`python -m jaxsed.weights.make_emission`. Cite {citation}.",
            "",
            notes,
            "",
            "| array | shape | range | largest relative error of the packing |",
            "|---|---|---|---|",
            *rows,
            "",
            "Logarithms are kept as 16-bit steps between the ends of each column. sha256 of the "
            f"source tables: {digests}.",
            "",
        ]
    )


def main() -> None:
    """Write the tables whose sources are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("dust", "lines", "continuum", "torus"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    jobs: list[tuple[AnyTable, list[Path]]] = []
    if options.dust:
        jobs.append((dust(options.dust), [options.dust]))
    if options.lines and options.continuum:
        sources = [options.lines, options.continuum]
        jobs.append((nebular(*sources), sources))
    if options.torus:
        jobs.append((read_fsps_torus(options.torus), [options.torus]))
    for table, sources in jobs:
        title, citation, _ = NOTES[type(table)]
        path = options.folder / SHIPPED[type(table)]
        write_templates(path, table, {"title": title, "citation": citation})
        card = model_card(path, table, sources)
        files.write_text(path.with_suffix(".md"), card)
        print(card)


if __name__ == "__main__":
    main()
