"""Which width is enough? The error of photometric emulators against the width of their layers.

    python -m benchmarks.emulators.widths --set sdss --widths 32 64 128 256 \\
        --seconds 300 --train 1000000 --output FOLDER --json OUT.json

Every width sees the same pairs and is measured on the same others that no training saw; see
`jaxsed.emulators.choose_width`. A killed run goes on when it is started again with the same
folder. Mathews+ (2023) find errors that halve where the width doubles.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import jax
from rich.console import Console

from jaxsed.bands.filters import load_filter
from jaxsed.cli import prepare_process
from jaxsed.emulators import TrainSettings, choose_width
from jaxsed.emulators.training.networks import FAST
from jaxsed.emulators.training.widths import share_seconds
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.weights.make_emulators import SETS
from jaxsed.workflows.train_photometric import SOFTENING, emulation


def main() -> None:
    """Train the series, print its table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, default="sdss")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[300.0],
        help="of training: one for every width, or one each",
    )  # fmt: skip
    parser.add_argument(
        "--total-seconds", type=float, help="shared between the widths by their cost instead"
    )
    parser.add_argument("--train", type=int, default=1_000_000)
    parser.add_argument("--test", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=FAST.batch_size)
    parser.add_argument("--epochs", type=int, default=FAST.epochs, help="at most")
    parser.add_argument("--error-floor", type=float, default=0.05, help="of the survey, relative")
    parser.add_argument("--sobolev", type=float, default=0.0, help="weight of derivatives")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--output", type=Path, help="folder for pairs, checkpoints, emulators")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prepare_process()

    chosen = SETS[options.set]
    galaxies = family(chosen.physics)
    simulate, target = emulation(
        galaxies,
        load_ssp(galaxies.ssp),
        [load_filter(band) for band in chosen.bands.split()],
        chosen.redshift_range,
        tangents=options.sobolev > 0,
    )
    widths = options.widths
    each = options.seconds * (len(widths) if len(options.seconds) == 1 else 1)
    seconds = (
        share_seconds(widths, target, options.total_seconds)
        if options.total_seconds
        else dict(zip(widths, each, strict=True))
    )
    scan = choose_width(
        jax.random.key(options.seed),
        simulate,
        target,
        widths=widths,
        seconds=seconds,
        settings=TrainSettings(
            n_train=options.train,
            n_test=options.test,
            mu_0=SOFTENING,
            loss="band_rmse",
            sobolev=options.sobolev,
            fit=dataclasses.replace(
                FAST,
                epochs=options.epochs,
                patience=options.epochs,
                batch_size=options.batch_size,
            ),
        ),
        error_floor=options.error_floor,
        folder=options.output,
    )
    Console().print(f"{chosen.physics}: {chosen.title}", scan.table())
    if options.json:
        options.json.write_text(json.dumps(scan.to_dict(), indent=1))


if __name__ == "__main__":
    main()
