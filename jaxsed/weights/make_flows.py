"""Train the shipped amortised posteriors.

usage: python -m jaxsed.weights.make_flows sdss|sdss_photoz [--seconds S] [--blocks N] [--width N]
                                                            [--begin FILE] [--seed K]
                                                            [--output FILE]

`sdss`: the PROVABGS posterior of galaxies with SDSS ugriz magnitudes and a redshift up to 0.5, at
an error floor of 5 %, with bands missing in a quarter of the cases; `sdss_photoz`: the same with
the redshift unknown.  A checkpoint beside the output lets an interrupted training go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.emulators import load_emulator
from jaxsed.infer import amortised
from jaxsed.infer.simulate import NoiseModel, Simulator
from jaxsed.learn import FitSettings
from jaxsed.sps.models import family

# Uncertainties of 5000 SDSS galaxies with spectra (the sample of CosmoPhotoz, Elliott et al. 2015):
# in twelve bins of magnitude per band, the median magnitude, the median of ln(sigma / flux), and
# half of its central 68 % about the trend.
SDSS_NOISE = (
    ((17.44, 18.18, 18.55, 18.81, 19.03, 19.24, 19.44, 19.65, 19.86, 20.09, 20.36, 20.94),
     (-3.85, -3.38, -3.18, -3.09, -2.91, -2.76, -2.69, -2.53, -2.34, -2.21, -2.01, -1.34),
     (0.35, 0.29, 0.34, 0.29, 0.27, 0.29, 0.30, 0.29, 0.30, 0.28, 0.29, 0.34)),
    ((15.98, 16.78, 17.17, 17.44, 17.65, 17.81, 17.96, 18.10, 18.25, 18.43, 18.72, 20.31),
     (-5.67, -5.27, -5.08, -4.95, -4.85, -4.75, -4.69, -4.62, -4.56, -4.46, -4.18, -2.98),
     (0.25, 0.21, 0.22, 0.20, 0.21, 0.21, 0.22, 0.19, 0.18, 0.20, 0.20, 0.28)),
    ((15.22, 15.99, 16.38, 16.64, 16.85, 17.00, 17.14, 17.25, 17.35, 17.46, 17.62, 18.55),
     (-5.97, -5.59, -5.41, -5.27, -5.17, -5.07, -5.00, -4.95, -4.91, -4.85, -4.75, -4.08),
     (0.24, 0.20, 0.22, 0.20, 0.21, 0.18, 0.22, 0.21, 0.19, 0.20, 0.20, 0.22)),
    ((14.85, 15.60, 15.98, 16.24, 16.44, 16.59, 16.73, 16.83, 16.94, 17.06, 17.23, 17.89),
     (-5.96, -5.60, -5.39, -5.25, -5.19, -5.05, -4.97, -4.97, -4.90, -4.79, -4.68, -4.23),
     (0.26, 0.22, 0.21, 0.23, 0.22, 0.21, 0.22, 0.22, 0.21, 0.24, 0.25, 0.22)),
    ((14.57, 15.30, 15.69, 15.94, 16.15, 16.30, 16.43, 16.54, 16.66, 16.81, 17.01, 17.49),
     (-5.17, -4.74, -4.53, -4.38, -4.28, -4.16, -4.12, -4.08, -3.96, -3.83, -3.65, -3.26),
     (0.32, 0.26, 0.25, 0.26, 0.24, 0.25, 0.25, 0.26, 0.27, 0.29, 0.29, 0.26)),
)  # fmt: skip

REDSHIFT = (0.002, 0.5)
MAGNITUDES = (12.0, 20.5)
"""In the r band."""

ERROR_FLOOR = 0.05
MISSING = 0.25
CLIP_NORM = 5.0
SEED = 2026
PAIRS = 400_000
"""Galaxies per epoch, simulated afresh for each."""


def sdss(*, free_redshift: bool = False) -> Simulator:
    """Galaxies as SDSS sees them, by the shipped emulator."""
    emulator = load_emulator("provabgs_sdss")
    tables = [jnp.asarray(np.array(part), float) for part in zip(*SDSS_NOISE, strict=True)]
    sigma = np.nan_to_num(np.asarray(emulator.error_ab.sigma, float))
    return Simulator(
        forward=emulator, noise=NoiseModel(*tables), emulator_sigma=jnp.asarray(sigma, float),
        redshift=jnp.array(REDSHIFT), magnitudes=jnp.array(MAGNITUDES),
        prior=family("provabgs").prior, model="provabgs", emulator="provabgs_sdss",
        bands=tuple(emulator.band_names),
        anchor=emulator.band_names.index("sdss_r0"), error_floor=ERROR_FLOOR, missing=MISSING,
        free_redshift=free_redshift,
    )  # fmt: skip


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=["sdss", "sdss_photoz"])
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=1e-3, help="the first learning rate")
    parser.add_argument("--begin", type=Path, default=None, help="a flow to go on from")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    output = options.output or Path(__file__).with_name(f"flow_provabgs_{options.set}.h5")
    settings = FitSettings(
        optimizer="adam", schedule="cosine", learning_rates=(options.rate, 1e-6), epochs=10_000,
        batch_size=options.batch, patience=10_000, max_seconds=options.seconds,
        clip_norm=CLIP_NORM,
    )  # fmt: skip
    trained, history = amortised.train(
        jax.random.key(options.seed), sdss(free_redshift=options.set == "sdss_photoz"),
        text="SDSS ugriz of galaxies with spectra", blocks=options.blocks, width=options.width,
        pairs=PAIRS, settings=settings,
        begin=amortised.load(options.begin) if options.begin else None,
        checkpoint=output.with_suffix(".checkpoint.h5"),
    )  # fmt: skip
    trained.save(output)
    print(f"{output}: validation loss {history.best_loss:.4f}, {history.stopped}")
    output.with_suffix(".checkpoint.h5").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
