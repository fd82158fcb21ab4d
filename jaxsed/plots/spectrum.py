"""A fitted spectrum: data, model, residuals, lines and masks, whole and in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.types import Numbers, PyTree
from jaxsed.likelihood import Joint
from jaxsed.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PALE, RED, new_figure, styled
from jaxsed.problem import Problem
from jaxsed.sps.gas.lines import LINES
from jaxsed.workflows.spectra import spectrum_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZOOMS = (
    ("[O II], Ca H and K, the break", 3700.0, 4150.0),
    ("H$\\beta$, [O III], Mg b", 4800.0, 5330.0),
    ("H$\\alpha$, [N II], [S II]", 6480.0, 6780.0),
    ("Na D", 5800.0, 6000.0),
)
"""Rest-frame vacuum Angstrom; those with data are drawn, the last only without photometry."""

FLUX_LABEL = r"$f_\lambda$ [$10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$]"
SMOOTH = 9
"""Pixels over which the whole spectrum is averaged where it is noisy."""


class _Drawn(NamedTuple):
    wave: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    used: np.ndarray
    starts: np.ndarray
    total: np.ndarray
    continuum: np.ndarray
    low: np.ndarray
    high: np.ndarray
    redshift: float


@styled
def spectrum_fit(problem: Problem, x: Numbers, *, draws: Any = None, title: str = "") -> Figure:
    """A fit of a problem made by `jaxsed.workflows.spectra.spectrum_problem`.

    Args:
        problem: of one galaxy.
        x: [dimension] the coordinates whose model is drawn, such as the best draw's.
        draws: [draw, dimension] others, whose central 95 % is a band.
        title: above the picture.
    """
    model, _ = spectrum_part(problem)
    seen = _evaluate(problem, np.asarray(x), np.asarray(x)[None] if draws is None else draws)
    joint = isinstance(problem.data, Joint)
    zooms = [z for z in ZOOMS if _has_data(seen, z)][: 4 - joint]
    columns = max(len(zooms) + joint, 1)
    figure = new_figure(11.0, 7.2)
    grid = figure.add_gridspec(3, columns, height_ratios=(2.2, 0.9, 2.2))
    whole = figure.add_subplot(grid[0, :])
    below = figure.add_subplot(grid[1, :], sharex=whole)
    _whole(whole, seen)
    _residuals(below, seen)
    whole.set_title(title or "spectrum and model")
    names = set(model.line_names)
    for column, (name, low, high) in enumerate(zooms):
        axes = figure.add_subplot(grid[2, column])
        _zoom(axes, seen, low, high, names)
        axes.set_title(name)
        if column == 0:
            axes.set_ylabel(FLUX_LABEL)
    if joint:
        _bands(figure.add_subplot(grid[2, columns - 1]), problem, x)
    return figure


def _evaluate(problem: Problem, x: np.ndarray, draws: PyTree) -> _Drawn:
    _, data = spectrum_part(problem)

    @jax.jit
    def fitted(problem: Problem, x: jnp.ndarray) -> PyTree:
        at = problem.evaluate(x)
        both = isinstance(problem.data, Joint)
        pixels = at.prediction.spectrum if both else at.prediction
        return at.theta.redshift, spectrum_part(problem)[1].fit(pixels)

    redshift, fit = fitted(problem, jnp.asarray(x))
    totals = np.stack([np.asarray(fitted(problem, jnp.asarray(d))[1].total) for d in draws])
    inverse = np.asarray(data.inverse_sigma, float)
    used = inverse > 0
    sigma = np.where(used, 1 / np.where(used, inverse, 1), np.nan)
    wave = np.asarray(data.wave, float)
    low, high = np.quantile(totals, [0.025, 0.975], axis=0)
    starts = np.flatnonzero(np.diff(wave, prepend=np.inf) < 0)
    return _Drawn(
        wave, np.asarray(data.scaled) * sigma, sigma, used, starts, np.asarray(fit.total),
        np.asarray(fit.continuum * fit.calibration), low, high, float(redshift),
    )  # fmt: skip


def _arms(seen: _Drawn) -> list[slice]:
    ends = [*seen.starts[1:], seen.wave.size]
    return [slice(int(a), int(b)) for a, b in zip(seen.starts, ends, strict=True)]


def _has_data(seen: _Drawn, zoom: tuple[str, float, float]) -> bool:
    _, low, high = zoom
    rest = seen.wave[seen.used] / (1 + seen.redshift)
    inside = (rest > low) & (rest < high)
    return bool(inside.sum() > 50 and rest[inside].max() - rest[inside].min() > 0.7 * (high - low))


def _shade(axes: Axes, seen: _Drawn) -> None:
    """Pale where pixels are masked, unless the other arm sees the same wavelengths."""
    for arm in _arms(seen):
        wave, masked = seen.wave[arm], ~seen.used[arm]
        edges = np.diff(np.concatenate([[0], masked.astype(int), [0]]))
        starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1
        for first, last in zip(starts, ends, strict=True):
            if 0 < first and last < wave.size - 1:
                axes.axvspan(wave[first], wave[last], color=PALE, lw=0, zorder=0)


def _averaged(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Inverse-variance mean over `SMOOTH` pixels; not a number where none is used."""
    kernel = np.ones(SMOOTH)
    total = np.convolve(np.nan_to_num(values) * weight, kernel, mode="same")
    norm = np.convolve(weight, kernel, mode="same")
    return np.where(norm > 0, total / np.where(norm > 0, norm, 1), np.nan)


def _whole(axes: Axes, seen: _Drawn) -> None:
    noise = np.nanmedian(seen.sigma) / max(np.median(seen.continuum), 1e-30)
    for k, arm in enumerate(_arms(seen)):
        flux = seen.flux[arm]
        weight = np.where(seen.used[arm], seen.sigma[arm] ** -2.0, 0.0)
        first = k == 0
        if noise > 0.05:
            axes.plot(seen.wave[arm], flux, color=PALE, lw=0.4, zorder=1)
            flux = _averaged(flux, np.nan_to_num(weight))
        label = f"data, mean of {SMOOTH} pixels" if noise > 0.05 else "data"
        axes.plot(seen.wave[arm], flux, color=GREY, lw=0.7, label=label if first else None)
        axes.plot(seen.wave[arm], seen.total[arm], color=ORANGE, lw=0.8,
                  label="model with lines" if first else None)  # fmt: skip
        axes.plot(seen.wave[arm], seen.continuum[arm], color=BLUE, lw=0.8,
                  label="stars and dust, calibrated" if first else None)  # fmt: skip
    _shade(axes, seen)
    top = 2.2 * np.quantile(seen.continuum[seen.used], 0.9)
    top = min(top, 1.2 * np.max(seen.total[seen.used]))
    axes.set_ylim(min(0.0, np.nanquantile(seen.flux, 0.01)), max(top, 1e-30))
    axes.set_ylabel(FLUX_LABEL)
    axes.tick_params(labelbottom=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=3)
    axes.margins(x=0.01)


def _residuals(axes: Axes, seen: _Drawn) -> None:
    residual = np.where(seen.used, (seen.flux - seen.total) / seen.sigma, np.nan)
    for arm in _arms(seen):
        axes.plot(seen.wave[arm], residual[arm], ".", ms=1.0, color=GREY, alpha=0.5)
        weight = seen.used[arm].astype(float)
        axes.plot(seen.wave[arm], _averaged(residual[arm], weight), color=BLUE, lw=0.7)
    axes.axhline(0.0, color=BLACK, lw=0.6)
    axes.set_ylim(-5.5, 5.5)
    _shade(axes, seen)
    axes.set_ylabel(r"residual [$\sigma$]")
    axes.set_xlabel("observed wavelength, vacuum [Å]")


def _zoom(axes: Axes, seen: _Drawn, low: float, high: float, names: set[str]) -> None:
    rest = seen.wave / (1 + seen.redshift)
    for arm in _arms(seen):
        inside = (rest[arm] > low) & (rest[arm] < high) & seen.used[arm]
        wave = np.where(inside, rest[arm], np.nan)
        axes.step(wave, seen.flux[arm], where="mid", color=GREY, lw=0.6)
        axes.fill_between(wave, seen.low[arm], seen.high[arm], color=ORANGE, alpha=0.4, lw=0)
        axes.plot(wave, seen.total[arm], color=ORANGE, lw=1.0)
        axes.plot(wave, seen.continuum[arm], color=BLUE, lw=0.9)
    inside = (rest > low) & (rest < high) & seen.used
    peak = float(np.nanmax(seen.total[inside]))
    noise = float(np.nanmedian(seen.sigma[inside]))
    lowest = min(np.nanquantile(seen.flux[inside], 0.01), np.min(seen.continuum[inside]))
    bottom = float(lowest) - noise
    top = max(1.08 * peak, float(np.nanquantile(seen.flux[inside], 0.995)))
    axes.set_ylim(bottom, top + 0.12 * (top - bottom))
    axes.set_xlim(low, high)
    for line in LINES:
        for centre in line.waves:
            if line.name in names and low < centre < high:
                axes.axvline(centre, ymin=0.95, color=GREEN, lw=1.0)
    axes.set_xlabel("rest wavelength, vacuum [Å]")


def _bands(axes: Axes, problem: Problem, x: Numbers) -> None:
    """Photometry: fluxes against the model's, per pivot wavelength."""
    data: Any = problem.data
    forward: Any = problem.forward
    prediction = jax.jit(lambda p, x: p.evaluate(x).prediction)(problem, jnp.asarray(x))
    inverse = np.asarray(data.photometry.inverse_sigma, float)
    used = inverse > 0
    flux = np.asarray(data.photometry.scaled, float)[used] / inverse[used]
    names = np.asarray(forward.bands.bands.names)[used]
    place = np.arange(names.size)
    axes.errorbar(place, 1e9 * flux, 1e9 / inverse[used], fmt="o", ms=4, color=BLACK, label="data")
    model = np.asarray(prediction.photometry, float)[used]
    axes.plot(place, 1e9 * model, "s", ms=7, mfc="none", color=RED, label="model")
    axes.set_xticks(place, [str(n).replace("_", "\n") for n in names])
    axes.set_xlim(-0.6, names.size - 0.4)
    axes.set_ylim(0, None)
    axes.set_title("photometry [nanomaggies]")
    axes.legend(loc="upper left")
