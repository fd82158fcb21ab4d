"""Train the shipped amortised posteriors.

usage: python -m jaxsed.weights.make_flows sdss|sdss_photoz|goodss
           [--seconds S] [--blocks N] [--width N] [--begin FILE] [--seed K] [--output FILE]

Posteriors of PROVABGS at an error floor of 5 %: `sdss`: galaxies with SDSS ugriz magnitudes and a
redshift up to 0.5; `sdss_photoz`: the same with the redshift unknown; `goodss`: 17 bands of CANDELS
GOODS-S at redshifts 0.3 to 2.5.  A checkpoint beside the output lets an interrupted training go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.emulators import load_emulator, measured_sigma
from jaxsed.infer import amortised
from jaxsed.infer.amortised.simulator import NoiseModel, Simulator
from jaxsed.io.outputs import check_writable
from jaxsed.learn import FitSettings
from jaxsed.sps.models.registry import family

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

# The same of 186 galaxies of CANDELS GOODS-S at z about 1 (the sample of Pacifici et al. 2023), in
# six bins per band, ordered as the bands of the emulator.
GOODSS_NOISE = (
    ((23.75, 24.50, 24.92, 25.33, 25.70, 27.19),
     (-4.00, -3.44, -3.04, -2.72, -2.37, -0.85),
     (0.30, 0.10, 0.10, 0.06, 0.08, 0.45)),
    ((23.75, 24.52, 24.91, 25.35, 25.69, 27.41),
     (-4.51, -4.10, -3.81, -3.54, -3.25, -1.82),
     (0.18, 0.08, 0.08, 0.09, 0.11, 0.43)),
    ((23.66, 24.38, 24.75, 25.17, 25.59, 26.54),
     (-3.59, -3.18, -2.86, -2.60, -2.33, -1.32),
     (0.42, 0.15, 0.19, 0.22, 0.26, 0.44)),
    ((23.22, 23.90, 24.40, 24.69, 24.95, 25.58),
     (-4.28, -3.85, -3.64, -3.46, -3.39, -2.87),
     (0.34, 0.28, 0.35, 0.27, 0.36, 0.35)),
    ((22.43, 23.12, 23.58, 23.91, 24.30, 24.64),
     (-4.28, -3.90, -3.73, -3.52, -3.23, -3.12),
     (0.22, 0.18, 0.21, 0.28, 0.24, 0.52)),
    ((22.26, 22.94, 23.42, 23.81, 24.21, 24.52),
     (-4.35, -4.10, -3.85, -3.77, -3.48, -3.03),
     (0.38, 0.28, 0.26, 0.31, 0.39, 0.49)),
    ((21.83, 22.51, 23.05, 23.44, 23.87, 24.16),
     (-4.51, -4.22, -3.90, -3.79, -3.49, -3.31),
     (0.19, 0.13, 0.23, 0.70, 0.22, 0.29)),
    ((21.52, 21.99, 22.59, 23.09, 23.54, 24.08),
     (-4.79, -4.59, -4.22, -4.05, -3.77, -3.41),
     (0.15, 0.15, 0.16, 0.17, 0.13, 0.25)),
    ((21.59, 22.61, 23.06, 23.38, 23.78, 24.09),
     (-5.20, -4.28, -4.59, -4.35, -3.85, -3.92),
     (0.20, 0.51, 0.70, 0.44, 0.56, 0.45)),
    ((21.16, 22.04, 22.59, 23.05, 23.58, 23.95),
     (-5.89, -5.20, -4.91, -4.69, -4.35, -4.05),
     (0.18, 0.34, 0.33, 0.30, 0.35, 0.38)),
    ((20.90, 21.70, 22.36, 22.90, 23.50, 23.85),
     (-5.89, -5.20, -4.91, -4.59, -4.22, -3.90),
     (0.28, 0.30, 0.35, 0.33, 0.34, 0.35)),
    ((20.42, 21.24, 22.00, 22.69, 23.28, 23.73),
     (-5.04, -4.28, -3.79, -3.12, -2.79, -2.24),
     (0.36, 0.37, 0.29, 0.40, 0.25, 0.38)),
    ((20.66, 21.65, 22.33, 22.88, 23.40, 23.73),
     (-6.30, -5.60, -4.91, -4.51, -4.05, -3.77),
     (0.59, 0.35, 0.23, 0.50, 0.29, 0.60)),
    ((19.89, 20.71, 21.51, 22.23, 22.93, 23.48),
     (-5.89, -5.20, -4.43, -3.85, -3.16, -2.66),
     (0.30, 0.26, 0.27, 0.28, 0.20, 0.24)),
    ((20.19, 20.94, 21.79, 22.53, 23.26, 23.71),
     (-5.89, -5.20, -4.43, -3.85, -3.08, -2.61),
     (0.25, 0.25, 0.16, 0.31, 0.13, 0.28)),
    ((20.47, 21.28, 22.08, 22.70, 23.44, 24.19),
     (-4.05, -3.28, -2.65, -2.00, -1.36, -0.70),
     (0.27, 0.17, 0.16, 0.22, 0.17, 0.35)),
    ((20.59, 21.42, 22.17, 22.99, 23.69, 24.49),
     (-4.02, -3.09, -2.44, -1.76, -1.11, -0.48),
     (0.31, 0.12, 0.18, 0.16, 0.15, 0.67)),
)  # fmt: skip

ERROR_FLOOR = 0.05
CLIP_NORM = 5.0
SEED = 2026
PAIRS = 400_000
"""Galaxies per epoch, simulated afresh for each."""


class Survey(NamedTuple):
    """What is simulated."""

    emulator: str
    noise: tuple[Any, ...]
    redshift: tuple[float, float]
    anchor: str
    magnitudes: tuple[float, float]
    """In the band `anchor`."""
    missing: float
    text: str
    free_redshift: bool = False

    def simulator(self) -> Simulator:
        """Galaxies as the survey sees them, by a shipped emulator of PROVABGS."""
        emulator = load_emulator(self.emulator)
        tables = [jnp.asarray(np.array(part), float) for part in zip(*self.noise, strict=True)]
        return Simulator(
            forward=emulator, noise=NoiseModel(*tables),
            emulator_sigma=jnp.asarray(measured_sigma(emulator), float),
            redshift=jnp.array(self.redshift), magnitudes=jnp.array(self.magnitudes),
            prior=family("provabgs").prior, model="provabgs", emulator=self.emulator,
            bands=tuple(emulator.band_names), anchor=emulator.band_names.index(self.anchor),
            error_floor=ERROR_FLOOR, missing=self.missing, free_redshift=self.free_redshift,
        )  # fmt: skip


SDSS = Survey(
    emulator="provabgs_sdss", noise=SDSS_NOISE, redshift=(0.002, 0.5), anchor="sdss_r0",
    magnitudes=(12.0, 20.5), missing=0.25, text="SDSS ugriz of galaxies with spectra",
)  # fmt: skip
SURVEYS = {
    "sdss": SDSS,
    "sdss_photoz": SDSS._replace(free_redshift=True, text="SDSS ugriz without a redshift"),
    "goodss": Survey(
        emulator="provabgs_goodss", noise=GOODSS_NOISE, redshift=(0.3, 2.5),
        anchor="goodss_wfc3_f160w", magnitudes=(18.5, 25.0), missing=0.35,
        text="CANDELS GOODS-S, 17 bands, of galaxies with redshifts",
    ),
}  # fmt: skip


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=list(SURVEYS))
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=1e-3, help="the first learning rate")
    parser.add_argument("--begin", type=Path, default=None, help="a flow to go on from")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    survey = SURVEYS[options.set]
    output = options.output or Path(__file__).with_name(f"flow_provabgs_{options.set}.h5")
    check_writable(output)
    settings = FitSettings(
        optimizer="adam", schedule="cosine", learning_rates=(options.rate, 1e-6), epochs=10_000,
        batch_size=options.batch, patience=10_000, max_seconds=options.seconds,
        clip_norm=CLIP_NORM,
    )  # fmt: skip
    trained, history = amortised.train(
        jax.random.key(options.seed), survey.simulator(), text=survey.text,
        blocks=options.blocks, width=options.width, pairs=PAIRS, settings=settings,
        begin=amortised.load(options.begin) if options.begin else None,
        checkpoint=output.with_suffix(".checkpoint.h5"),
    )  # fmt: skip
    trained.save(output)
    print(f"{output}: validation loss {history.best_loss:.4f}, {history.stopped}")
    output.with_suffix(".checkpoint.h5").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
