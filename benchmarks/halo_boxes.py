"""Mass functions of boxes that no training saw: our networks beside what they must beat.

    python benchmarks/halo_data.py FOLDER --output SET
    python benchmarks/halo_boxes.py SET --output OUT --channels 20 100 --seeds 0 1 2

Chi-square of a box is the sum over 14 bins of (predicted - counted)^2 / (counted + 1): Poisson
variances of what was counted, and a floor of one galaxy.  It prefers numbers that are too low, so
the relative bias of the total is given beside it, and the floor: the chi-square of counts that are
drawn from the true numbers.  "published" is the network of Nadler & To (2018): the mean peak
velocity in voxels, largest values in its pool, a normalisation, no census.  Trained models are kept
in OUT.
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

from jaxsed import halos as ha
from jaxsed import plots
from jaxsed.cli import prepare_process
from jaxsed.halos import baselines, model
from jaxsed.halos.networks import Architecture
from jaxsed.nets import resnet3d

VELOCITY = ("v_peak",)


def methods(channels: list[int], kinds: list[str]) -> dict[str, Any]:
    """By the name in the table: (baseline or settings, features)."""
    found: dict[str, Any] = {}
    for label, features in (("v_peak", VELOCITY), ("all features", None)):
        for kind in baselines.KINDS:
            if kind in kinds and (kind, label) != ("mean", "all features"):
                found[f"{kind}, {label}"] = (kind, features)
    for width in channels:
        for label, features in (("v_peak", VELOCITY), ("all features", None)):
            if "resnet" in kinds:
                sizes = Architecture(resnet=resnet3d.Architecture(width=width))
                found[f"resnet {width}, {label}"] = (sizes, features)
        if "published" in kinds:
            inner = dataclasses.replace(resnet3d.PUBLISHED, width=width)
            sizes = Architecture(resnet=inner, census=(), counted=False)
            found[f"published {width}, v_peak"] = (sizes, VELOCITY)
    return found


def fitted(path: Path, method: Any, train: ha.Halos, seed: int, epochs: int) -> Any:
    """A model, from its file if it is there."""
    kind, features = method
    if isinstance(kind, str):
        return ha.fit_baseline(train, kind, features=features, seed=seed)
    if path.exists():
        return model.load(path)
    settings = ha.HaloSettings(architecture=kind, features=features)
    fit = dataclasses.replace(settings.fit, epochs=epochs, patience=epochs)
    found, (history,) = ha.train(
        jax.random.key(seed), train, settings=dataclasses.replace(settings, fit=fit),
        checkpoint=f"{path}.checkpoint",
    )  # fmt: skip
    found.save(path)
    path.with_suffix(".json").write_text(json.dumps(history.to_dict()))
    return found


def judged(found: ha.MassFunctions, truth: np.ndarray) -> dict[str, float]:
    """Chi-square, bias of the total, and how often the number lies within its uncertainty."""
    return {
        "chi2": float(ha.chi2(found.count, truth).mean()),
        "bias": float(found.count.sum() / truth.sum() - 1),
        "inside": float(np.mean(np.abs(found.count - truth) < found.count_std)),
    }


def main() -> None:
    """Fit what is missing, measure, print, draw, write after every model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=[*baselines.KINDS, "resnet", "published"])
    parser.add_argument("--channels", nargs="+", type=int, default=[20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    train, test = (ha.read_halos(options.set / f"{name}.h5") for name in ("train", "test"))
    truth = ha.galaxy_counts(test)
    drawn = np.random.default_rng(0).poisson(truth, (100, *truth.shape))
    out: dict[str, Any] = {"floor": float(ha.chi2(drawn, truth).mean())}
    shown: dict[str, np.ndarray] = {}
    table = Table("model", "chi-square by seed", "bias", "within 1 sigma", "s")
    for name, method in methods(options.channels, options.kinds).items():
        rows, begun = [], time.perf_counter()
        for seed in options.seeds if not name.startswith(("mean", "ridge")) else options.seeds[:1]:
            stem = name.replace(", ", "_").replace(" ", "_")
            path = options.output / f"{stem}_{seed}.h5"
            found = fitted(path, method, train, seed, options.epochs).predict(test)
            rows.append(judged(found, truth))
        seconds = time.perf_counter() - begun
        out[name] = {"seeds": rows, "seconds": seconds}
        shown[name] = found.phi
        mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
        table.add_row(
            name, ", ".join(f"{row['chi2']:.1f}" for row in rows), f"{mean['bias']:+.3f}",
            f"{mean['inside']:.2f}", f"{seconds:.0f}",
        )  # fmt: skip
        Console().print(table, f"counts drawn from the true numbers: {out['floor']:.1f}")
        (options.output / "halo_boxes.json").write_text(json.dumps(out, indent=1))
    best = {name: shown[name] for name in list(shown)[1:]}
    phi = ha.mass_function(truth, ha.EDGES, test.volume)
    figure = plots.mass_functions(np.array(ha.EDGES), phi, best)
    figure.savefig(options.output / "mass_functions.png")
    first = test.take([int(np.argsort(truth.sum(axis=1))[len(test) // 2])])
    plots.box_of_halos(
        first.position, first.features["v_peak"], title="a box of 25 Mpc/h"
    ).savefig(options.output / "box.png")


if __name__ == "__main__":
    main()
