"""Thin tails against thick: what training on the prior does to rare galaxies.

    python -m benchmarks.emulators.tails --width 128 --seconds 300 --json OUT.json

Two emulators of the 18-parameter galaxy in the 137 bands of Mathews+ (2023) are trained alike, one
on the thick-tailed distribution of their table 1 and one on the prior. Both are then asked for
galaxies like A (a flat history: all six SFR ratios 0) and B (rapidly declining: all -2.5) of
their section 4.2, at redshift 1.75: once with every other parameter at the median of its prior,
and once with a thousand draws of the others from the prior.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import params
from jaxsed.bands.filters import load_filter
from jaxsed.cli import prepare_process
from jaxsed.emulators import PhotometricEmulator, TrainSettings
from jaxsed.emulators.training.networks import FAST
from jaxsed.sps.models import continuity, prospector
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.weights.make_emulators import SETS
from jaxsed.workflows.train_photometric import SOFTENING, train_emulator

REDSHIFT = 1.75
GALAXIES = {"A": 0.0, "B": -2.5}
"""log10 of all six ratios of neighbouring star formation rates."""
N_FREE = params.dimension(prospector.prior(REDSHIFT))
BRIGHT = 1e2 * 10 ** (-0.4 * SOFTENING)
"""Bands fainter than this (maggies at 10 pc of 1e10 Msun) carry no light to speak of."""


def theta_of(u, redshift):
    """The theta of the prior of Mathews+ (2023) at normal coordinates u, mass 1e10."""
    theta = params.constrain(prospector.prior(redshift), u)[0]
    # The metallicity's prior follows the mass, which is exact and therefore forgotten here.
    log_z = params.from_normal(continuity.mass_metallicity(theta), u[1])[0]
    return theta._replace(log_z=log_z, log_mass_formed=jnp.asarray(10.0))


def thin_draw(key, redshift):
    """A theta drawn from the prior."""
    return theta_of(jax.random.normal(key, (N_FREE,)), redshift)


def main() -> None:
    """Train both, print and write the table of errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--train", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--folder", type=Path, help="keep the emulators here, and start from them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prepare_process()

    chosen, galaxies = SETS["mathews137"], family("prospector")
    ssp, bands = load_ssp(galaxies.ssp), [load_filter(b) for b in chosen.bands.split()]
    settings = TrainSettings(
        n_train=options.train, width=options.width, mu_0=SOFTENING, loss="band_rmse",
        fit=dataclasses.replace(FAST, max_seconds=options.seconds),
    )  # fmt: skip
    emulators = {}
    for name, draw in (("thick", galaxies.training_draw), ("thin", thin_draw)):
        path = options.folder / f"{name}.h5" if options.folder else None
        if path and path.exists():
            emulators[name] = PhotometricEmulator.load(path)
            continue
        emulators[name], _ = train_emulator(
            jax.random.key(options.seed), dataclasses.replace(galaxies, training_draw=draw), ssp,
            bands, redshift_range=chosen.redshift_range, settings=settings,
        )  # fmt: skip
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            emulators[name].save(path)

    model = galaxies.model(ssp, bands, redshift_range=(REDSHIFT, REDSHIFT))
    truth = jax.jit(lambda m, t: jax.lax.map(m.shape, t, batch_size=250))
    u = jax.random.normal(jax.random.key(options.seed + 1), (1000, N_FREE)).at[0].set(0.0)
    drawn = jax.vmap(lambda x: theta_of(x, jnp.asarray(REDSHIFT)))(u)
    table = Table(
        "galaxy", "trained on", "own test set, mean σ", "at the medians: rms over bands", "largest",
        "1000 draws: median |error|", "99 %", "rms",
        title=f"Errors in mag, N = {options.width}, {options.seconds:.0f} s each",
    )  # fmt: skip
    out = {"settings": {k: str(v) for k, v in vars(options).items()}, "rows": []}
    for letter, ratio in GALAXIES.items():
        thetas = drawn._replace(log_sfr_ratios=jnp.full((1000, 6), ratio))
        flux = np.asarray(truth(model, thetas), float)
        bright = flux > BRIGHT
        for name, emulator in emulators.items():
            found = np.asarray(jax.jit(jax.vmap(emulator.shape))(thetas), float)
            error = np.where(
                bright, 2.5 * np.log10(np.maximum(found, 1) / np.maximum(flux, 1)), np.nan
            )
            one, all_ = error[0], np.abs(error)
            row = {
                "galaxy": letter,
                "trained_on": name,
                "own_sigma": float(np.mean(np.asarray(emulator.error_ab.sigma))),
                "rms": float(np.sqrt(np.nanmean(one**2))),
                "largest": float(np.nanmax(np.abs(one))),
                "median": float(np.nanmedian(all_)),
                "percentile_99": float(np.nanpercentile(all_, 99)),
                "rms_of_draws": float(np.sqrt(np.nanmean(error**2))),
            }
            out["rows"].append(row)
            table.add_row(letter, name, *(f"{v:.4f}" for v in list(row.values())[2:]))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
