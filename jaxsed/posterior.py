"""What a notebook begins with: a galaxy's physics by name, and the posterior of one galaxy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsed import infer
from jaxsed.bands.filters import Filter, load_filter
from jaxsed.core.constants import PERCENTILES
from jaxsed.core.types import Forward, Key, PyTree, Row
from jaxsed.cosmology import COSMOLOGIES, same
from jaxsed.infer import Method, Samples
from jaxsed.likelihood import Photometry, RedshiftedPhotometry
from jaxsed.likelihood.goodness import smallest_chi2
from jaxsed.likelihood.photometry import DETECTION, MISSING, UPPER_LIMIT
from jaxsed.problem import Problem, take
from jaxsed.sps.models.galaxy import GalaxyModel
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import SSPGrid, load_ssp


def galaxy(
    name: str,
    bands: Sequence[str | Filter],
    *,
    redshift: float | tuple[float, float],
    ssp: SSPGrid | str | None = None,
    **options: Any,
) -> GalaxyModel:
    """The direct physics of galaxies by name: ``model(theta) -> flux`` in maggies per band.

    Args:
        name: "provabgs", "continuity" or "prospector".
        bands: filters, or their astro-sedpy names.
        redshift: the redshift, or the lowest and highest one.
        ssp: an SSP grid, or the name of a shipped one; default: the model's own.
        options: further ones of `jaxsed.sps.models.galaxy.galaxy_model`, such as `cosmology`.

    Raises ValueError for an unknown name, an unknown filter, and bands that the grid does not
    reach at these redshifts.
    """
    galaxies = family(name)
    grid = ssp if isinstance(ssp, SSPGrid) else load_ssp(ssp or galaxies.ssp)
    filters = [load_filter(band) if isinstance(band, str) else band for band in bands]
    limits = redshift if isinstance(redshift, tuple) else (redshift, redshift)
    return galaxies.model(grid, filters, redshift_range=limits, **options)


@dataclass(frozen=True)
class Posterior(Samples):
    """Draws from a posterior, with the problem they are of.

    ``posterior[name]`` are the draws of a parameter or derived quantity: [chain, draw, ...] of one
    galaxy, with a leading galaxy axis of a batch.
    """

    problem: Problem
    derive: PyTree = None
    """The model of the derived quantities."""

    def galaxy(self, galaxy: int) -> Posterior:
        """The posterior of one galaxy of a batch."""
        one = dataclasses.replace(self, problem=take(self.problem, galaxy))
        return Samples.galaxy(one, galaxy)  # type: ignore[return-value]

    def sfh(self) -> tuple[np.ndarray, np.ndarray]:
        """Star formation history of one galaxy.

        Returns lookback times [age] in Gyr at which age intervals end, and the mean star formation
        rate in each [chain, draw, age], Msun/yr.

        Raises ValueError where the derived quantities are not those of the direct physics.
        """
        if not isinstance(self.derive, GalaxyModel):
            raise ValueError(
                "no star formation history is derived: sample with derive=galaxy(...), the physics"
            )
        return np.asarray(self.derive.stars.axis.age), self.derived["sfr"]

    def plot_sed(self, **options: Any) -> Any:
        """Observed fluxes, the posterior prediction of every band, and the residuals, of one
        galaxy; see `jaxsed.plots.sed` for the options."""
        from jaxsed import plots

        return plots.sed(_one_row(self), row=0, **options)

    def plot_sfh(self, **options: Any) -> Any:
        """Star formation rate against lookback time of one galaxy; see `jaxsed.plots.sfh`."""
        from jaxsed import plots

        self.sfh()
        return plots.sfh(_one_row(self), row=0, **options)

    def plot_corner(self, **options: Any) -> Any:
        """Joint posterior of the parameters of one galaxy; see `jaxsed.plots.corner`."""
        from jaxsed import plots

        return plots.corner(_one_row(self), row=0, **options)


def sample(
    key: Key,
    problem: Problem,
    method: Method | infer.FlowImportance | str = "hmc",
    *,
    derive: PyTree = None,
    **options: Any,
) -> Posterior:
    """Draw from the posterior of one galaxy or of a batch; see `jaxsed.infer.sample`.

    Args:
        key: one key, or one per galaxy [galaxy].
        problem: one galaxy, or a batch with as many galaxies as keys.
        method: such as ``NUTS(draws=1000)``, or its name with the default options.
        derive: a model with ``derived(theta)``; default: the forward model, if it has them.
        options: see `jaxsed.infer.sample`.
    """
    if derive is None and hasattr(problem.forward, "derived"):
        derive = problem.forward
    found = infer.sample(key, problem, method, derive=derive, **options)
    fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    return Posterior(**fields, problem=problem, derive=derive)


def _one_row(posterior: Posterior) -> _Row:
    if posterior.log_density.ndim != 2:
        raise ValueError("a batch of galaxies: choose one, posterior.galaxy(0)")
    return _Row(posterior)


class _Row:
    """One posterior as the pictures know a run: of one row."""

    path = Path("posterior")
    ids = np.array([""])
    flags = np.zeros(1, np.int64)

    def __init__(self, posterior: Posterior) -> None:
        self._posterior = posterior
        problem: Any = posterior.problem
        data: Any = getattr(problem.data, "photometry", problem.data)
        if not isinstance(problem.data, Photometry | RedshiftedPhotometry):
            raise ValueError(
                "the data are not photometry: spectra and joint fits are drawn by "
                "jaxsed.plots.spectrum_fit"
            )
        inverse, limit = (
            np.asarray(getattr(data, name))
            for name in ("inverse_sigma", "limit_inverse_sigma")
        )
        found, limited = inverse > 0, limit > 0
        sigma = np.where(found, inverse, np.where(limited, limit, 1.0))
        value = np.where(found, data.scaled, np.where(limited, data.limit, 0.0))
        self.flux, self.error = (value / sigma)[None], np.where(found | limited, 1 / sigma, 0)[None]
        self.kind = np.where(found, DETECTION, np.where(limited, UPPER_LIMIT, MISSING))[None]
        self.band_wave = _pivots(problem.forward)
        redshift = getattr(posterior.theta, "redshift", np.full((1, 1), np.nan))
        known = np.ptp(redshift) == 0
        self.redshift = np.array([np.ravel(redshift)[0] if known else np.nan])
        self.provenance = {"config": _config(problem.forward)}
        draws = dict(posterior.theta._asdict()) | posterior.derived
        self._draws = {name: np.asarray(values) for name, values in draws.items()}
        if known:
            self._draws.pop("redshift", None)

    def __len__(self) -> int:
        return 1

    @property
    def quantities(self) -> tuple[str, ...]:
        return tuple(self._draws)

    @property
    def predicted_flux(self) -> np.ndarray:
        flat = np.reshape(self._posterior.flux, (-1, self.flux.shape[1]))
        return np.percentile(flat, PERCENTILES, axis=0)[None]

    @property
    def table(self) -> dict[str, np.ndarray]:
        return {"method": np.array([self._posterior.diagnostics.method])}

    def row(self, id: Row) -> int:
        return 0

    def summary(self, name: str) -> np.ndarray:
        flat = self._draws[name].reshape(-1, *self._draws[name].shape[2:])
        return np.percentile(flat, PERCENTILES, axis=0)[None]

    def diagnostic(self, name: str) -> np.ndarray:
        if name == "n_detected":
            return (self.kind == DETECTION).sum(axis=1)
        if name == "chi2":
            posterior: Any = self._posterior
            data = jax.tree.map(lambda a: a[None], posterior.problem.data)
            redshift = getattr(posterior.theta, "redshift", np.nan)
            return smallest_chi2(data, posterior.flux[None], np.asarray(redshift)[None])
        return np.array([getattr(self._posterior.diagnostics, name)])

    def draws(self, id: Row = None, *, row: int | None = None) -> dict[str, np.ndarray]:
        return self._draws

    def per_galaxy(self, id: Row = None, *, row: int | None = None) -> dict[str, np.ndarray]:
        return {"sfh_age": self._posterior.sfh()[0]}


def _pivots(forward: Any) -> np.ndarray:
    """[band] pivot wavelengths in Angstrom of a model's bands."""
    if isinstance(forward, GalaxyModel):
        return np.asarray(forward.bands.pivot)
    return np.array([curve.pivot for curve in forward.record.curves])


def _config(forward: Forward) -> str:
    """What the pictures read of a configuration: the errors hold their floor already."""
    own = getattr(forward, "cosmology", COSMOLOGIES["planck15"])
    names = [name for name, known in COSMOLOGIES.items() if same(own, known)]
    model = f'[model]\ncosmology = "{names[0]}"\n' if names else ""
    return f"{model}[likelihood]\nerror_floor = 0.0\n"
