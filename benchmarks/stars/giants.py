"""Labels of real giants: our networks, the Cannon and ridge regression, by cross-validation.

    python -m benchmarks.stars.giants GIANTS.npz --json OUT.json

GIANTS.npz holds `flux`, `flux_uncertainty`, `wave_A` and `teff_logg_mh` of APOGEE giants (the 471
of AnniesLasso, 100 pixels).  Every star is predicted by a model that was trained on nine tenths of
the others; given are the standard deviation of the differences and, beside it, the robust scatter,
in which published comparisons are made.  Coverage is that of the 68.3 % and 95.4 % intervals.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import stars as st
from jaxsed.cli import prepare_process
from jaxsed.learn import FitSettings
from jaxsed.stars.networks import PUBLISHED, Architecture
from jaxsed.workflows.stars import cannon_labels

FOLDS = 10
LABELS = ("teff", "logg", "fe")
SCHEDULE = FitSettings(
    optimizer="adam", learning_rates=(1e-3, 3e-4, 1e-4), batch_size=32, epochs=150, patience=15
)
WIDE = Architecture(filters=(8, 8), dense=(128, 64), dropout=0.1, scale=None)
"""For a hundred pixels: fewer weights and less dropout than the network for whole spectra."""


def read(path: Path) -> st.Spectra:
    """The giants."""
    with np.load(path, allow_pickle=False) as data:
        return st.spectra(
            data["wave_A"], data["flux"], data["flux_uncertainty"], names=LABELS,
            labels=data["teff_logg_mh"],
        )  # fmt: skip


def ridge(train: st.Spectra, test: st.Spectra, strength: float = 7e-5) -> np.ndarray:
    """[star, label] by ridge regression on the flux; no uncertainties."""
    mean, x = train.flux.mean(axis=0), train.flux - train.flux.mean(axis=0)
    y = train.labels - train.labels.mean(axis=0)
    normal = x.T @ x + strength * len(x) * np.eye(x.shape[1])
    return train.labels.mean(axis=0) + (test.flux - mean) @ np.linalg.solve(normal, x.T @ y)


def network(kind: str, settings: st.StarSettings) -> Any:
    """A method: (key, training, test) -> (values, uncertainties)."""

    def run(key: Any, train: st.Spectra, test: st.Spectra) -> tuple[np.ndarray, np.ndarray]:
        key_train, key_predict = jax.random.split(key)
        model, _ = st.train(key_train, train, kind, settings=settings, progress=False)
        found = model.predict(key_predict, test)
        return found.value, found.std

    return run


def cannon(key: Any, train: st.Spectra, test: st.Spectra) -> tuple[np.ndarray, np.ndarray]:
    """The quadratic model, its labels by Gaussian approximation."""
    found = cannon_labels(key, st.fit_cannon(train), test)
    return found.value, found.std


def methods() -> dict[str, Any]:
    """By the name in the table."""
    settings = st.StarSettings(fit=SCHEDULE)
    change = dataclasses.replace
    return {
        "ridge": lambda key, train, test: (ridge(train, test), np.full((len(test), 3), np.nan)),
        "cannon": cannon,
        "starnet": network("starnet", change(settings, architecture=PUBLISHED["starnet"])),
        "bcnn": network("bcnn", settings),
        "bcnn, wide": network("bcnn", change(settings, architecture=WIDE)),
        "bcnn, wide, ensemble of 5": network(
            "bcnn", change(settings, architecture=WIDE, members=5)
        ),
    }


def judge(values: np.ndarray, std: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scatter, coverage and the mean log density of the truth."""
    gap = values - truth
    pull = gap / std
    return {
        "scatter": gap.std(axis=0).tolist(),
        "robust": [st.robust_scatter(g) for g in gap.T],
        "bias": gap.mean(axis=0).tolist(),
        "coverage": st.coverage(values, std, truth).tolist(),
        "nll": (0.5 * pull**2 + np.log(std) + 0.5 * np.log(2 * np.pi)).mean(axis=0).tolist(),
    }


def main() -> None:
    """Fit, print, write after every method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("giants", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(methods()), choices=list(methods()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    prepare_process()
    stars = read(options.giants)
    order = np.random.default_rng(options.seed).permutation(len(stars))
    table = Table("method", *(f"{n}: scatter (robust)" for n in LABELS), "68 %", "95 %", "s")
    out: dict[str, Any] = {}
    for name in options.methods:
        values, std = np.full((2, len(stars), len(LABELS)), np.nan)
        begun = time.perf_counter()
        for fold in range(FOLDS):
            test = order[fold::FOLDS]
            train = np.setdiff1d(order, test)
            key = jax.random.fold_in(jax.random.key(options.seed), fold)
            values[test], std[test] = methods()[name](key, stars.take(train), stars.take(test))
        found = judge(values, std, np.asarray(stars.labels))
        found["seconds"] = time.perf_counter() - begun
        out[name] = found
        pairs = zip(found["scatter"], found["robust"], strict=True)
        inside = [" ".join(f"{c:.2f}" for c in row) for row in found["coverage"]]
        table.add_row(
            name, *(f"{a:.3g} ({b:.3g})" for a, b in pairs), *inside, f"{found['seconds']:.0f}"
        )
        Console().print(table)
        if options.json:
            options.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
