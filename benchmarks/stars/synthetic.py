"""Semi-synthetic APOGEE spectra with known labels: what the benchmarks of networks train on.

    python -m benchmarks.stars.synthetic FOLDER --output OUT

No real spectra: each is a data-driven Cannon model of APOGEE giants (jobovy/apogee) at the
temperature, gravity, metallicity and alpha enhancement of a real star (The Cannon's catalogue of
DR12), whose lines deepen by 10^(s d) in the window of an element that is enhanced by d dex (s is
0.5, and 0.1 for carbon and nitrogen, whose windows cover half of the spectrum).  Noise is that of
real signal-to-noise ratios and of the Cannon's own scatter.  Labels carry the errors and gaps of a
pipeline; the truth is stored beside them.  FOLDER holds `cannon_model/` and `labels/`.

Writes `train.h5` (S/N above 200), `high.h5` (100 to 200), `low.h5` (20 to 100: the stars of
`high.h5` again) and `anti.h5` (aluminium raised where magnesium is lowered).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table

from jaxsed import stars as st
from jaxsed.stars import apogee

ELEMENTS = ("C", "CI", "N", "O", "Na", "Mg", "Al", "Si", "P", "S", "K", "Ca", "Ti", "TiII", "V",
            "Cr", "Mn", "Co", "Ni")  # fmt: skip
NAMES = ("teff", "logg", *ELEMENTS[:16], "Mn", "fe", "Co", "Ni")
ALPHA = {"O", "Mg", "Si", "S", "Ca", "Ti", "TiII"}
SPREAD = {"C": 0.1, "CI": 0.1, "N": 0.15, "Na": 0.12, "Al": 0.12, "P": 0.15, "K": 0.1, "V": 0.1,
          "Mn": 0.1, "Co": 0.12}  # fmt: skip
"""Scatter of [X/Fe] in dex, 0.05 for the others."""
ERROR = {"teff": 20.0, "logg": 0.05, "fe": 0.02, "Na": 0.06, "P": 0.08, "S": 0.05, "V": 0.05,
         "Co": 0.06, "TiII": 0.05}  # fmt: skip
"""Of the labels, 0.03 dex for the others."""
GAPS = {"P": 0.25, "Na": 0.12, "Co": 0.12, "S": 0.06, "V": 0.06, "TiII": 0.06, "K": 0.04}
"""Share of the labels that are missing, 0.02 for the other elements."""
RESPONSE = {"C": 0.1, "N": 0.1}
ANTI = 0.4
"""dex by which aluminium rises, and magnesium falls by half of it."""


class Generator:
    """Spectra on the DR17 grid from stellar parameters and element ratios."""

    def __init__(self, folder: Path) -> None:
        stem = folder / "cannon_model" / "trained_apokasc_gc_ind_feh_fix"
        self.coefficients = np.loadtxt(f"{stem}.txt")
        self.baseline = np.loadtxt(f"{stem}_baseline_labels.txt")
        scatter = np.loadtxt(f"{stem}_scatter.txt")
        full = np.zeros(8575)
        chips = np.concatenate([np.arange(a, b) for a, b in apogee.chips_of(12)])
        self.inside = np.isin(np.round(apogee.full_grid(), 6), np.round(apogee.grid(12), 6))
        full[chips] = scatter
        keep = np.concatenate([np.arange(a, b) for a, b in apogee.chips_of(17)])
        self.inside = self.inside[keep]
        self.scatter = full[keep]
        self.windows = apogee.windows(17)

    def __call__(self, four: np.ndarray, ratios: dict[str, np.ndarray]) -> np.ndarray:
        """[star, pixel] noiseless flux; `four` [star, 4] and [X/Fe] [star] of each element."""
        x = four - self.baseline
        i, j = np.triu_indices(4)
        design = np.concatenate([np.ones((len(x), 1)), x, x[:, i] * x[:, j]], axis=1)
        flux = np.ones((len(x), self.inside.size))
        flux[:, self.inside] = design @ self.coefficients
        depth = np.maximum(1 - flux, 0.0)
        log_growth = np.zeros_like(flux)
        for name, ratio in ratios.items():
            excess = ratio - (four[:, 3] if name in ALPHA else 0.0)
            log_growth += RESPONSE.get(name, 0.5) * excess[:, None] * self.windows[name]
        return flux - depth * (10**log_growth - 1)


def real_labels(folder: Path, generator: np.random.Generator, n: int) -> tuple[Any, Any]:
    """[star, 4] parameters of real giants, each moved a little, and real S/N ratios [star]."""
    table = Table.read(folder / "labels" / "apogee_dr12_labels_TheCannon.csv", format="ascii.csv")
    four = np.stack([table[c] for c in ("teff", "logg", "mh", "alpha")], axis=1).astype(float)
    good = (four[:, 0] > 4000) & (four[:, 0] < 5500) & (four[:, 1] < 4) & (four[:, 2] > -1.2)
    four, snr = four[good], np.asarray(table["snr"], float)[good]
    chosen = generator.integers(len(four), size=n)
    return four[chosen] + generator.normal(size=(n, 4)) * [20, 0.04, 0.02, 0.01], snr[chosen]


def element_ratios(four: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """[X/Fe] of each star; nitrogen rises where carbon falls, as mixing does it."""
    normal = lambda name: SPREAD.get(name, 0.05) * generator.normal(size=len(four))  # noqa: E731
    ratios = {n: normal(n) + (four[:, 3] if n in ALPHA else 0.0) for n in ELEMENTS}
    ratios["N"] = 0.2 - 0.8 * ratios["C"] + normal("N") / 2
    ratios["CI"] = ratios["C"] + 0.3 * normal("CI")
    ratios["TiII"] = ratios["Ti"] + 0.5 * normal("TiII")
    return ratios


def stars_of(
    make: Generator, four: Any, ratios: Any, snr: np.ndarray, generator: np.random.Generator
) -> tuple[st.Spectra, np.ndarray]:
    """Noisy spectra with a pipeline's labels, and the true labels [star, label]."""
    error = np.hypot(1 / snr[:, None], make.scatter)
    flux = make(four, ratios) + error * generator.normal(size=(len(four), make.inside.size))
    parameters = {"teff": four[:, 0], "logg": four[:, 1], "fe": four[:, 2]}
    truth = np.stack([parameters.get(n, four[:, 2] + ratios.get(n, 0.0)) for n in NAMES], axis=1)
    sigma = np.array([ERROR.get(n, 0.03) for n in NAMES])
    labels = truth + sigma * generator.normal(size=truth.shape)
    share = [0.0 if n in parameters else GAPS.get(n, 0.02) for n in NAMES]
    labels[generator.random(labels.shape) < share] = np.nan
    found = st.spectra(
        apogee.grid(), flux, np.broadcast_to(1 / snr[:, None], flux.shape), names=NAMES,
        labels=labels, label_error=np.broadcast_to(sigma, labels.shape),
        windows={n: w for n, w in make.windows.items() if n in NAMES},
    )  # fmt: skip
    return found, truth


def main() -> None:
    """Draw, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stars", type=int, default=9000, help="for training")
    parser.add_argument("--tests", type=int, default=1000, help="in each of the test sets")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(options.seed)
    make = Generator(options.folder)
    _, snr = real_labels(options.folder, generator, 50_000)
    ranges = {"train": (200, 400), "high": (100, 200), "low": (20, 100), "anti": (100, 200)}
    drawn: dict[str, Any] = {}
    for name, (low, high) in ranges.items():
        n = options.stars if name == "train" else options.tests
        if name == "low":
            four, ratios = drawn["high"]
        else:
            four, _ = real_labels(options.folder, generator, n)
            ratios = element_ratios(four, generator)
        if name == "anti":
            raised = generator.random(n) * ANTI
            ratios["Al"], ratios["Mg"] = ratios["Al"] + raised, ratios["Mg"] - raised / 2
        drawn[name] = four, ratios
        # The paper counts all above 400 as 400; below 100 few real stars are left.
        seen = np.minimum(snr, 400)
        seen = seen[(seen >= low) & (seen <= high)]
        chosen = generator.choice(seen, n) if name != "low" else generator.uniform(low, high, n)
        found, truth = stars_of(make, four, ratios, chosen, generator)
        path = options.output / f"{name}.h5"
        st.write_spectra(path, found)
        with h5py.File(path, "a") as file:
            file["truth"], file["snr"] = truth, chosen
        print(f"{path}: {n} stars, S/N {chosen.min():.0f} to {chosen.max():.0f}")


if __name__ == "__main__":
    main()
