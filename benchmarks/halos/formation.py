"""Star formation of galaxies in boxes that no training saw, of mini-Millennium.

    python -m benchmarks.halos.data FOLDER --output SET
    python -m benchmarks.halos.formation SET --output OUT

The simulation is cut into 125 boxes of 12.5 Mpc/h, of which a third are for the test.  The share of
quiescent galaxies and the mean log10 star formation rate of the others, in bins of stellar mass,
are compared with what the network says, and with the means of the training that it tells the
differences from.  Fewer than a hundred boxes to learn from: a check of the outputs, no more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import halos as ha
from jaxsed.cli import prepare_process
from jaxsed.halos import formation
from jaxsed.halos.catalogue import cut

EDGES = (9.5, 10.0, 10.5, 11.0)

WIDTH = 12.5
"""Mpc/h."""

TEST = 42
"""Boxes."""


def main() -> None:
    """Cut, train, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    whole = ha.read_halos(options.set / "millennium.h5")
    number, place = cut(whole.position, whole.box_size, WIDTH)
    boxes = ha.halos(
        number, place, whole.features, box_size=WIDTH, hubble=whole.hubble,
        stellar_mass=whole.stellar_mass, sfr=whole.sfr,
    )  # fmt: skip
    order = np.random.default_rng(options.seed).permutation(len(boxes))
    train, test = boxes.take(order[TEST:]), boxes.take(order[:TEST])
    settings = ha.HaloSettings(edges=EDGES, periodic=False, members=options.members)
    fit = dataclasses.replace(
        settings.fit, epochs=options.epochs, patience=options.epochs, batch_size=16
    )
    resnet = dataclasses.replace(settings.architecture.resnet, wrap=False)
    sizes = dataclasses.replace(settings.architecture, resnet=resnet)
    model, _ = ha.train(
        jax.random.key(options.seed), train,
        settings=dataclasses.replace(settings, fit=fit, architecture=sizes),
    )  # fmt: skip
    model.save(options.output / "halo_formation.h5")
    known, predicted = formation.formation(test, EDGES), model.predict(test)
    found, usual = predicted.formation, formation.typical(formation.formation(train, EDGES))
    n = known.quiescent + known.forming
    share = 1 / (1 + np.exp(-np.asarray(usual.logit)))
    gaps = {
        "share of quiescent": (
            known.quiescent / np.maximum(n, 1), found.quiescent, share, n,
        ),
        "log sfr of the others": (known.log_sfr, found.log_sfr, usual.log_sfr, known.forming),
    }  # fmt: skip
    out, table = {}, Table("quantity", "bin", "network", "mean of the training", "within 1 sigma")
    inside = [np.abs(z) < 1 for z in formation.off(found, known)]
    for (name, (truth, ours, mean, weight)), within in zip(gaps.items(), inside, strict=True):
        for j, (low, high) in enumerate(zip(EDGES[:-1], EDGES[1:], strict=True)):
            w = weight[:, j]
            rms = [
                float(np.sqrt(np.average((truth - guess)[:, j] ** 2, weights=w)))
                for guess in (ours, np.broadcast_to(mean, truth.shape))
            ]
            covered = float(within[w > 0, j].mean())
            out[f"{name} {low:g}-{high:g}"] = {"rms": rms, "inside": covered}
            table.add_row(
                name, f"{low:g}-{high:g}", f"{rms[0]:.3f}", f"{rms[1]:.3f}", f"{covered:.2f}"
            )
    chi2 = float(ha.chi2(predicted.count, ha.galaxy_counts(test, EDGES)).mean())
    Console().print(table, f"galaxies weigh the same; chi-square of their numbers {chi2:.2f}")
    out["chi2"] = chi2
    (options.output / "halo_formation.json").write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
