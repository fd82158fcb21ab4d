"""Networks of halos where the universe is another than that of the training.

    python -m benchmarks.halos.generalisation FOLDER --output OUT

FOLDER holds `camels_astrid_25mpc_dev.npz` and `mini_millennium_z0.npz`.  For each of three
parameters of CAMELS-ASTRID (Omega_m, sigma_8, the strength of winds) models are trained on the
boxes with the lowest three quarters of it, but for some that measure them where they know, and
judged on the boxes of the highest quarter.  Last, models that see peak velocities alone are trained
on all of CAMELS and judged on boxes of mini-Millennium with the galaxies of SAGE: another
simulation, and another law of galaxies.  Trained networks are kept in OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.halos import data as halo_data
from benchmarks.halos.boxes import judged
from jaxsed import halos as ha
from jaxsed.cli import prepare_process
from jaxsed.halos import model

PARAMETERS = {"Omega_m": 0, "sigma_8": 1, "winds": 2}
"""Columns of the parameters of CAMELS."""

SHARE = 0.75
"""Of the boxes, those with the lowest values, that are inside."""

KNOWN = 100
"""Boxes inside that no training sees."""


def fitted(path: Path, kind: str, train: ha.Halos, features: Any, options: Any) -> Any:
    """A model, from its file if it is a network that is there."""
    if kind != "resnet":
        return ha.fit_baseline(train, kind, features=features, seed=options.seed)
    if path.exists():
        return model.HaloModel.load(path)
    settings = ha.HaloSettings(features=features)
    fit = dataclasses.replace(settings.fit, epochs=options.epochs, patience=options.epochs)
    found, _ = ha.train(
        jax.random.key(options.seed), train, settings=dataclasses.replace(settings, fit=fit)
    )
    found.save(path)
    return found


def tested(fit: Any, test: ha.Halos) -> dict[str, float]:
    """How far off, how often within the uncertainty, how often flagged."""
    found = fit.predict(test)
    figures = judged(found.count, found.count_std, ha.galaxy_counts(test))
    return figures | {"boxes": len(test), "flagged": float(np.mean(found.flag != 0))}


def millennium(path: Path, like: ha.Halos) -> ha.Halos:
    """Boxes of mini-Millennium as wide in Mpc as others; what is left at the sides is left out."""
    whole = halo_data.millennium(path)
    size = like.box_size / like.hubble * whole.hubble
    number = int(whole.box_size / size)
    ijk = (whole.position / size).astype(int)
    used = (ijk < number).all(axis=1)
    ijk = ijk[used]
    return ha.halos(
        (ijk[:, 0] * number + ijk[:, 1]) * number + ijk[:, 2], whole.position[used] - size * ijk,
        {"v_peak": whole.features["v_peak"][used]}, box_size=size, hubble=whole.hubble,
        stellar_mass=whole.stellar_mass[used],
    )  # fmt: skip


def main() -> None:
    """Train, judge, print, write after every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=["ridge", "forest", "resnet"])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.folder / "camels_astrid_25mpc_dev.npz"
    boxes = halo_data.camels(path)
    with np.load(path, allow_pickle=False) as data:
        parameters = data["parameters"]
    sets: dict[str, tuple[Any, ha.Halos, dict[str, ha.Halos]]] = {}
    generator = np.random.default_rng(options.seed)
    for name, column in PARAMETERS.items():
        order = np.argsort(parameters[:, column])
        inside, beyond = np.split(order, [round(SHARE * order.size)])
        inside = generator.permutation(inside)
        tests = {"inside": boxes.take(inside[:KNOWN]), "beyond": boxes.take(beyond)}
        sets[name] = (None, boxes.take(inside[KNOWN:]), tests)
    order = generator.permutation(len(boxes))
    other = millennium(options.folder / "mini_millennium_z0.npz", boxes)
    sets["simulation"] = (
        ("v_peak",), boxes.take(order[KNOWN:]),
        {"inside": boxes.take(order[:KNOWN]), "beyond": other},
    )  # fmt: skip
    out: dict[str, Any] = {}
    columns = ("chi-square", "deviance", "bias", "within 1 sigma", "flagged")
    table = Table("what differs", "model", "boxes", *columns)
    for name, (features, train, tests) in sets.items():
        for kind in options.kinds:
            fit = fitted(options.output / f"{name}_{kind}.h5", kind, train, features, options)
            out[f"{name}, {kind}"] = {where: tested(fit, test) for where, test in tests.items()}
            for where, row in out[f"{name}, {kind}"].items():
                table.add_row(
                    name, kind, f"{row['boxes']} {where}", f"{row['chi2']:.1f}",
                    f"{row['deviance']:.1f}", f"{row['bias']:+.3f}", f"{row['inside']:.2f}",
                    f"{row['flagged']:.2f}",
                )  # fmt: skip
            Console().print(table)
            (options.output / "halo_generalisation.json").write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
