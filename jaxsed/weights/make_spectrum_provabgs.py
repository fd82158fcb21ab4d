"""Train the shipped PROVABGS rest-frame spectrum emulator.

usage: python -m jaxsed.weights.make_spectrum_provabgs [--width N] [--seconds S] [--train N]
           [--burst-width N] [--burst-seconds S] [--settings fast|kwon] [--seed K] [--test N]
           [--output FILE] [--figures FOLDER]

The emulator is written beside this script with its model card; checkpoints beside it let an
interrupted training go on. On a GPU, give more of everything:
--width 512 --seconds 3600 --train 3000000 --burst-width 512 --burst-seconds 1800.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsed.emulators import ProvabgsSpectrum, SpectrumErrors
from jaxsed.emulators.training.networks import FAST
from jaxsed.emulators.training.spectral import KWON, SpectrumSettings
from jaxsed.emulators.validation.spectral import joint_jumps, ln_flux_residuals
from jaxsed.emulators.validation.spectral_card import spectrum_card
from jaxsed.io import files
from jaxsed.io.outputs import check_writable
from jaxsed.sps.models.registry import family
from jaxsed.sps.spectra.rest_frame import RestSpectrum
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.workflows.train_spectra import (
    REDSHIFT_RANGE,
    rest_frame_provabgs,
    train_provabgs_spectrum,
    unseen_galaxies,
)

SETTINGS = {"fast": FAST, "kwon": KWON}


def measured(
    emulator: ProvabgsSpectrum, model: RestSpectrum, key: jax.Array, n: int
) -> tuple[ProvabgsSpectrum, dict[str, Any]]:
    """The emulator with its errors on n unseen galaxies of the prior, and more figures.

    The figures are the errors on as many galaxies of the training distribution, and by how much
    the error changes across the joints of the windows.
    """
    joints = emulator.provenance["training"]["smooth"]["settings"]["joints"]
    figures: dict[str, Any] = {"test_galaxies": n}
    for name, thick in (("prior", False), ("training", True)):
        thetas, truth = unseen_galaxies(jax.random.fold_in(key, thick), model, n, thick=thick)
        residual = ln_flux_residuals(emulator, thetas, truth)
        errors = SpectrumErrors.of(residual, emulator.wave)
        if not thick:
            emulator = emulator.with_errors(errors)
            figures["joints"] = joint_jumps(residual, emulator.wave, joints)
        red = emulator.wave > 3000
        figures[name] = {
            "largest_beyond_3000A": np.asarray(errors.percentiles)[red].max(0).tolist(),
            "largest": np.asarray(errors.percentiles).max(0).tolist(),
            "mean_error_quantiles": np.asarray(errors.mean).tolist(),
        }
    return emulator, figures


def main() -> None:
    """Train, measure, and write the emulator and its model card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--train", type=int, default=500_000)
    parser.add_argument("--burst-width", type=int, default=128)
    parser.add_argument("--burst-seconds", type=float, default=300.0)
    parser.add_argument("--settings", choices=SETTINGS, default="fast")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("spectrum_provabgs.h5")
    )
    parser.add_argument("--figures", type=Path, default=None, help="write PNGs here as well")
    options = parser.parse_args()
    ssp = load_ssp()
    model = rest_frame_provabgs(ssp)
    check_writable(options.output)
    base = SpectrumSettings(n_train=options.train, fit=SETTINGS[options.settings])
    sizes = {
        "smooth": (options.width, options.seconds),
        "burst": (options.burst_width, options.burst_seconds),
    }
    settings = {
        name: dataclasses.replace(
            base, width=width, fit=dataclasses.replace(base.fit, max_seconds=seconds)
        )
        for name, (width, seconds) in sizes.items()
    }
    stem = options.output.with_suffix(".checkpoint")
    key_train, key_test = jax.random.split(jax.random.key(options.seed))
    emulator = train_provabgs_spectrum(key_train, model, settings, checkpoint=stem)
    emulator, figures = measured(emulator, model, key_test, options.test)
    kind = family("provabgs")
    record = emulator.provenance | {
        "ssp": ssp.name,
        "citations": [*kind.citations, ssp.citation, "Alsing et al. 2020"],
        "errors": figures,
    }
    emulator = emulator.with_record(record)
    emulator.save(options.output)
    low, high = REDSHIFT_RANGE
    title = f"PROVABGS rest-frame spectra, ages of redshifts {low:g} to {high:g}"
    files.write_text(options.output.with_suffix(".md"), spectrum_card(emulator, title))
    for name in sizes:
        Path(f"{stem}.{name}").unlink(missing_ok=True)
    if options.figures is not None:
        _draw(emulator, options.figures)
    print(f"{options.output}: {figures['prior']}")


def _draw(emulator: ProvabgsSpectrum, folder: Path) -> None:
    from jaxsed.plots import save_figure
    from jaxsed.plots.spectrum_error import spectrum_error_percentiles, spectrum_mean_error

    folder.mkdir(parents=True, exist_ok=True)
    joints = emulator.provenance["training"]["smooth"]["settings"]["joints"]
    figure = spectrum_error_percentiles(emulator.errors, emulator.wave, joints)
    save_figure(figure, folder / "error_percentiles.png")
    save_figure(spectrum_mean_error(emulator.errors), folder / "mean_error.png")


if __name__ == "__main__":
    main()
