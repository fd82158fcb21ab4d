"""Mass functions of boxes that no training saw: our networks beside what they must beat.

    python -m benchmarks.halos.data FOLDER --output SET
    python -m benchmarks.halos.boxes SET --output OUT --channels 20 100 --seeds 0 1 2

Chi-square of a box is the sum over 14 bins of (predicted - counted)^2 / (counted + 1): Poisson
variances of what was counted, and a floor of one galaxy.  It prefers numbers that are too low, so
the relative bias of the total and the deviance of a Poisson law are given beside it, and the floor:
the chi-square of counts that are drawn from the true numbers.  Networks are trained by either loss.
"published" is the network of Nadler & To (2018): chi-square, the mean peak velocity in voxels,
largest values in its pool, a normalisation, no census.  Trained models and what they predict are
kept in OUT; what is there is not made again, so parts of the table can be made side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import halos as ha
from jaxsed import plots
from jaxsed.cli import prepare_process
from jaxsed.halos import baselines
from jaxsed.halos.networks import Architecture
from jaxsed.nets import resnet3d

VELOCITY = ("v_peak",)


class Method(NamedTuple):
    """What a row of the table is."""

    kind: str
    """Of a baseline, or "resnet"."""
    features: tuple[str, ...] | None
    settings: ha.HaloSettings | None = None


def methods(channels: list[int], kinds: list[str], losses: list[str]) -> dict[str, Method]:
    """By the name in the table."""
    found: dict[str, Method] = {}
    labels = (("v_peak", VELOCITY), ("all features", None))
    for kind, (label, features) in itertools.product(baselines.KINDS, labels):
        if kind in kinds and (kind, label) != ("mean", "all features"):
            found[f"{kind}, {label}"] = Method(kind, features)
    for width in channels:
        inner = resnet3d.Architecture(width=width)
        for loss, (label, features) in itertools.product(losses, labels):
            if "resnet" in kinds:
                sizes = Architecture(resnet=inner)
                settings = ha.HaloSettings(architecture=sizes, features=features, loss=loss)
                found[f"resnet {width}, {loss}, {label}"] = Method("resnet", features, settings)
        if "published" in kinds:
            inner = dataclasses.replace(resnet3d.PUBLISHED, width=width)
            sizes = Architecture(resnet=inner, census=(), counted=False)
            settings = ha.HaloSettings(architecture=sizes, features=VELOCITY, loss="chi2")
            found[f"published {width}, v_peak"] = Method("resnet", VELOCITY, settings)
    return found


def predicted(
    stem: Path, method: Method, train: ha.Halos, test: ha.Halos, seed: int, epochs: int
) -> dict[str, np.ndarray]:
    """Numbers of galaxies of the test, their uncertainties and the seconds of the training, from
    their file if it is there."""
    path = stem.with_suffix(".npz")
    if not path.exists():
        begun = time.perf_counter()
        if method.settings is None:
            model: Any = ha.fit_baseline(train, method.kind, features=method.features, seed=seed)
        else:
            fit = dataclasses.replace(method.settings.fit, epochs=epochs, patience=epochs)
            model, (history,) = ha.train(
                jax.random.key(seed), train,
                settings=dataclasses.replace(method.settings, fit=fit),
                checkpoint=f"{stem}.checkpoint",
            )  # fmt: skip
            stem.with_suffix(".json").write_text(json.dumps(history.to_dict()))
        seconds = time.perf_counter() - begun
        model.save(stem.with_suffix(".h5"))
        for path_left in stem.parent.glob(f"{stem.name}.checkpoint*"):
            path_left.unlink()
        found = model.predict(test)
        np.savez(path, count=found.count, count_std=found.count_std, seconds=seconds)
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def deviance_of(count: np.ndarray, truth: np.ndarray) -> float:
    """Mean over boxes of 2 sum [mean - n + n ln(n / mean)]."""
    log_ratio = np.log(np.maximum(truth, 1e-9) / np.maximum(count, 1e-3))
    return float(2 * (count - truth + truth * log_ratio).sum(axis=1).mean())


def judged(count: np.ndarray, count_std: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Chi-square, Poisson deviance, bias of the total, how often the number lies within its
    uncertainty."""
    return {
        "chi2": float(ha.chi2(count, truth).mean()),
        "deviance": deviance_of(count, truth),
        "bias": float(count.sum() / truth.sum() - 1),
        "inside": float(np.mean(np.abs(count - truth) < count_std)),
    }


def drawn(output: Path, test: ha.Halos, truth: np.ndarray, counts: dict[str, np.ndarray]) -> None:
    """Mass functions of the likeliest of each kind, loss curves of all trainings, a box."""
    deviance = {name: deviance_of(count, truth) for name, count in counts.items()}
    best: dict[str, np.ndarray] = {}
    for kind in ("ridge", "forest", "resnet", "published"):
        names = [name for name in counts if name.startswith(kind)]
        if names:
            name = min(names, key=lambda name: deviance[name])
            best[name] = ha.mass_function(counts[name], ha.EDGES, test.volume)
    phi = ha.mass_function(truth, ha.EDGES, test.volume)
    plots.mass_functions(np.array(ha.EDGES), phi, best).savefig(output / "mass_functions.png")
    histories = {
        name: [json.loads(path.read_text()) for path in sorted(output.glob(f"{stem(name)}_?.json"))]
        for name in counts
    }
    for kind in ("resnet", "published"):
        shown = {n: h for n, h in histories.items() if h and n.startswith(kind)}
        if shown:
            plots.loss_curves(shown).savefig(output / f"loss_curves_{kind}.png")
    first = test.take([int(np.argsort(truth.sum(axis=1))[len(test) // 2])])
    plots.box_of_halos(
        first.position, first.features["v_peak"], title="a box of 25 Mpc/h"
    ).savefig(output / "box.png")


def stem(name: str) -> str:
    """Of the files of a row."""
    return name.replace(", ", "_").replace(" ", "_")


def main() -> None:
    """Make what is missing, measure, print, draw, write after every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=[*baselines.KINDS, "resnet", "published"])
    parser.add_argument("--losses", nargs="+", default=["poisson", "chi2"])
    parser.add_argument("--channels", nargs="+", type=int, default=[20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    train, test = (ha.read_halos(options.set / f"{name}.h5") for name in ("train", "test"))
    truth = ha.galaxy_counts(test)
    sampled = np.random.default_rng(0).poisson(truth, (100, *truth.shape))
    out: dict[str, Any] = {"floor": float(ha.chi2(sampled, truth).mean())}
    counts: dict[str, np.ndarray] = {}
    table = Table("model", "chi-square by seed", "deviance", "bias", "within 1 sigma", "s each")
    for name, method in methods(options.channels, options.kinds, options.losses).items():
        seeds = options.seeds[:1] if method.kind in ("mean", "ridge") else options.seeds
        rows = []
        for seed in seeds:
            path = options.output / f"{stem(name)}_{seed}"
            found = predicted(path, method, train, test, seed, options.epochs)
            figures = judged(found["count"], found["count_std"], truth)
            rows.append(figures | {"seconds": float(found["seconds"])})
            counts.setdefault(name, found["count"])
        out[name] = rows
        mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
        table.add_row(
            name, ", ".join(f"{row['chi2']:.1f}" for row in rows), f"{mean['deviance']:.1f}",
            f"{mean['bias']:+.3f}", f"{mean['inside']:.2f}", f"{mean['seconds']:.0f}",
        )  # fmt: skip
        Console().print(table, f"counts drawn from the true numbers: {out['floor']:.1f}")
        (options.output / "halo_boxes.json").write_text(json.dumps(out, indent=1))
    drawn(options.output, test, truth, counts)


if __name__ == "__main__":
    main()
