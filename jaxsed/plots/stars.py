"""Stars: spectra, what a network reads in them, and how good its labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxsed.learn.calibration import robust_scatter
from jaxsed.plots.style import BLACK, BLUE, GREY, ORANGE, PALE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxsed.stars import Labels

STEP = 0.05
"""Between the rows of ticks of two elements."""

GAP = 20.0
"""Pixels without data, in medians of the pixels' widths, that part a picture in two."""


def chips(wave: np.ndarray) -> list[slice]:
    """Ranges of pixels without large gaps between them."""
    step = np.diff(wave)
    ends = np.flatnonzero(step > GAP * np.median(step)) + 1
    edges = [0, *ends.tolist(), wave.size]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


@styled
def star_spectrum(
    wave: np.ndarray,
    flux: np.ndarray,
    *,
    model: np.ndarray | None = None,
    windows: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """A continuum-normalised spectrum, a row per chip.

    Args:
        wave: [pixel] in Angstrom.
        flux: [pixel]; NaN where unusable.
        model: [pixel] drawn over it.
        windows: [pixel] by element: ticks below the spectrum.
        title: above it.
    """
    parts = chips(wave)
    figure = new_figure(10.0, 2.3 * len(parts))
    axes = [figure.add_subplot(len(parts), 1, i + 1) for i in range(len(parts))]
    low = np.nanquantile(flux, 0.001) - 0.08
    for ax, part in zip(axes, parts, strict=True):
        ax.plot(wave[part], flux[part], color=BLACK, lw=0.6, label="observed")
        if model is not None:
            ax.plot(wave[part], model[part], color=ORANGE, lw=0.7, label="model")
        _mark(ax, wave[part], {n: w[part] for n, w in (windows or {}).items()}, low)
        ax.set_xlim(wave[part][0], wave[part][-1])
        ax.set_ylim(low - STEP * len(windows or {}), np.nanquantile(flux, 0.999) + 0.08)
        ax.set_ylabel("flux over continuum")
    axes[0].set_title(title)
    if model is not None:
        axes[0].legend(loc="lower right", ncols=2)
    axes[-1].set_xlabel("vacuum wavelength at rest [Å]")
    return figure


@styled
def reading(
    wave: np.ndarray,
    jacobian: np.ndarray,
    names: Sequence[str],
    windows: Mapping[str, np.ndarray] | None = None,
    labels: Sequence[str] | None = None,
) -> Figure:
    """How a label answers to each pixel: the mean derivative, with the label's window shaded.

    After Leung & Bovy (2018), figures 14 and 15.

    Args:
        wave: [pixel] in Angstrom.
        jacobian: [label, pixel] derivatives, averaged over stars.
        names: of the labels.
        windows: [pixel] by label.
        labels: those to draw, by default all.
    """
    chosen = list(labels or names)
    parts = chips(wave)
    figure = new_figure(10.0, 1.3 * len(chosen) + 0.6)
    widths = [p.stop - p.start for p in parts]
    grid = figure.add_gridspec(len(chosen), len(parts), width_ratios=widths)
    for row, name in enumerate(chosen):
        slope = jacobian[list(names).index(name)]
        for column, part in enumerate(parts):
            ax = figure.add_subplot(grid[row, column])
            ax.plot(wave[part], slope[part], color=BLUE, lw=0.5)
            if windows and name in windows:
                inside = np.asarray(windows[name][part]) > 0
                ax.fill_between(
                    wave[part], 0, 1, where=inside, step="mid", color=ORANGE, alpha=0.35, lw=0,
                    transform=ax.get_xaxis_transform(),
                )  # fmt: skip
            limit = 1.05 * np.abs(slope).max()
            ax.set_ylim(-limit, limit)
            ax.set_xlim(wave[part][0], wave[part][-1])
            ax.axhline(0, color=GREY, lw=0.5)
            if column:
                ax.set_yticks([])
            else:
                ax.set_ylabel(name)
            if row < len(chosen) - 1:
                ax.set_xticks([])
    figure.supxlabel("vacuum wavelength at rest [Å]", fontsize=9)
    return figure


@styled
def label_residuals(names: Sequence[str], found: Labels, truth: np.ndarray) -> Figure:
    """Differences from known labels against the labels, with their uncertainties.

    Args:
        names: of the labels.
        found: what was predicted.
        truth: [star, label]; NaN where unknown.
    """
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(2.6 * columns, 2.2 * rows)
    for j, name in enumerate(names):
        ax = figure.add_subplot(rows, columns, j + 1)
        gap = found.value[:, j] - truth[:, j]
        seen = np.isfinite(gap)
        ax.errorbar(
            truth[seen, j], gap[seen], found.std[seen, j], fmt="none", ecolor=PALE, elinewidth=0.6
        )
        ax.plot(truth[seen, j], gap[seen], ".", color=BLUE, ms=2)
        ax.axhline(0, color=BLACK, lw=0.7)
        inside = np.mean(np.abs(gap[seen]) < found.std[seen, j])
        scatter = robust_scatter(gap[seen])
        ax.set_title(f"{name}: {scatter:.3g}, {inside:.0%} within 1σ")
        limit = 1.1 * np.quantile(np.abs(gap[seen]), 0.995)
        ax.set_ylim(-limit, limit)
    figure.supylabel("found less known", fontsize=9)
    return figure


def _mark(ax: Axes, wave: np.ndarray, windows: Mapping[str, np.ndarray], low: float) -> None:
    for row, (name, inside) in enumerate(windows.items()):
        at, y = wave[np.asarray(inside) > 0], low - STEP * row
        (line,) = ax.plot(at, np.full(at.size, y), "|", ms=3, mew=0.5)
        ax.annotate(
            name, (1.0, y), xycoords=("axes fraction", "data"), va="center", fontsize=6,
            color=line.get_color(), xytext=(3, 0), textcoords="offset points",
        )  # fmt: skip
