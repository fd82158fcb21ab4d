"""``jaxsed validate``: an emulator against fresh simulations of the physics that it stands for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import Table
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as View

from jaxsed import infer, params
from jaxsed.bands.filters import make_filter
from jaxsed.bands.magnitudes import POGSON, to_arsinh
from jaxsed.core.errors import JaxsedError, user_errors
from jaxsed.core.types import Key, Model
from jaxsed.emulators import ProvabgsSpectrum, SpectrumEmulator, load_emulator, measured_sigma
from jaxsed.emulators.training.pairs import simulate_pairs
from jaxsed.emulators.validation.gradients import GradientErrors, gradient_errors
from jaxsed.emulators.validation.photometric import Validation, validate
from jaxsed.io import files
from jaxsed.io.outputs import check_folder, save_table
from jaxsed.sps.models.galaxy import GalaxyModel
from jaxsed.sps.models.registry import IGM, GalaxyFamily, family
from jaxsed.sps.ssp.grid import SSPGrid, load_ssp, read_ssp
from jaxsed.workflows.mocks import Agreement, agreement, fit_mocks, mock_galaxies
from jaxsed.workflows.train_photometric import EDGE, simulator
from jaxsed.workflows.validate_spectrum import GALAXIES, SpectrumOutcome, validate_spectrum

Report = Callable[[str, int, int], Any]
"""``report(what, done, of)``."""

PAIRS = 100_000

_SEED_OFFSET = 20_230  # so that the pairs are fresh even with the seed of the training
_POSTERIOR_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `validate_emulator` is to do."""

    pairs: int | None = None
    """Galaxies that the errors are measured on; 100,000, or 10,000 of a spectrum emulator."""
    gradients: int = 200
    """Galaxies whose derivatives are compared; none if zero."""
    posteriors: int = 0
    """Mock galaxies whose posteriors are compared; none if zero."""
    error_floor: float = 0.05
    """Relative uncertainty of the survey, without `survey`."""
    survey: Path | None = None
    """Table of two columns: band, and its uncertainty in mag."""
    ssp: Path | None = None
    """SSP grid, where that of the emulator does not come with the package."""
    seed: int = 0


@dataclass(frozen=True)
class Posteriors:
    """Posteriors of mocks with the emulator against those with the physics, and what two runs of
    the emulator differ by."""

    against_physics: Agreement
    repeated: Agreement
    redshift: np.ndarray
    """[galaxy] of those compared: they converged in all three runs."""
    mocks: int
    """How many were fitted."""

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "mocks": self.mocks,
            "compared": len(self.redshift),
            "against_physics": self.against_physics.figures(),
            "repeated": self.repeated.figures(),
        }


class Outcome(NamedTuple):
    """What `validate_file` found, and the tables it wrote."""

    view: View
    """To print."""
    paths: list[Path]
    photometry: Validation | None = None
    posteriors: Posteriors | None = None
    spectrum: SpectrumOutcome | None = None


def validate_file(
    path: str | Path, folder: str | Path, request: Request | None = None, *, progress: bool = True
) -> Outcome:
    """Validate an emulator of any kind and write ``errors.ecsv`` and ``validation.json``.

    Raises JaxsedError for a file that cannot be read, an emulator whose physics or SSP grid cannot
    be had, or a survey's table that does not fit its bands.
    """
    request, folder = request or Request(), Path(folder)
    check_folder(folder)
    try:
        emulator = load_emulator(path)
    except (ValueError, FileNotFoundError) as error:
        raise JaxsedError(str(error)) from error
    if isinstance(emulator, ProvabgsSpectrum):
        n = request.pairs or GALAXIES
        errors = validate_spectrum(emulator, n, ssp=request.ssp, seed=request.seed)
        return Outcome(
            errors.view(), _write(folder, errors.table(), errors.to_dict()), spectrum=errors
        )
    if isinstance(emulator, SpectrumEmulator):
        raise JaxsedError(
            f"{path}: a network that was imported: the physics it is of is not here to compare"
        )
    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24),
        TimeRemainingColumn(compact=True), disable=not progress,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=1)
        found, posteriors = validate_emulator(
            emulator,
            request,
            lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
        )
    numbers = found.to_dict()
    if posteriors is not None:
        numbers["posteriors"] = posteriors.to_dict()
    table = Table(found.columns(), meta={"unit": "mag, AB, emulated minus simulated"})
    table["wavelength"].unit = "Angstrom"
    return Outcome(error_view(found), _write(folder, table, numbers), found, posteriors)


def _write(folder: Path, table: Table, numbers: dict[str, Any]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "errors.ecsv", folder / "validation.json"]
    save_table(table, paths[0])
    files.write_text(paths[1], json.dumps(numbers, indent=1, allow_nan=False))
    return paths


def error_view(found: Validation) -> View:
    """A `rich` table of the errors: median and worst band."""
    view = View("", "median band", "worst band", "which", title="Emulation errors in mag")
    columns = found.columns()
    for name, words in (
        ("sigma", "σ"), ("absolute_99", "|error| of 99 %"), ("absolute_99.9", "of 99.9 %"),
        ("mean", "|mean|"), ("ratio", "σ / σ of the survey"),
    ):  # fmt: skip
        values = np.abs(columns[name])
        if not np.isfinite(values).any():
            view.add_row(words, "not measured", "", "")
            continue
        worst = int(np.nanargmax(values))
        view.add_row(
            words, f"{np.nanmedian(values):.4f}", f"{values[worst]:.4f}", found.band_names[worst]
        )
    return view


def validate_emulator(
    emulator: Model,
    request: Request | None = None,
    report: Report = lambda what, done, of: None,
) -> tuple[Validation, Posteriors | None]:
    """Measure a photometric emulator's errors on pairs that its training cannot have seen.

    Raises JaxsedError, see `validate_file`.
    """
    request = request or Request()
    n = request.pairs or PAIRS
    galaxies, model, redshifts = physics_of(emulator, request)
    survey = survey_sigma(emulator.band_names, request)
    if request.posteriors:
        with user_errors():  # before the long part
            measured_sigma(emulator)
    key = jax.random.fold_in(jax.random.key(request.seed), _SEED_OFFSET)
    key_pairs, key_gradients, key_mocks = jax.random.split(key, 3)
    widths = len(emulator.feature_names), len(emulator.band_names)
    report("pairs", 0, n)
    pairs = simulate_pairs(
        key_pairs, simulator(galaxies, model, redshifts), n, widths,
        report=lambda done: report("pairs", done, n),
    )  # fmt: skip
    report("errors", 0, 1)
    found = validate(emulator, pairs.features, pairs.f10, survey)
    if request.gradients:
        report("gradients", 0, 1)
        errors = compare_gradients(
            key_gradients, emulator, model, galaxies, redshifts, request.gradients
        )
        found = dataclasses.replace(found, gradients=errors)
    posteriors = None
    if request.posteriors:
        posteriors = compare_posteriors(
            key_mocks, emulator, model, galaxies, redshifts, request.posteriors, report
        )
    return found, posteriors


def physics_of(
    emulator: Model, request: Request
) -> tuple[GalaxyFamily, GalaxyModel, tuple[float, float]]:
    """The galaxy model an emulator is of, its physics in these bands, and the redshift range.

    Raises JaxsedError if its file does not say what it is of, or the SSP grid cannot be had.
    """
    record = emulator.record
    if not record.physics or not record.curves:
        raise JaxsedError(
            "the emulator's file does not say what physics and filters it is of, so there is "
            "nothing to compare it with"
        )
    try:
        galaxies = family(record.physics)
        grid: SSPGrid = read_ssp(request.ssp) if request.ssp else load_ssp(record.ssp)
    except (ValueError, OSError) as error:
        raise JaxsedError(f"the physics of the emulator: {error} (see --ssp)") from error
    if grid.name != record.ssp:
        raise JaxsedError(
            f"the emulator is of the SSP grid {record.ssp!r}, the one given is {grid.name!r}"
        )
    z = emulator.feature_names.index("redshift")
    # the range may reach below zero by a rounding
    redshifts = max(float(emulator.box_low[z]), 0.0), float(emulator.box_high[z])
    bands = [
        make_filter(name, curve.wave, curve.trans)
        for name, curve in zip(emulator.band_names, record.curves, strict=True)
    ]
    model = galaxies.model(
        grid, bands, redshift_range=redshifts, cosmology=emulator.cosmology,
        birth_cloud_age=record.birth_cloud_age, igm=record.igm or IGM,
    )  # fmt: skip
    return galaxies, model, redshifts


def survey_sigma(band_names: tuple[str, ...], request: Request) -> np.ndarray:
    """Uncertainty of the survey per band [mag].

    Raises JaxsedError for a table that does not name every band with a positive uncertainty.
    """
    if request.survey is None:
        return np.full(len(band_names), POGSON * request.error_floor)
    try:
        table = Table.read(
            request.survey,
            **({} if request.survey.suffix == ".ecsv" else {"format": "ascii"}),
        )
        known = {str(row[0]): float(row[1]) for row in table}
    except (ValueError, OSError, IndexError) as error:
        raise JaxsedError(f"{request.survey}: not a table of bands and errors ({error})") from error
    missing = [name for name in band_names if not known.get(name, 0.0) > 0]
    if missing:
        raise JaxsedError(
            f"{request.survey}: no uncertainty above zero [mag] for band {', '.join(missing)}"
        )
    return np.array([known[name] for name in band_names])


def compare_gradients(
    key: Key,
    emulator: Model,
    model: GalaxyModel,
    galaxies: GalaxyFamily,
    redshifts: tuple[float, float],
    n: int,
) -> GradientErrors:
    """Derivatives of arsinh magnitudes by the normal coordinates of the prior, and by redshift.

    Taken at n draws of the prior.  Mass is left out: light is proportional to it in both.
    """
    prior = galaxies.prior(jnp.asarray(redshifts[0], float))
    names = params.coordinate_names(prior)
    mass = names.index("log_mass_formed")
    key_z, key_u = jax.random.split(key)
    z = jax.random.uniform(key_z, (n, 1), float, *redshifts)
    u = jax.random.normal(key_u, (n, len(names)))

    def coordinates(z, u):
        own = galaxies.prior(z)
        x = jnp.clip(params.unconstrain(own, params.draw(own, u)), -EDGE, EDGE)
        return jnp.delete(x, mass, assume_unique_indices=True)

    def theta(x):
        own = galaxies.prior(x[0])
        return params.constrain(own, jnp.insert(x[1:], mass, 0.0))[0]

    return gradient_errors(
        lambda x: emulator.magnitudes(theta(x)),
        lambda x: to_arsinh(model.shape(theta(x)), emulator.mu_0),
        np.concatenate([z, jax.jit(jax.vmap(coordinates))(z[:, 0], u)], 1),
        ("redshift", *names[:mass], *names[mass + 1 :]),
    )


def compare_posteriors(
    key: Key,
    emulator: Model,
    model: GalaxyModel,
    galaxies: GalaxyFamily,
    redshifts: tuple[float, float],
    n: int,
    report: Report = lambda what, done, of: None,
    sampler: infer.Method | None = None,
) -> Posteriors:
    """Posteriors of n mocks, each fitted with the physics and twice with the emulator.

    Galaxies that do not converge in any of the three are left out.
    """
    sampler = sampler or infer.HMC()
    key_z, key_mock, *keys = jax.random.split(key, 5)
    z = np.asarray(jax.random.uniform(key_z, (n,), float, *redshifts))
    mocks = mock_galaxies(key_mock, galaxies, model, z)
    sigma = measured_sigma(emulator)
    thetas, ok = [], np.ones(n, bool)
    for run, (words, forward, own_sigma) in enumerate(
        (
            ("emulator", emulator, sigma),
            ("emulator again", emulator, sigma),
            ("physics", model, np.zeros_like(sigma)),
        )
    ):
        parts = []
        for start in range(0, n, _POSTERIOR_BATCH):
            report(f"posteriors, {words}", start, n)
            rows = np.arange(start, min(start + _POSTERIOR_BATCH, n))
            samples = fit_mocks(
                jax.random.split(keys[run], n)[rows], mocks.take(rows), forward, own_sigma,
                sampler,
            )  # fmt: skip
            ok[rows] &= samples.diagnostics.passes()
            parts.append(jax.tree.map(np.asarray, samples.theta))
        thetas.append(jax.tree.map(lambda *a: np.concatenate(a), *parts))
    if not ok.any():
        raise JaxsedError("no mock galaxy's posterior converged in all runs")
    first, again, exact = (jax.tree.map(lambda a: a[ok], theta) for theta in thetas)
    return Posteriors(agreement(first, exact), agreement(first, again), z[ok], n)
