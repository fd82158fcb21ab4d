"""What evaluates a configured model: the direct physics, or an emulator that covers the bands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsed import cosmology as cosmo
from jaxsed.bands.filters import Filter
from jaxsed.core.errors import JaxsedError, user_errors
from jaxsed.cosmology import Cosmology
from jaxsed.emulators import (
    PhotometricEmulator,
    StitchedEmulator,
    cache_folder,
    emulator_files,
    is_photometric,
    load_emulator,
    measured_sigma,
)
from jaxsed.likelihood import MAG_TO_RELATIVE
from jaxsed.sps.models.galaxy import GalaxyModel
from jaxsed.sps.models.registry import GalaxyFamily
from jaxsed.sps.ssp.grid import SSPGrid, load_ssp, read_ssp

BUDGET = 0.75
"""An emulator is within budget if its error in every band is below this share of the error floor;
the likelihood counts the error that is left (Mathews+ 2023: smaller than the observations)."""


@dataclass(frozen=True)
class ModelChoice:
    """Which galaxies are modelled, and what may evaluate them."""

    galaxies: GalaxyFamily
    grid: str | Path
    """The SSP grid: a shipped one, or a file."""
    cosmology: Cosmology
    cosmology_name: str
    igm: str
    birth_cloud_age: float | None
    """Gyr; None for the galaxies' own."""
    predictor: str
    """"auto", "emulator" or "physics"."""
    emulator: Path | None
    """A file that must serve; None to look for one."""
    error_floor: float
    """Of the likelihood, which an emulator's error must be small against."""


@dataclass(frozen=True)
class Predictor:
    """A forward model for the bands of a run, and the physics for derived quantities."""

    forward: GalaxyModel | PhotometricEmulator | StitchedEmulator
    physics: GalaxyModel
    kind: str
    """"emulator" or "physics"."""
    sigma: np.ndarray
    """[band] error of the forward model in mag; zero for the physics."""
    correlation: np.ndarray | None
    """[band, band] of the emulator's errors."""
    reachable: np.ndarray
    """[band] whether the forward model predicts the band; the others get zeros."""
    provenance: dict[str, Any]
    reason: str
    """Why this one, in words for the user."""


def load_grid(model: ModelChoice) -> SSPGrid:
    """The SSP grid: shipped, or a file of the user's.

    Raises JaxsedError for a file that is not there or cannot be read.
    """
    try:
        return read_ssp(model.grid) if isinstance(model.grid, Path) else load_ssp(model.grid)
    except (ValueError, OSError) as error:
        raise JaxsedError(f"[model] ssp = {str(model.grid)!r}: {error}") from error


def find_emulator(
    model: ModelChoice,
    filters: Sequence[Filter],
    redshift: np.ndarray,
    grid: SSPGrid,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Path, PhotometricEmulator | StitchedEmulator] | None:
    """The best emulator of this physics that covers the bands and redshifts, if any.

    Bands are matched by their curves, not by their names, and the result has just these bands.
    Of several emulators, those within the error budget come first, then those with the smaller
    error in their worst band, then the cheaper ones.

    Args:
        model: what is to be emulated, down to the age of birth clouds, intergalactic absorption
            and cosmology.
        filters: the bands.
        redshift: [galaxy] redshifts that must be covered.
        grid: the SSP grid of the run.
        report: is told of files that are passed over because they cannot be read.

    Raises JaxsedError for a configured emulator that is not there, cannot be read, or is of other
    physics or bands.
    """
    if model.emulator is not None:
        path = model.emulator
        try:
            emulator = load_emulator(path)
        except (ValueError, OSError) as error:
            raise JaxsedError(f"[model] emulator: {error}.") from error
        if not isinstance(emulator, PhotometricEmulator | StitchedEmulator):
            raise JaxsedError(f"[model] emulator: {str(path)!r} is not of photometry.")
        if misfit := _misfit(emulator, model, grid, strict=False):
            raise JaxsedError(
                f"[model] emulator: {str(path)!r} {misfit}: change [model] to fit it, "
                "or train an emulator of this configuration with `jaxsed train`."
            )
        return path, _matched(emulator, filters, redshift, path)
    allowed = _allowed(model.error_floor)
    ranked = []
    for path in emulator_files():
        try:
            emulator = load_emulator(path) if is_photometric(path) else None
        except (ValueError, OSError) as error:
            report(f"passed over: {error}")
            continue
        if emulator is None or _misfit(emulator, model, grid, strict=True):
            continue
        matched = _matched(emulator, filters, redshift)
        if matched is not None:
            worst = _worst(matched)
            ranked.append(((not worst <= allowed, worst, matched.multiplications), path, matched))
    if not ranked:
        return None
    _, path, emulator = min(ranked, key=lambda entry: entry[0])
    return path, emulator


def _worst(emulator: PhotometricEmulator | StitchedEmulator) -> float:
    """Standard deviation of the error in the worst band [mag]; infinite where not measured."""
    worst = float(np.max(np.asarray(emulator.error_ab.sigma)))
    return worst if np.isfinite(worst) else np.inf


def _allowed(error_floor: float) -> float:
    """Largest error of an emulator [mag] within the budget of an error floor."""
    return BUDGET * error_floor / MAG_TO_RELATIVE


def _misfit(
    emulator: PhotometricEmulator | StitchedEmulator,
    model: ModelChoice,
    grid: SSPGrid,
    *,
    strict: bool,
) -> str:
    """In which of its physics an emulator differs from what is asked for; empty if in none.

    What the emulator's file does not tell differs only if `strict`.
    """
    record, galaxies = emulator.record, model.galaxies
    for name, own, wanted in (
        ("physics", record.physics or None, galaxies.name),
        ("SSP grid", record.ssp or None, grid.name),
        ("birth_cloud_age", record.birth_cloud_age, galaxies.clouds(model.birth_cloud_age)),
        ("igm", record.igm, model.igm),
    ):
        if own is None and not strict:
            continue
        if own != wanted:
            return f"has {name} {'not recorded' if own is None else own}, not {wanted}"
    if not cosmo.same(emulator.cosmology, model.cosmology):
        return f"has another cosmology than {model.cosmology_name}"
    return ""


def _matched(
    emulator: PhotometricEmulator | StitchedEmulator,
    filters: Sequence[Filter],
    redshift: np.ndarray,
    asked: Path | None = None,
) -> Any:
    """The emulator for these bands and redshifts; None where it has not all of them, unless it is
    of a file that was asked for."""
    names = [emulator.find_band(f) for f in filters]
    missing = [f.name for f, name in zip(filters, names, strict=True) if name is None]
    z = emulator.feature_names.index("redshift")
    low, high = float(emulator.box_low[z]), float(emulator.box_high[z])
    outside = (redshift < low - 1e-6) | (redshift > high + 1e-6)
    if asked is not None and missing:
        raise JaxsedError(
            f"[model] emulator {str(asked)!r} has no curve like that of "
            f'{", ".join(missing)}; train one with `jaxsed train` or set predictor = "physics".'
        )
    # A few galaxies outside are flagged; a catalogue of them needs another emulator.
    if asked is None and (missing or outside.mean() > 0.05):
        return None
    emulator = emulator.select([name for name in names if name is not None])
    if isinstance(emulator, StitchedEmulator):
        # only the members that these redshifts need; galaxies outside are flagged either way
        emulator = emulator.restrict(*np.clip([redshift.min(), redshift.max()], low, high))
    return emulator


def make_predictor(
    model: ModelChoice,
    filters: Sequence[Filter],
    redshift: np.ndarray,
    *,
    train: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Predictor:
    """Choose what evaluates the model for these bands and redshifts.

    ``predictor = "auto"`` takes the one with fewer multiplications among the direct physics and
    an emulator within the error budget.

    Raises JaxsedError if an emulator is asked for and none covers the bands, or its error was not
    measured in all of them.
    """
    galaxies, grid = model.galaxies, load_grid(model)
    z_range = (float(redshift.min()), float(redshift.max()))
    blocked = set(galaxies.unreachable(filters, grid, z_range))
    reachable = np.array([f.name not in blocked for f in filters])
    if not reachable.any():
        raise JaxsedError(
            f"the SSP grid {grid.name} reaches none of the bands at redshifts "
            f"{z_range[0]:g} to {z_range[1]:g}."
        )
    usable = [f for f, ok in zip(filters, reachable, strict=True) if ok]
    physics = galaxies.model(
        grid, usable,
        redshift_range=z_range, birth_cloud_age=model.birth_cloud_age, cosmology=model.cosmology,
        igm=model.igm,
    )  # fmt: skip
    wanted = model.predictor
    found = None
    if wanted != "physics":
        found = find_emulator(model, usable, redshift, grid, report=report)
        if found is None and train:
            found = _train(model, grid, usable, z_range, report)
        if found is None and wanted == "emulator":
            raise JaxsedError(
                "no emulator covers these bands and redshifts: --train makes one (some 15 minutes "
                'on two cores), or set predictor = "physics" in [model].'
            )
    if found is not None:
        path, emulator = found
        chosen, reason = _prefer(emulator, physics, model.error_floor, wanted)
        if chosen:
            return _emulated(path, emulator, physics, grid, reachable, reason)
    else:
        reason = "no emulator covers these bands and redshifts"
    if wanted == "physics":
        reason = "as configured"
    provenance = {"predictor": "physics", "ssp": grid.name, "ssp_checksum": _digest(grid)}
    zeros = np.zeros(len(usable))
    return Predictor(physics, physics, "physics", zeros, None, reachable, provenance, reason)


def _emulated(path, emulator, physics, grid, reachable, reason) -> Predictor:
    sigma = measured_sigma(emulator)
    covariance = np.asarray(emulator.error_ab.covariance, float)
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.maximum(np.outer(scale, scale), 1e-30)
    # NaN of two bands that no test galaxy has both light in: as independent as without correlation
    correlation = np.nan_to_num(correlation)
    provenance = {
        "predictor": "emulator",
        "emulator": path.name,
        "emulator_checksum": hashlib.sha256(path.read_bytes()).hexdigest(),
        "ssp": emulator.record.ssp,
        "ssp_checksum": _digest(grid),  # derived quantities are of the physics
    }
    return Predictor(
        emulator, physics, "emulator", sigma, correlation, reachable, provenance, reason
    )


def _prefer(emulator, physics, floor, wanted) -> tuple[bool, str]:
    worst, allowed = _worst(emulator), _allowed(floor)
    if wanted == "emulator":
        with user_errors():
            measured_sigma(emulator)
        return True, f"as configured; its largest error is {worst:.4f} mag"
    if not worst <= allowed:
        return False, f"the emulator's error of {worst:.4f} mag exceeds {allowed:.4f} mag"
    network = emulator.multiplications
    stars = physics.stars
    direct = int(stars.young.size + stars.old.size + physics.bands.matrix.size)
    if network > direct:
        return False, f"the physics takes {direct} multiplications, the emulator {network}"
    return True, (
        f"error at most {worst:.4f} mag; {network} multiplications against {direct} of the physics"
    )


def _train(model: ModelChoice, grid, filters, z_range, report):
    from jaxsed.workflows.train_photometric import CACHE_SETTINGS, train_emulator

    margin = 0.05 * (1 + z_range[1])
    low, high = max(z_range[0] - margin, 0.0), z_range[1] + margin
    minutes = (CACHE_SETTINGS.fit.max_seconds or 0.0) / 60
    report(f"training an emulator for {len(filters)} bands: about {minutes:.0f} minutes")
    emulator, _ = train_emulator(
        jax.random.key(0), model.galaxies, grid, filters,
        redshift_range=(low, high), settings=CACHE_SETTINGS,
        cosmology=model.cosmology, birth_cloud_age=model.birth_cloud_age, igm=model.igm,
    )  # fmt: skip
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model.galaxies.name}_{_content(emulator)[:12]}.h5"
    emulator.save(path)
    return path, emulator


def _content(emulator: PhotometricEmulator) -> str:
    """SHA-256 of what an emulator is of: physics, filter curves and range, whatever their names."""
    digest = hashlib.sha256(emulator.record.digest().encode())
    for part in (*jax.tree.leaves(emulator.cosmology), emulator.box_low, emulator.box_high):
        digest.update(np.asarray(part, float).tobytes())
    return digest.hexdigest()


def _digest(grid: SSPGrid) -> str:
    sha = hashlib.sha256()
    for name in ("log_z", "log_age", "wave", "lnu", "mass_surviving", "log_nlyc"):
        values = getattr(grid, name)
        sha.update(name.encode() if values is None else np.asarray(values).tobytes())
    return sha.hexdigest()
