"""How well networks label semi-synthetic APOGEE spectra: the tests of Leung & Bovy (2018).

    python benchmarks/synthetic_stars.py FOLDER --output SET
    python benchmarks/apogee.py SET --output OUT --sizes 1000 2000 4000 8000

The spectra are not real: see `synthetic_stars.py`.  Trained networks are kept in OUT.  Measured:
bias and robust scatter of every label at high and low signal-to-noise (their tables 1 and 2)
against the truth; scatter against the size of the training (table 3); uncertainty against
signal-to-noise, and coverage; how the uncertainty grows outside the training's temperatures (figure
7), for a network trained between 4300 and 5000 K; and whether an anti-correlation of aluminium and
magnesium that no training star has survives (figure 16).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import stars as st
from jaxsed.cli import prepare_process
from jaxsed.learn import FitSettings
from jaxsed.stars import model

COOL, WARM = 4300.0, 5000.0
"""Temperatures of the restricted training."""


def read(path: Path) -> tuple[st.Spectra, np.ndarray, np.ndarray]:
    """Spectra, true labels, signal-to-noise ratios."""
    with h5py.File(path) as file:
        return st.read_spectra(path), file["truth"][()], file["snr"][()]


def trained(
    path: Path, stars: st.Spectra, kind: str, options: argparse.Namespace, members: int = 1
) -> st.StarModel:
    """A network, from its file if it is there."""
    if path.exists():
        return model.load(path)
    # Fewer stars make shorter epochs: the number of steps falls as the root of their number.
    epochs = round(options.epochs * max(1.0, (8000 / len(stars)) ** 0.5))
    settings = st.StarSettings(
        noise=options.noise,
        members=members,
        fit=FitSettings(
            optimizer="adam", schedule="cosine", learning_rates=(1e-3, 1e-5), batch_size=64,
            epochs=epochs, patience=epochs,
        ),
    )  # fmt: skip
    begun = time.perf_counter()
    found, histories = st.train(
        jax.random.key(options.seed), stars, kind, settings=settings,
        checkpoint=f"{path}.checkpoint",
    )  # fmt: skip
    found.save(path)
    losses = ", ".join(f"{h.best_loss:.3f}" for h in histories)
    print(f"{path}: {time.perf_counter() - begun:.0f} s, {epochs} epochs, validation loss {losses}")
    return found


def judged(found: st.Labels, truth: np.ndarray) -> dict[str, Any]:
    """Bias, robust scatter, coverage and median uncertainty per label."""
    gap = found.value - truth
    return {
        "bias": np.median(gap, axis=0).tolist(),
        "scatter": [st.robust_scatter(g) for g in gap.T],
        "coverage": st.coverage(found.value, found.std, truth).tolist(),
        "std": np.median(found.std, axis=0).tolist(),
        "flagged": float((found.flag != 0).mean()),
    }


def slope_of(value: np.ndarray, names: tuple[str, ...]) -> float:
    """Of [Al/Fe] against [Mg/Fe]."""
    iron = value[:, names.index("fe")]
    mg, al = (value[:, names.index(n)] - iron for n in ("Mg", "Al"))
    return float(np.polyfit(mg, al, 1)[0])


def main() -> None:
    """Train what is missing, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["censored", "bcnn"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8000])
    parser.add_argument("--epochs", type=int, default=60, help="with 8000 stars; more with fewer")
    parser.add_argument("--noise", type=float, default=8.0, help="added to the training spectra")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    train, _, _ = read(options.set / "train.h5")
    tests = {name: read(options.set / f"{name}.h5") for name in ("high", "low", "anti")}
    names, key = train.names, jax.random.key(options.seed + 1)
    out: dict[str, Any] = {"labels": names}
    for kind in options.networks:
        row: dict[str, Any] = {"sizes": {}}
        out[kind] = row
        for size in options.sizes:
            path = options.output / f"{kind}_{size}.h5"
            network = trained(path, train.take(np.arange(size)), kind, options)
            row["sizes"][size] = {}
            for name in ("high", "low"):
                stars, truth, _ = tests[name]
                found = network.predict(key, stars, flux_errors=True)
                row["sizes"][size][name] = judged(found, truth)
                if name == "low":
                    signal = tests["low"][2]
                    edges = np.quantile(signal, np.linspace(0, 1, 5))
                    place = np.clip(np.digitize(signal, edges) - 1, 0, 3)
                    row["std_by_snr"] = [
                        {"snr": float(np.median(signal[place == i])),
                         "std": np.median(found.std[place == i], axis=0).tolist(),
                         "scatter": [st.robust_scatter(g)
                                     for g in (found.value - truth)[place == i].T]}
                        for i in range(4)
                    ]  # fmt: skip
        stars, truth, _ = tests["anti"]
        row["al_mg"] = {
            "true": slope_of(truth, names),
            "found": slope_of(network.predict(key, stars).value, names),
        }
        teff = np.asarray(train.labels)[:, names.index("teff")]
        middle = train.take(np.flatnonzero((teff > COOL) & (teff < WARM))[: max(options.sizes)])
        narrow = trained(options.output / f"{kind}_narrow.h5", middle, kind, options)
        stars, truth, _ = tests["high"]
        found = narrow.predict(key, stars)
        true_teff = truth[:, names.index("teff")]
        inside = (true_teff > COOL) & (true_teff < WARM)
        row["outside"] = {
            where: judged(some(found, chosen), truth[chosen])
            for where, chosen in (("inside", inside), ("outside", ~inside))
        }
        show(kind, row, names, options.sizes)
        (options.output / "apogee.json").write_text(json.dumps(out, indent=1))


def some(found: st.Labels, chosen: np.ndarray) -> st.Labels:
    """Some of the stars."""
    return st.Labels(*(column[chosen] for column in found))


def show(kind: str, row: dict[str, Any], names: tuple[str, ...], sizes: list[int]) -> None:
    """The table of a network."""
    last = row["sizes"][sizes[-1]]
    table = Table(
        "label", "high: bias", "scatter", "68 %", "low: bias", "scatter", "68 %",
        *(f"{n} stars" for n in sizes), "outside / inside", title=kind,
    )  # fmt: skip
    inside, outside = row["outside"]["inside"], row["outside"]["outside"]
    for j, name in enumerate(names):
        cells = []
        for test in ("high", "low"):
            found = last[test]
            cells += [f"{found['bias'][j]:+.3g}", f"{found['scatter'][j]:.3g}"]
            cells += [f"{found['coverage'][0][j]:.2f}"]
        cells += [f"{row['sizes'][n]['high']['scatter'][j]:.3g}" for n in sizes]
        table.add_row(name, *cells, f"{outside['std'][j] / inside['std'][j]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"[Al/Fe] against [Mg/Fe]: slope {row['al_mg']['found']:.2f}, "
                  f"true {row['al_mg']['true']:.2f}; flagged outside "
                  f"{outside['flagged']:.0%}, inside {inside['flagged']:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
