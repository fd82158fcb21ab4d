"""Which width is enough? The error of photometric emulators against the width of their layers.

    python benchmarks/widths.py --widths 32 64 128 256 512 --epochs 10 --json OUT.json

Every width sees the same pairs (SDSS ugriz, redshift 0 to 0.65, PROVABGS physics) for the same
number of epochs under the same schedule, and is measured on 100,000 pairs that no training saw.
The last line is the slope of ln(error) against ln(width): Mathews+ (2023) find about -1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed.catalog.train import train_emulator
from jaxsed.cli import prepare_process
from jaxsed.emulators import TrainSettings
from jaxsed.emulators.train import FAST
from jaxsed.sps.models import family
from jaxsed.sps.photometry import load_filter
from jaxsed.sps.ssp import load_ssp
from jaxsed.weights.make_emulators import SETS, SOFTENING

BATCH = 4096


def main() -> None:
    """Train every width, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train", type=int, default=1_000_000)
    parser.add_argument("--set", choices=SETS, default="sdss")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()

    names, redshift_range, title = SETS[options.set]
    bands = names.split()
    rows = []
    for width in options.widths:
        emulator, history = train_emulator(
            jax.random.key(options.seed),
            family("provabgs"),
            load_ssp(),
            [load_filter(band) for band in bands],
            redshift_range=redshift_range,
            settings=TrainSettings(
                n_train=options.train,
                width=width,
                mu_0=SOFTENING,
                loss="band_rmse",
                fit=dataclasses.replace(FAST, epochs=options.epochs, patience=options.epochs),
            ),
        )
        sigma = np.asarray(emulator.error_ab.sigma, float)
        row = {
            "width": width,
            "sigma": dict(zip(bands, sigma.tolist(), strict=True)),
            "mean_sigma": float(sigma.mean()),
            "max_mean": float(np.abs(np.asarray(emulator.error_ab.mean)).max()),
            "microseconds": _microseconds(emulator),
            "train_seconds": float(history.seconds[-1]),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)

    table = Table("width", *(f"σ {b}" for b in bands), "mean σ", f"µs per SED at {BATCH}", "s")
    for row in rows:
        table.add_row(
            str(row["width"]),
            *(f"{v:.4f}" for v in row["sigma"].values()),
            f"{row['mean_sigma']:.4f}",
            f"{row['microseconds']:.2f}",
            f"{row['train_seconds']:.0f}",
        )
    Console().print(title, table)
    x, y = (np.log([row[key] for row in rows]) for key in ("width", "mean_sigma"))
    slope = float(np.polyfit(x, y, 1)[0]) if len(rows) > 1 else float("nan")
    print(f"mean error proportional to width to the power {slope:.2f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"settings": vars(options), "rows": rows, "slope": slope}, file, indent=1)


def _microseconds(emulator) -> float:
    """Median time per galaxy of one compiled batch."""
    centre = 0.5 * (emulator.box_low + emulator.box_high)
    batch = jnp.broadcast_to(centre, (BATCH, centre.size))
    run = jax.jit(lambda e, x: jax.vmap(e.from_features)(x))
    run(emulator, batch).block_until_ready()
    times = []
    for _ in range(20):
        began = time.perf_counter()
        run(emulator, batch).block_until_ready()
        times.append(time.perf_counter() - began)
    return 1e6 * float(np.median(times)) / BATCH


if __name__ == "__main__":
    main()
