"""Observed spectra from their files to labels: Arcturus, an APOGEE visit, binaries.

    python -m benchmarks.stars.observed MODEL.h5 FOLDER --training SET/train.h5 --output OUT

MODEL.h5 is a network of `apogee.py` and SET that of `synthetic.py`: both know semi-synthetic
spectra of giants between 4000 and 5500 K alone, so the labels of real stars have the systematic
errors of that, and dwarfs lie outside: they are here to show whether that is noticed.  FOLDER holds
`observed_arcturus.txt` (wavelengths in air, flux), `visits/` and the spectra of binspec on the
grid of DR12.  Pixels that the semi-synthetic spectra do not have (DR17 sees 300 more than DR12) are
left out.  A Cannon is fitted to the same training for comparison, its best spectrum drawn over the
observed one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import plots
from jaxsed import stars as st
from jaxsed.cli import prepare_process
from jaxsed.stars import apogee, model
from jaxsed.stars.data import flag_text
from jaxsed.workflows.stars import cannon_labels

LABELS = ("teff", "logg", "fe", "Mg")
"""Of the Cannon."""

LITERATURE = {"Arcturus": {"teff": (4286.0, 30.0), "logg": (1.66, 0.05), "fe": (-0.52, 0.04)}}
"""Ramirez & Allende Prieto (2011)."""

VELOCITY = 14.0
"""km/s of Arcturus in its file, where its lines are those of the Cannon's spectrum of it."""

ATLAS, APOGEE = 100_000, 22_500
"""Resolving powers."""

ATLAS_ERROR = 0.005
"""Of the atlas, which gives none."""

MASKED = 1.0
"""Uncertainty from which a pixel of binspec is unusable: about 100 marks one."""


def arcturus(path: Path) -> st.Spectra:
    """From wavelengths in air to a normalised spectrum at rest on APOGEE's grid."""
    wave, flux = np.loadtxt(path, unpack=True)
    wave = st.at_rest(wave, VELOCITY, air=True)
    error = np.full_like(flux, ATLAS_ERROR)
    flux, _ = st.to_resolution(wave, flux, error, APOGEE, of=ATLAS)
    flux, _ = st.resample(wave, flux, error, apogee.grid())
    # Photon noise is far below what the atlas does to the continuum, over all of APOGEE's pixels.
    error = np.where(np.isfinite(flux), ATLAS_ERROR, np.inf)
    return st.spectra(
        apogee.grid(), *st.normalise(flux, error, apogee.continuum_pixels(), apogee.ranges())
    )


def binaries(folder: Path) -> st.Spectra:
    """The spectra of binspec, normalised already, on the pixels that the two grids share."""
    (combined,) = folder.glob("spectrum_ap_id_*.npz")
    (visits,) = folder.glob("visit_spectra_ap_id_*.npz")
    with np.load(combined, allow_pickle=False) as one, np.load(visits, allow_pickle=False) as many:
        flux = np.concatenate([one["spectrum"][None], many["spectra"]])
        error = np.concatenate([one["spec_err"][None], many["spec_errs"]])
    out = np.full((len(flux), apogee.grid().size), np.nan)
    noise = np.full_like(out, np.inf)
    out[:, on_both_grids()], noise[:, on_both_grids()] = flux, error
    return st.spectra(apogee.grid(), out, np.where(noise < MASKED, noise, np.inf))


def on_both_grids() -> np.ndarray:
    """[pixel] of DR17 whether it is one of DR12."""
    return np.isin(np.round(apogee.grid(), 6), np.round(apogee.grid(12), 6))


def observed(folder: Path) -> dict[str, st.Spectra]:
    """One spectrum each, without the pixels that the training has not."""
    (visit,) = (folder / "visits").glob("apVisit*.fits")
    found = {
        "Arcturus": arcturus(folder / "observed_arcturus.txt"),
        "apVisit, a dwarf": apogee.read_apogee(visit),
    }
    both = binaries(folder)
    found |= {f"binspec {i}, a dwarf": both.take([i]) for i in range(len(both))}
    lost = ~on_both_grids()
    for name, star in found.items():
        flux, error = star.flux.copy(), np.nan_to_num(star.error, nan=np.inf)
        flux[:, lost], error[:, lost] = np.nan, np.inf
        found[name] = st.spectra(star.wave, flux, error, source=name)
    return found


def cannon_of(path: Path, stars: int) -> st.Cannon:
    """The quadratic model of four labels."""
    train = st.read_spectra(path).take(slice(0, stars))
    place = [train.names.index(name) for name in LABELS]
    assert train.labels is not None and train.label_error is not None
    return st.fit_cannon(
        dataclasses.replace(
            train, names=LABELS, labels=train.labels[:, place],
            label_error=train.label_error[:, place],
        )
    )  # fmt: skip


def row_of(names: tuple[str, ...], found: st.Labels) -> dict[str, Any]:
    """Labels of the first star."""
    labels = {n: [float(found.value[0, j]), float(found.std[0, j])] for j, n in enumerate(names)}
    return {"labels": labels, "distance": float(found.distance[0]),
            "flag": int(found.flag[0]), "flag_text": flag_text(int(found.flag[0]))}  # fmt: skip


def main() -> None:
    """Read, predict, draw, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--stars", type=int, default=2000, help="of the Cannon's fit")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    network = model.StarModel.load(options.model)
    cannon = cannon_of(options.training, options.stars)
    key = jax.random.key(options.seed)
    table = Table("star", "by", *LABELS, "distance, or chi2 per pixel", "flag",
                  title="trained on semi-synthetic giants")  # fmt: skip
    out: dict[str, Any] = {}
    for name, star in observed(options.folder).items():
        by_cannon = cannon_labels(key, cannon, star)
        rows = {
            network.record.kind: row_of(
                network.record.labels, network.predict(key, star, flux_errors=True)
            ),
            "cannon": row_of(LABELS, by_cannon),
        }
        known = LITERATURE.get(name, {})
        if known:
            rows["literature"] = {"labels": {n: list(v) for n, v in known.items()}}
        out[name] = rows
        for by, row in rows.items():
            cells = [
                f"{row['labels'][n][0]:.4g} ± {row['labels'][n][1]:.2g}"
                if n in row["labels"] else ""
                for n in LABELS
            ]  # fmt: skip
            distance = f"{row['distance']:.2f}" if "distance" in row else ""
            table.add_row(name, by, *cells, distance, row.get("flag_text", ""))
        best = cannon(cannon.theta(jnp.asarray(by_cannon.value[0], jnp.float32)))
        figure = plots.star_spectrum(
            star.wave, star.flux[0],
            model=np.where(np.isfinite(star.flux[0]), best, np.nan),
            title=f"{name}: the Cannon's best {by_cannon.value[0, 0]:.0f} K, "
                  f"log g {by_cannon.value[0, 1]:.2f}, [Fe/H] {by_cannon.value[0, 2]:.2f}",
        )  # fmt: skip
        figure.savefig(options.output / f"{name.split(',')[0].replace(' ', '_').lower()}.png")
    Console(width=140).print(table)
    (options.output / "observed_stars.json").write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
