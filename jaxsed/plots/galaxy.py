"""Pictures of one galaxy: its posterior, its photometry, its star formation history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxsed.core.constants import PERCENTILES
from jaxsed.core.types import Numbers, Row
from jaxsed.plots.data import (
    DETECTION,
    MISSING,
    UPPER_LIMIT,
    Run,
    error_floor,
    title,
    universe_age,
)
from jaxsed.plots.style import (
    BLACK,
    BLUE,
    GREY,
    PALE,
    RED,
    label,
    new_figure,
    plain_numbers,
    styled,
    wave_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

MICROJANSKY_PER_MAGGIE = 3631e6
AB_ZERO = -2.5 / math.log(10.0)  # magnitudes per ln(maggies)
PANEL, MARGIN = 1.15, 0.85  # inches, of a corner plot
HALF_WIDTH = 1.03  # of a prediction's box: the factor on its wavelength to either side
# Derived quantities that say much the same as others: in a corner plot only when asked for.
FURTHER = ("log_sfr_10myr", "log_sfr_1gyr", "t50", "t90")
LEGEND = (
    "observed",
    "not fitted",
    "model, 68 %",
    "upper limit",
    r"flux below 0: 2$\sigma$",
    "not observed",
)
ARROW = 0.8  # where the arrow of a limit ends, as a fraction of it
EARLIEST = 0.001  # Gyr, where a logarithmic time axis begins
LONGEST_VECTOR = 8  # components; longer ones, such as a history, are no parameters


# ------------------------------------------------------------------ corner


def interval(low: float, middle: float, high: float) -> str:
    """A median and its errors, the smaller one to two digits, for mathtext."""
    smaller = min(middle - low, high - middle)
    digits = 2
    if smaller > 0:  # the small number is for 0.1, which may be stored as 0.0999
        digits = int(np.clip(1 - np.floor(np.log10(smaller) + 1e-3), 0, 7))
    return f"${middle:.{digits}f}^{{+{high - middle:.{digits}f}}}_{{-{middle - low:.{digits}f}}}$"


def columns(draws: dict[str, Array]) -> dict[str, Array]:
    """Draws [chain, draw, ...] as one column [chain * draw] per scalar, vectors by component.

    Long vectors are left out.
    """
    flat = {}
    for name, value in draws.items():
        if value.ndim == 2:
            flat[name] = value.ravel()
        elif value.ndim == 3 and value.shape[2] <= LONGEST_VECTOR:
            for k in range(value.shape[2]):
                flat[f"{name}_{k + 1}"] = value[..., k].ravel()
    return flat


@styled
def corner(
    results: Run,
    id: Row = None,
    *,
    row: int | None = None,
    names: Sequence[str] | None = None,
    truth: dict[str, float] | None = None,
) -> Figure:
    """Joint posterior of one galaxy's parameters and derived quantities.

    Titles and dashed lines are the median and the 68 % interval; contours hold 39 and 86 % (1 and
    2 sigma in two dimensions).  What does not vary between draws is left out.

    Args:
        results: a finished run.
        id: the galaxy, or its row (from 0).
        row: see `id`.
        names: which quantities, ``beta`` for all components of a vector or ``beta_2`` for one;
            the parameters and the main derived
            quantities if not given.
        truth: known values by name, drawn as lines.

    Raises ValueError for an unknown quantity, or a galaxy with nothing to show.
    """
    import corner as corner_library

    row = results.row(id) if row is None else row
    draws = results.draws(row=row)
    flat = columns(draws)
    if names is None:
        flat = {name: value for name, value in flat.items() if name not in FURTHER}
    else:
        wanted = []
        for name in names:
            components = [n for n in flat if n == name or n.rpartition("_")[0] == name]
            if name not in flat and (name not in draws or not components):
                raise ValueError(f"no quantity {name!r} to plot; there are: {', '.join(flat)}")
            wanted += [name] if name in flat else components
        flat = {name: flat[name] for name in wanted}
    good = np.all([np.isfinite(value) for value in flat.values()], axis=0)
    flat = {name: value[good] for name, value in flat.items()}
    flat = {name: value for name, value in flat.items() if value.size and np.ptp(value) > 0}
    if not flat:
        raise ValueError(f"row {row} (id {results.ids[row]!r}): no quantity varies between draws.")
    n = len(flat)
    size = PANEL * n + MARGIN + 0.4
    figure = new_figure(size, size, layout=None)
    corner_library.corner(
        np.column_stack(list(flat.values())),
        fig=figure,
        labels=[label(name, short=True) for name in flat],
        range=[0.995] * n,
        bins=20,
        smooth=1.0,
        color=BLUE,
        quantiles=[p / 100 for p in PERCENTILES],
        label_kwargs={"fontsize": 8},
        max_n_ticks=3,
        levels=(1 - math.exp(-0.5), 1 - math.exp(-2.0)),
        plot_datapoints=False,
        fill_contours=True,
        truths=None if truth is None else [truth.get(name) for name in flat],
        truth_color=RED,
    )
    figure.subplots_adjust(
        left=MARGIN / size, bottom=MARGIN / size, right=1 - 0.1 / size, top=1 - 0.3 / size,
        wspace=0.08, hspace=0.08,
    )  # fmt: skip
    grid = np.array(figure.axes).reshape(n, n)
    for k, value in enumerate(flat.values()):
        low, middle, high = np.percentile(value, PERCENTILES)
        grid[k, k].set_title(interval(low, middle, high), fontsize=9, loc="center")
        grid[-1, k].xaxis.set_label_coords(0.5, -0.45 / PANEL)
        if k:
            grid[k, 0].yaxis.set_label_coords(-0.45 / PANEL, 0.5)
    figure.suptitle(title(results, row), x=1 - 0.1 / size, y=1 - 0.1 / size, ha="right",
                    fontsize=11)  # fmt: skip
    return figure


# ------------------------------------------------------------------ photometry


@styled
def sed(results: Run, id: Row = None, *, row: int | None = None, unit: str = "uJy") -> Figure:
    """Observed fluxes, the posterior prediction of every band, and the residuals.

    Boxes are the 68 % interval of the model flux, lines in them the median.  In the upper panel
    an arrow is an upper limit, or twice the error where the flux is below zero; open circles are
    bands that the model cannot predict, which are left out of the fit.  Every fitted detection is
    in the lower panel with its value, in units of its error (with the model's error floor).

    Args:
        results: a finished run.
        id: the galaxy, or its row (from 0).
        row: see `id`.
        unit: "uJy" or "ABmag".

    Raises ValueError for an unknown unit, or a galaxy with nothing to show.
    """
    if unit not in ("uJy", "ABmag"):
        raise ValueError(f"unit {unit!r}: expected uJy or ABmag.")
    row = results.row(id) if row is None else row
    wave = np.asarray(results.band_wave) / 1e4
    flux, error, kind = results.flux[row], results.error[row], results.kind[row]
    predicted = np.asarray(results.predicted_flux[row], float)
    if not (np.isfinite(predicted).any() or (kind != MISSING).any()):
        raise ValueError(f"row {row} (id {results.ids[row]!r}): no flux and no prediction.")
    floor = error_floor(results)
    total = np.hypot(error, floor * flux)

    def y(maggies: Numbers) -> Numbers:
        """A positive flux on the axis."""
        if unit == "uJy":
            return np.asarray(maggies) * MICROJANSKY_PER_MAGGIE
        return AB_ZERO * np.log(maggies)

    figure = new_figure(6.4, 4.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _predictions(top, wave, y(np.maximum(predicted, 1e-30)), kind)
    positive = (kind == DETECTION) & (flux > 0)
    modelled = np.isfinite(predicted).all(axis=0)
    for chosen, words, style in (
        (positive & modelled, LEGEND[0], {"color": BLACK, "mec": "white", "mew": 0.5}),
        (positive & ~modelled, LEGEND[1], {"color": GREY, "mfc": "none"}),
    ):
        if not chosen.any():
            continue
        value, spread = flux[chosen], error[chosen]
        middle = y(value)
        below = np.abs(middle - y(np.maximum(value - spread, 0.05 * value)))
        above = np.abs(middle - y(value + spread))
        bars = [below, above] if unit == "uJy" else [above, below]  # fainter: larger magnitude
        top.errorbar(
            wave[chosen], middle, bars, fmt="o", ms=4.5, elinewidth=1.0, zorder=4, label=words,
            **style,
        )  # fmt: skip
    limits = (kind == UPPER_LIMIT) & (flux > 0)
    negative = (kind == DETECTION) & (flux <= 0)
    for chosen, value, words, color in (
        (limits, flux, LEGEND[3], BLACK),
        (negative, 2 * error, LEGEND[4], GREY),
    ):
        if chosen.any():
            x, limit = wave[chosen], value[chosen]
            top.plot(x, y(limit), ls="", marker="_", ms=9, mew=1.5, color=color, zorder=4)
            top.vlines(x, y(limit), y(ARROW * limit), color=color, lw=1.0, zorder=4)
            top.plot(x, y(ARROW * limit), "v", ms=5, color=color, zorder=4, label=words)
    top.use_sticky_edges = False
    top.margins(y=0.08)
    if unit == "uJy":
        top.set_yscale("log")
        plain_numbers(top.yaxis)
        top.set_ylabel("flux density [µJy]")
    else:
        top.invert_yaxis()
        top.set_ylabel("AB magnitude [mag]")
    missing = kind == MISSING
    if missing.any():
        top.plot(
            wave[missing], np.full(missing.sum(), 0.02), ls="", marker="x", ms=4, color=GREY,
            transform=top.get_xaxis_transform(), label=LEGEND[5],
        )  # fmt: skip
    chi2, bands = results.diagnostic("chi2")[row], int(results.diagnostic("n_detected")[row])
    top.set_title(f"{title(results, row)}    best $\\chi^2$ = {chi2:.1f} in {bands} detected bands")
    handles, words = top.get_legend_handles_labels()
    first = sorted(range(len(words)), key=lambda i: LEGEND.index(words[i]))
    top.legend([handles[i] for i in first], [words[i] for i in first], loc="best")
    _residuals(bottom, wave, (flux, total, kind), predicted)
    bottom.set_ylabel(r"residual [$\sigma$]")
    wave_axis(bottom, results.band_wave)
    if floor:
        bottom.annotate(
            rf"$\sigma$ with {100 * floor:g} % of the flux", (1, 1), xycoords="axes fraction",
            ha="right", va="bottom", fontsize=7, color=GREY,
        )  # fmt: skip
    return figure


def _predictions(axes: Axes, wave: Array, y: Array, kind: Array) -> None:
    """Boxes of the 68 % interval [3, band], paler where nothing was observed."""
    for used, color, words in ((True, BLUE, LEGEND[2]), (False, PALE, None)):
        chosen = ((kind != MISSING) == used) & np.isfinite(y).all(axis=0)
        if not chosen.any():
            continue
        low, middle, high = y[:, chosen]
        left, right = wave[chosen] / HALF_WIDTH, wave[chosen] * HALF_WIDTH
        alpha = 0.35 if used else 0.6
        axes.bar(
            left, high - low, width=right - left, bottom=low, align="edge", color=color,
            alpha=alpha, lw=0, zorder=2, label=words,
        )  # fmt: skip
        axes.hlines(middle, left, right, color=color if used else GREY, lw=1.2, zorder=3)


def _residuals(
    axes: Axes, wave: Array, observed: tuple[Array, Array, Array], predicted: Array
) -> None:
    """(observed - median) / sigma of the detections; boxes as wide as the prediction is."""
    flux, sigma, kind = observed
    used = (kind == DETECTION) & np.isfinite(predicted).all(axis=0) & (sigma > 0)
    low, middle, high = predicted[:, used] / sigma[used]
    x = wave[used]
    axes.axhspan(-1, 1, color=PALE, alpha=0.5, lw=0)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.bar(
        x / HALF_WIDTH, high - low, width=x * (HALF_WIDTH - 1 / HALF_WIDTH), bottom=low - middle,
        align="edge", color=BLUE, alpha=0.35, lw=0,
    )  # fmt: skip
    residual = flux[used] / sigma[used] - middle
    axes.plot(x, residual, "o", ms=4, color=BLACK, mec="white", mew=0.5)
    reach = max(3.0, 1.15 * float(np.max(np.abs(residual), initial=0.0)))
    axes.set_ylim(-reach, reach)


# ------------------------------------------------------------------ history


@styled
def sfh(results: Run, id: Row = None, *, row: int | None = None, log_time: bool = True) -> Figure:
    """Star formation rate against lookback time: median and 68 % credible band.

    Each step is the mean rate of one age interval; the percentiles are taken interval by interval.

    Args:
        results: a finished run.
        id: the galaxy, or its row (from 0).
        row: see `id`.
        log_time: whether lookback time is logarithmic.

    Raises ValueError where the run keeps no history.
    """
    row = results.row(id) if row is None else row
    draws, fixed = results.draws(row=row), results.per_galaxy(row=row)
    if "sfr" not in draws or "sfh_age" not in fixed:
        raise ValueError(f"{str(results.path)!r} keeps no star formation histories.")
    rate = draws["sfr"].reshape(-1, draws["sfr"].shape[-1])
    upper = np.asarray(fixed["sfh_age"], float)
    alive = np.isfinite(upper) & (rate > 0).any(axis=0)
    if not alive.any():
        raise ValueError(f"row {row} (id {results.ids[row]!r}): no star formation in any draw.")
    last = int(np.flatnonzero(alive)[-1]) + 1
    upper = upper[:last]
    began = universe_age(results, row)  # the oldest interval ends there
    if upper[-1] > began > (upper[-2] if last > 1 else 0.0):
        upper[-1] = began
    low, middle, high = np.percentile(rate[:, :last], PERCENTILES, axis=0)
    edges = np.concatenate([[0.0], upper])
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    axes.fill_between(
        edges, np.append(low, low[-1]), np.append(high, high[-1]), step="post", color=BLUE,
        alpha=0.3, lw=0, label="68 %",
    )  # fmt: skip
    axes.stairs(middle, edges, baseline=None, color=BLUE, lw=1.5, label="median")
    if log_time:
        axes.set_xscale("log")
        axes.set_xlim(max(edges[1] / 2, EARLIEST), edges[-1])
        axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    else:
        axes.set_xlim(0.0, edges[-1])
    axes.set_ylim(0.0, 1.08 * float(high.max()))
    axes.set_xlabel("lookback time [Gyr]")
    axes.set_ylabel(r"star formation rate [$M_\odot\,\mathrm{yr}^{-1}$]")
    axes.set_title(title(results, row))
    axes.legend(loc="best")
    return figure
