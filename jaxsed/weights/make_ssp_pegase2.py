"""Make the shipped PEGASE.2 grids and their model cards from the source tables.

    python -m jaxsed.weights.make_ssp_pegase2 pegase2_kroupa01_stellar_plus_nebular.npz
    python -m jaxsed.weights.make_ssp_pegase2 pegase2_kroupa01_stellar.npz --name pegase2_stellar

A source whose lines are zero makes a grid of stars alone, dark below the Lyman limit: their
ionising light is in the photon rates, for models that light up gas of their own.

The source is the PEGASE.2 table of lightningpy as an npz: wave_A, age_yr, Z,
lnu_lsun_hz_per_msun_formed [Z, age, wave] (stars and nebular continuum), line_wave_A,
line_lum_lsun [Z, age, line], mass_stars_alive, mass_wd, mass_nsbh and nlyc_photons_s.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from jaxsed.bands.wavelengths import air_to_vacuum
from jaxsed.io import files
from jaxsed.sps.ssp.grid import LOG_NLYC_NONE, SSPGrid, read_ssp, write_arrays
from jaxsed.sps.ssp.wavelengths import deposit_lines

#: PEGASE.2 is tabulated in 400 Angstrom steps up to here, then at 20, 40, 60... micron.
_LAST_FINE_NODE = 100200.0
_WAVE_MAX = 3.0e5
_IR_STEP = 0.02
#: Ranges of the error tables, Angstrom.
_RANGES = (915, 1000, 2000, 4000, 7000, 1e4, 2.5e4, 5e4, 1e5, 3e5)
_AGE_RANGES = (0.001, 0.01, 0.1, 1.0, 20.0)

_DARK_BELOW = 912.0

_GAS = (
    "stars, nebular continuum and lines, no ionising photon escapes (dark below 912 Angstrom);"
    " surviving mass: living stars, white dwarfs, neutron stars and black holes"
)
_STARS = (
    "stars alone, dark below 912 Angstrom, where gas absorbs everything (the photon rates are "
    "listed); surviving mass: living stars, white dwarfs, neutron stars and black holes"
)
_LABELS = {
    "citation": "Fioc & Rocca-Volmerange 1997, A&A 326, 950; 1999, arXiv:astro-ph/9912179",
    "imf": "Kroupa 2001, 0.1-100 Msun",
    "z_solar": 0.02,
    "resolution": "BaSeL: nodes every 10 Angstrom to 2900, 20 to 1 micron, 100 to 3.2 micron",
}
_LINES_NOTE = (
    "- Lines: 61, with one set of ratios to Hβ for all metallicities and ages (PEGASE.2's "
    "own simplification: [O III] and [N II] do not follow the metallicity, and multiplets "
    "such as [S III] 9069, 9532 are one entry). Each is shared between the two nodes that "
    "bracket it, so that ∫Lν dν and the mean wavelength are those of the line; its rms "
    "width is at most 0.65 of the local spacing (13 Å at Hα)."
)
_UNITS = {
    "log_z": "log10 of the metal mass fraction Z",
    "log_age": "log10(Gyr)",
    "wave": "Angstrom, vacuum",
    "mass_surviving": "Msun per Msun formed",
    "log_nlyc": "log10(photons/s) per Msun formed",
    "mean_ln_lnu": "ln(Lsun/Hz per Msun formed)",
    "components": "ln(Lsun/Hz), times component_scale",
    "component_scale": "ln(Lsun/Hz)",
    "coefficients": "1",
    "line_wave": "Angstrom, vacuum",
    "line_ratio": "Hbeta",
    "hbeta": "Lsun per Msun formed",
}


def read_source(path: Path) -> dict:
    """The source table on our axes: ages from 1 Myr, 91 Angstrom to 30 micron, lines in vacuum."""
    with np.load(path, allow_pickle=False) as table:
        source = {name: table[name].astype(float) for name in table.files}
    old = source["age_yr"] > 0
    wave, lnu = source["wave_A"], source["lnu_lsun_hz_per_msun_formed"][:, old]
    gas = bool(np.any(source["line_lum_lsun"] > 0))
    if not gas:
        lnu = np.where(wave < _DARK_BELOW, 0.0, lnu)
    # power laws between 10, 20 and 40 micron: a straight line there would be 40 % too bright
    fine = wave <= _LAST_FINE_NODE
    count = int(np.ceil(np.log(_WAVE_MAX / _LAST_FINE_NODE) / _IR_STEP))
    tail = np.geomspace(_LAST_FINE_NODE, _WAVE_MAX, count + 1)[1:]
    coarse = wave >= _LAST_FINE_NODE
    upper = np.searchsorted(wave[coarse], tail)
    log_wave, log_lnu = np.log(wave[coarse]), np.log(lnu[..., coarse])
    share = (np.log(tail) - log_wave[upper - 1]) / np.diff(log_wave)[upper - 1]
    log_tail = (1 - share) * log_lnu[..., upper - 1] + share * log_lnu[..., upper]
    mass = source["mass_stars_alive"] + source["mass_wd"] + source["mass_nsbh"]
    lines = (
        {}
        if not gas
        else {
            # PEGASE.2 lists laboratory wavelengths in air, rounded to 1 Angstrom
            "line_wave": air_to_vacuum(source["line_wave_A"]),
            "line_lum": source["line_lum_lsun"][:, old],
        }
    )
    return {
        "wave": np.concatenate([wave[fine], tail]),
        "continuum": np.concatenate([lnu[..., fine], np.exp(log_tail)], axis=-1),
        "log_z": np.log10(source["Z"]),
        "log_age": np.log10(source["age_yr"][old] / 1e9),
        "mass_surviving": mass[:, old],
        "log_nlyc": np.log10(np.maximum(source["nlyc_photons_s"][:, old], 10**LOG_NLYC_NONE)),
        **lines,
    }


def compress(source: dict, rank: int) -> dict:
    """Arrays of the compressed file: `rank` principal components of ln Lnu, lines as Hbeta times
    ratios (PEGASE.2 has one set of ratios for all metallicities and ages)."""
    lit = np.all(source["continuum"] > 0, axis=(0, 1))
    first = int(np.argmax(lit))
    if not np.all(lit[first:]) or np.any(source["continuum"][..., :first] > 0):
        raise ValueError("expected light everywhere above one wavelength and none below it")
    ln_lnu = np.log(source["continuum"][..., first:])
    mean = ln_lnu.mean(axis=(0, 1))
    _, _, vectors = np.linalg.svd((ln_lnu - mean).reshape(-1, mean.size), full_matrices=False)
    scale = np.abs(vectors[:rank]).max(axis=1) / 32767
    components = np.round(vectors[:rank] / scale[:, None]).astype(np.int16)
    # the coefficients are fitted to the components as stored, after rounding
    stored = (components * scale[:, None]).T
    coefficients = np.linalg.lstsq(stored, (ln_lnu - mean).reshape(-1, mean.size).T, rcond=None)[0]
    arrays = {
        **{name: source[name] for name in ("log_z", "log_age", "mass_surviving", "log_nlyc")},
        "wave": source["wave"],
        "mean_ln_lnu": mean,
        "components": components,
        "component_scale": scale,
        "coefficients": coefficients.T.reshape(*ln_lnu.shape[:2], rank),
    }
    if "line_lum" not in source:
        return arrays
    hbeta = source["line_lum"][..., 0]
    bright = hbeta > 1e-3 * hbeta.max()
    return arrays | {
        "line_wave": source["line_wave"],
        "line_ratio": np.median(source["line_lum"][bright] / hbeta[bright][:, None], axis=0),
        "hbeta": hbeta,
    }


def reconstruction_table(source: dict, grid: SSPGrid) -> list[str]:
    """Relative error of the compressed grid against the source, lines included, per wavelength."""
    truth = source["continuum"]
    if "line_lum" in source:
        truth = deposit_lines(source["wave"], truth, source["line_wave"], source["line_lum"])
    lit = truth[0, 0] > 0
    error = np.abs(grid.lnu[..., lit] / truth[..., lit] - 1).reshape(-1, lit.sum())
    wave = source["wave"][lit]
    rows = [
        "| wavelength (Å) | rms | worst rms at one λ | worst 99th percentile at one λ | largest |",
        "|---|---|---|---|---|",
    ]
    rms, percentile = np.sqrt(np.mean(error**2, axis=0)), np.percentile(error, 99, axis=0)
    for low, high in (*zip(_RANGES[:-1], _RANGES[1:], strict=True), (1000, 5e4)):
        here = (wave >= low) & (wave <= high)
        figures = (
            np.sqrt(np.mean(rms[here] ** 2)),
            rms[here].max(),
            percentile[here].max(),
            error[:, here].max(),
        )
        rows.append(f"| {low:.0f}–{high:.0f} | " + " | ".join(f"{x:.3%}" for x in figures) + " |")
    return rows


def line_error(source: dict, arrays: dict) -> float:
    """Largest error of a line luminosity, relative, where the line matters (> 1e-4 of Lbol)."""
    rebuilt = arrays["hbeta"][..., None] * arrays["line_ratio"]
    matters = source["line_lum"] > 1e-4 * source["line_lum"].sum(axis=-1).max()
    return float(np.max(np.abs(rebuilt[matters] / source["line_lum"][matters] - 1)))


def left_out(source: dict, axis: int) -> np.ndarray:
    """[met, age, wave] relative error of every interior node from its two neighbours on `axis`.

    Lnu is interpolated linearly in log Z (axis 0) or log age (axis 1), as the SED does, but over
    twice the step; the two end nodes are not a number.
    """
    x = source["log_z"] if axis == 0 else source["log_age"]
    lit = source["continuum"][0, 0] > 0
    lnu = np.moveaxis(source["continuum"][..., lit], axis, 0)
    share = ((x[1:-1] - x[:-2]) / (x[2:] - x[:-2]))[:, None, None]
    error = np.full(lnu.shape, np.nan)
    error[1:-1] = ((1 - share) * lnu[:-2] + share * lnu[2:]) / lnu[1:-1] - 1
    return np.moveaxis(error, 0, axis)


def left_out_table(source: dict, error: np.ndarray, statistic) -> list[str]:
    """Rows of wavelength, columns of age: `statistic` of |error| in each cell."""
    wave = source["wave"][source["continuum"][0, 0] > 0]
    age = 10 ** source["log_age"]
    age_cells = list(zip(_AGE_RANGES[:-1], _AGE_RANGES[1:], strict=True))
    head = " | ".join(f"{low:g}–{high:g} Gyr" for low, high in age_cells)
    rows = [f"| wavelength (Å) | {head} |", "|---" * (len(age_cells) + 1) + "|"]
    for low, high in zip(_RANGES[:-1], _RANGES[1:], strict=True):
        here = (wave >= low) & (wave < high)
        cells = [
            statistic(np.abs(error[:, (age >= a0 * 0.999) & (age < a1 * 1.001)][..., here]))
            for a0, a1 in age_cells
        ]
        rows.append(f"| {low:.0f}–{high:.0f} | " + " | ".join(f"{x:.2%}" for x in cells) + " |")
    return rows


def model_card(source: dict, grid: SSPGrid, arrays: dict, path: Path, source_path: Path) -> str:
    """The text of the model card."""
    rank, gas = arrays["components"].shape[0], "line_lum" in source
    digest = hashlib.sha256(source_path.read_bytes()).hexdigest()
    met_error = left_out(source, axis=0)
    age_error = left_out(source, axis=1)
    met_rows = [
        f"| {10 ** source['log_z'][k]:g} | "
        + " | ".join(
            f"{np.median(np.abs(met_error[k][..., here])):.2%}"
            for here in _wave_cells(source, (1000, 4000, 1e4, 5e4))
        )
        + " |"
        for k in range(1, source["log_z"].size - 1)
    ]
    faintest = source["continuum"][source["continuum"] > 0].min()
    mass_step = np.abs(grid.mass_surviving - source["mass_surviving"]).max()
    return "\n".join(
        [
            f"# PEGASE.2 simple stellar populations{'' if gas else ', stars alone'}",
            "",
            f"`{path.name}` ({path.stat().st_size / 1e6:.2f} MB), made by "
            "`python -m jaxsed.weights.make_ssp_pegase2 SOURCE.npz`; load it with "
            f'`jaxsed.sps.ssp.grid.load_ssp("{grid.name}")`.',
            "",
            "## What it is",
            "",
            f"- Source: {_LABELS['citation']}, as distributed with lightningpy (MIT licence), from "
            "whose tables this file is computed; cite both PEGASE papers. "
            f"sha256 of the source table: `{digest}`.",
            f"- IMF {_LABELS['imf']}. {source['log_z'].size} metallicities, Z = "
            + ", ".join(f"{10**z:g}" for z in source["log_z"])
            + f" (solar 0.02); {source['log_age'].size} ages, 1 Myr to 20 Gyr (age zero dropped; "
            f"nothing younger); {source['wave'].size} wavelengths, 91 Å to 30 µm.",
            f"- Contents: {grid.notes}. Ionising photon rates are stored; "
            f"log_nlyc = {LOG_NLYC_NONE:g} where the source has none.",
            "- Wavelengths are vacuum. The continuum's are the source's own: its absorption "
            "features fall where those of BC03-MILES fall in vacuum (within 0.75 Å, mean 0.0, at "
            "3900–9000 Å and 0.3–1 Gyr), where air wavelengths would be off by 1.1–2.4 Å. Line "
            "wavelengths, which PEGASE.2 lists in air and rounded to 1 Å, are converted above "
            "2000 Å.",
            *([_LINES_NOTE] if gas else []),
            "- Z = 0.013 and 0.016 are, in the source itself, interpolations between their "
            "neighbours (see the last table).",
            f"- Above 10 µm the source has only 20 and 40 µm: nodes every {_IR_STEP:.0%} were put "
            "between them by power law. No dust emission.",
            "",
            "## How it is compressed",
            "",
            f"{rank} principal components of ln Lν over all metallicities and ages: int16 "
            "components, float32 coefficients; lines apart. Lν is exactly zero below 915 Å; "
            f"above, no floor was needed: the faintest value, {faintest:.1e} Lsun/Hz/Msun, is kept "
            "to the same relative error as the rest.",
            "",
            "## Measured error of the compression",
            "",
            "Relative error of Lν with lines against the source, over all metallicities and ages.",
            "",
            *reconstruction_table(source, grid),
            "",
            *(
                [f"Largest relative error of a line: {line_error(source, arrays):.3%}."]
                if gas
                else []
            ),
            f"Largest error of the surviving mass: {mass_step:.1e} (the source keeps 3 decimals).",
            "",
            "## Interpolation error of the grid itself",
            "",
            "Not an error of the compression: each interior node predicted from its two "
            "neighbours, linear in log age (or log Z), that is over twice the grid's step. For "
            "smooth change the error inside a step is about a quarter of these figures.",
            "",
            "Leave one age out, rms:",
            "",
            *left_out_table(source, age_error, lambda e: np.sqrt(np.nanmean(e**2))),
            "",
            "Leave one age out, median:",
            "",
            *left_out_table(source, age_error, np.nanmedian),
            "",
            "Leave one metallicity out, median over ages:",
            "",
            "| Z left out | 1000–4000 Å | 4000–10000 Å | 10000–50000 Å |",
            "|---|---|---|---|",
            *met_rows,
            "",
            "## Limits",
            "",
            "Z ≥ 0.001; BaSeL resolution; 1 Myr steps below 10 Myr; masses to three decimals; a "
            "gas, if any, follows one recipe: no ionisation parameter, no escape of photons. Not "
            "for spectra at better than about 20 Å, nor for emission-line ratios.",
            "",
        ]
    )


def _wave_cells(source: dict, edges: tuple) -> list[np.ndarray]:
    wave = source["wave"][source["continuum"][0, 0] > 0]
    return [(wave >= a) & (wave < b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="npz of the PEGASE.2 table")
    parser.add_argument("--rank", type=int, default=120, help="number of principal components")
    parser.add_argument("--name", default="pegase2", help="of the grid")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="output folder")
    options = parser.parse_args()
    source = read_source(options.source)
    arrays = compress(source, options.rank)
    packed = {
        name: array if array.dtype == np.int16 else array.astype(np.float32)
        for name, array in arrays.items()
    }
    path = write_arrays(
        options.folder / f"ssp_{options.name}.h5",
        packed,
        {
            "name": options.name,
            "gas": "included" if "line_lum" in source else "none",
            "notes": _GAS if "line_lum" in source else _STARS,
            **_LABELS,
        },
        encoding="principal components",
        units=_UNITS,
    )
    card = model_card(source, read_ssp(path), packed, path, options.source)
    files.write_text(path.with_suffix(".md"), card)
    print(card)


if __name__ == "__main__":
    main()
