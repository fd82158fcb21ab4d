"""How well networks label semi-synthetic APOGEE spectra: the tests of Leung & Bovy (2018).

    python -m benchmarks.stars.synthetic FOLDER --output SET
    python -m benchmarks.stars.apogee SET --output OUT --sizes 1000 2000 4000 8000

The spectra are not real: see `synthetic.py`.  Trained networks are kept in OUT, the figures
and `apogee.json` beside them.  Measured against the truth: bias and robust scatter of every label
at high and low signal-to-noise (their tables 1 and 2); scatter against the size of the training
(table 3); uncertainty against signal-to-noise, and coverage; how the uncertainty grows outside the
training's temperatures (as in figure 7), for a network trained between 4300 and 5000 K; whether an
anti-correlation of aluminium and magnesium that no training star has survives (figure 16); and what
dropout, a Laplace layer and an ensemble say of their uncertainties, on 2000 training stars.

Every uncertainty has the flux errors propagated to first order, and every network is calibrated in
that way on the same stars of high signal-to-noise, which no training has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.stars import apogee_figures
from jaxsed import stars as st
from jaxsed.cli import prepare_process
from jaxsed.learn import FitSettings
from jaxsed.stars import model

COOL, WARM = 4300.0, 5000.0
"""Temperatures of the restricted training."""

COMPARED = 2000
"""Training stars of the networks whose uncertainties are compared."""

MEMBERS = 3
"""Of the ensemble."""

HELD = slice(8000, None)
"""Stars of the training set that no training has."""

BINS = np.arange(4000.0, 5501.0, 125.0)
"""Of temperatures."""

QUARTERS = 4
"""Bins of signal-to-noise ratios."""


def read(path: Path) -> tuple[st.Spectra, np.ndarray, np.ndarray]:
    """Spectra, true labels, signal-to-noise ratios."""
    with h5py.File(path) as file:
        return st.read_spectra(path), file["truth"][()], file["snr"][()]


def trained(
    path: Path, stars: st.Spectra, kind: str, options: argparse.Namespace, members: int = 1
) -> st.StarModel:
    """A network, from its file if it is there."""
    if path.exists():
        return model.StarModel.load(path)
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


def labelled(network: st.StarModel, key: Any, stars: st.Spectra, draws: int = 100) -> st.Labels:
    """Labels, the flux errors in their uncertainties: all of this benchmark are made here."""
    return network.predict(key, stars, draws=draws, flux_errors=True)


def judged(found: st.Labels, truth: np.ndarray) -> dict[str, Any]:
    """Bias, robust scatter, coverage and median uncertainty per label."""
    gap = found.value - truth
    return {
        "stars": len(truth),
        "bias": np.median(gap, axis=0).tolist(),
        "scatter": [st.robust_scatter(g) for g in gap.T],
        "coverage": st.coverage(found.value, found.std, truth).tolist(),
        "std": np.median(found.std, axis=0).tolist(),
        "flagged": float((found.flag != 0).mean()),
    }


def some(found: st.Labels, chosen: np.ndarray) -> st.Labels:
    """Some of the stars."""
    return st.Labels(*(column[chosen] for column in found))


def by_signal(found: st.Labels, truth: np.ndarray, signal: np.ndarray) -> list[dict[str, Any]]:
    """Quarters of the stars, from low to high signal-to-noise ratios."""
    edges = np.quantile(signal, np.linspace(0, 1, QUARTERS + 1))
    place = np.clip(np.digitize(signal, edges) - 1, 0, QUARTERS - 1)
    return [
        {"snr": float(np.median(signal[place == i]))}
        | judged(some(found, place == i), truth[place == i])
        for i in range(QUARTERS)
    ]


def outside(found: st.Labels, truth: np.ndarray, teff: np.ndarray) -> dict[str, Any]:
    """Of the network with the restricted training, inside and outside and in bins of `teff`."""
    inside = (teff > COOL) & (teff < WARM)
    out: dict[str, Any] = {
        where: judged(some(found, chosen), truth[chosen])
        for where, chosen in (("inside", inside), ("outside", ~inside))
    }
    out["bins"] = []
    for low, high in zip(BINS[:-1], BINS[1:], strict=True):
        chosen = (teff >= low) & (teff < high)
        if chosen.sum() >= 5:
            row = {"teff": float(np.median(teff[chosen]))}
            out["bins"].append(row | judged(some(found, chosen), truth[chosen]))
    return out


def ratios_of(value: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """[star, 2] of [Mg/Fe] and [Al/Fe]."""
    iron = value[:, names.index("fe")]
    return np.stack([value[:, names.index(n)] - iron for n in ("Mg", "Al")], axis=1)


def trend(ratios: np.ndarray) -> dict[str, float]:
    """Slope of [Al/Fe] against [Mg/Fe], and their correlation."""
    return {
        "slope": float(np.polyfit(*ratios.T, 1)[0]),
        "correlation": float(np.corrcoef(ratios.T)[0, 1]),
    }


def quality(value: np.ndarray, std: np.ndarray, truth: np.ndarray, scale: Any) -> dict[str, Any]:
    """Means over the labels: coverage, and minus the log density of the truth in standard units."""
    density = 0.5 * ((truth - value) / std) ** 2 + np.log(std / scale) + 0.5 * np.log(2 * np.pi)
    return {
        "coverage": st.coverage(value, std, truth).mean(axis=1).tolist(),
        "nll": float(density.mean()),
    }


def uncertainties(
    network: st.StarModel, ensemble: st.StarModel, train: st.Spectra, held: st.Spectra, tests: Any,
    key: Any,
) -> dict[str, Any]:  # fmt: skip
    """Dropout, a Laplace layer, and ensembles without and with dropout, each calibrated alike."""
    laplace = st.with_laplace(network, train.take(slice(0, COMPARED)), held)
    methods = {
        "dropout": (network, 100), "without dropout": (network, 0), "Laplace": (laplace, 0),
        f"ensemble of {MEMBERS}": (ensemble, 0),
        f"ensemble of {MEMBERS}, dropout": (ensemble, 100),
    }  # fmt: skip
    out: dict[str, Any] = {}
    for name, (found, draws) in methods.items():
        fitted = st.calibrated(found, key, held, draws=draws)
        bare = dataclasses.replace(
            found, calibration_flux=jnp.ones_like(fitted.calibration_flux)
        )
        out[name] = {"factors": np.asarray(fitted.calibration_flux).tolist()}
        for test in ("high", "low"):
            stars, truth, _ = tests[test]
            labels = labelled(bare, key, stars, draws)
            scale = np.asarray(network.scaling.std)
            gap = (labels.value - truth) / scale
            own = np.hypot(labels.std_model, labels.std_predictive)
            std = np.hypot(np.asarray(fitted.calibration_flux) * own, labels.std_flux)
            out[name][test] = {
                "scatter": float(np.mean([st.robust_scatter(g) for g in gap.T])),
                "alone": quality(labels.value, labels.std, truth, scale),
                "calibrated": quality(labels.value, std, truth, scale),
            }
    return out


def main() -> None:
    """Train what is missing, measure, print, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["censored", "bcnn"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8000])
    parser.add_argument("--kept", action="store_true", help="leave out what is not trained yet")
    parser.add_argument("--epochs", type=int, default=60, help="with 8000 stars; more with fewer")
    parser.add_argument("--noise", type=float, default=8.0, help="added to the training spectra")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    train, _, _ = read(options.set / "train.h5")
    tests = {name: read(options.set / f"{name}.h5") for name in ("high", "low", "anti")}
    names, key, held = train.names, jax.random.key(options.seed + 1), train.take(HELD)
    stars, truth, _ = tests["anti"]
    out: dict[str, Any] = {"labels": names, "networks": {}, "al_mg": {}}
    planes = {"training": ratios_of(np.asarray(train.labels), names),
              "truth": ratios_of(truth, names)}  # fmt: skip
    out["al_mg"]["truth"] = trend(planes["truth"])
    path_of = lambda kind, what: options.output / f"{kind}_{what}.h5"  # noqa: E731
    wanted = lambda path: path.exists() or not options.kept  # noqa: E731
    for kind in options.networks:
        sizes = sorted(n for n in options.sizes if wanted(path_of(kind, n)))
        row: dict[str, Any] = {"sizes": {}}
        for size in sizes:
            chosen = train.take(np.arange(size))
            network = trained(path_of(kind, size), chosen, kind, options)
            network = st.calibrated(network, key, held)
            row["sizes"][size] = {}
            for name in ("high", "low"):
                found = labelled(network, key, tests[name][0])
                row["sizes"][size][name] = judged(found, tests[name][1])
            # That of the biggest training remains.
            row["by_signal"] = by_signal(found, *tests["low"][1:])
        if sizes:
            planes[kind] = ratios_of(labelled(network, key, stars).value, names)
            out["al_mg"][kind] = trend(planes[kind])
        if wanted(path_of(kind, "narrow")):
            teff = np.asarray(train.labels)[:, names.index("teff")]
            rows = np.flatnonzero((teff > COOL) & (teff < WARM))[: max(options.sizes)]
            narrow = trained(path_of(kind, "narrow"), train.take(rows), kind, options)
            at = np.asarray(held.labels)[:, names.index("teff")]
            known = held.take(np.flatnonzero((at > COOL) & (at < WARM)))
            narrow = st.calibrated(narrow, key, known)
            high, high_truth, _ = tests["high"]
            row["outside"] = outside(
                labelled(narrow, key, high), high_truth, high_truth[:, names.index("teff")]
            )
        if kind == "censored" and COMPARED in sizes and wanted(path_of(kind, "ensemble")):
            chosen = train.take(np.arange(COMPARED))
            row["uncertainties"] = uncertainties(
                trained(path_of(kind, COMPARED), chosen, kind, options),
                trained(path_of(kind, "ensemble"), chosen, kind, options, MEMBERS),
                train, held, tests, key,
            )  # fmt: skip
        out["networks"][kind] = row
        show(kind, row, names)
        (options.output / "apogee.json").write_text(json.dumps(out, indent=1))
    for name, found in out["al_mg"].items():
        print(f"[Al/Fe] against [Mg/Fe], {name}: slope {found['slope']:.2f}, "
              f"correlation {found['correlation']:.2f}")  # fmt: skip
    apogee_figures.draw(out, planes, (COOL, WARM), options.output)


def show(kind: str, row: dict[str, Any], names: tuple[str, ...]) -> None:
    """The tables of a network."""
    console, sizes = Console(width=160), list(row["sizes"])
    if sizes:
        table = Table("label", "high: bias", "scatter", "68 %", "low: bias", "scatter", "68 %",
                      *(f"{n} stars" for n in sizes), title=kind)  # fmt: skip
        for j, name in enumerate(names):
            cells = []
            for test in ("high", "low"):
                found = row["sizes"][sizes[-1]][test]
                cells += [f"{found['bias'][j]:+.3g}", f"{found['scatter'][j]:.3g}"]
                cells += [f"{found['coverage'][0][j]:.2f}"]
            cells += [f"{row['sizes'][n]['high']['scatter'][j]:.3g}" for n in sizes]
            table.add_row(name, *cells)
        console.print(table)
    if "outside" in row:
        chosen = [names.index(n) for n in ("teff", "logg", "fe")]
        table = Table("true T_eff", "stars", *(f"std {names[j]}" for j in chosen),
                      *(f"scatter {names[j]}" for j in chosen), "flagged",
                      title=f"{kind}, trained between {COOL:.0f} and {WARM:.0f} K")  # fmt: skip
        bins = [(f"{b['teff']:.0f}", b) for b in row["outside"]["bins"]]
        for name, b in [*bins, *((w, row["outside"][w]) for w in ("inside", "outside"))]:
            table.add_row(name, str(b["stars"]), *(f"{b['std'][j]:.3g}" for j in chosen),
                          *(f"{b['scatter'][j]:.3g}" for j in chosen),
                          f"{b['flagged']:.0%}")  # fmt: skip
        console.print(table)
    if "uncertainties" in row:
        table = Table("uncertainties by", "test", "scatter [std]", "alone: 68 %", "95 %", "nll",
                      "calibrated: 68 %", "95 %", "nll",
                      title=f"{kind}, {COMPARED} training stars, means over labels")  # fmt: skip
        for name, found in row["uncertainties"].items():
            for test in ("high", "low"):
                cells = [f"{found[test]['scatter']:.3f}"]
                for how in ("alone", "calibrated"):
                    q = found[test][how]
                    cells += [f"{c:.3f}" for c in q["coverage"]] + [f"{q['nll']:.3f}"]
                table.add_row(name, test, *cells)
        console.print(table)


if __name__ == "__main__":
    main()
