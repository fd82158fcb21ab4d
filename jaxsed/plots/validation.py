"""Pictures of ``jaxsed validate`` (after Kwon et al. 2022 and Mathews et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsed.core.types import PyTree
from jaxsed.emulators.validation.errors import ABSOLUTE_PERCENT
from jaxsed.emulators.validation.gradients import PERCENT as GRADIENT_PERCENT
from jaxsed.emulators.validation.tails import SHAPES, Z_EDGES
from jaxsed.plots.spectrum_error import spectrum_error_percentiles, spectrum_mean_error
from jaxsed.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SKY,
    label,
    new_figure,
    plain_numbers,
    styled,
    wave_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxsed.emulators.validation.photometric import Validation

_SHADES = (1.0, 0.7, 0.45, 0.25)
OUTLIER = 3.0
"""|Q| of a pair of posteriors that exclude each other (Mathews et al. 2023, section 3.2)."""

_MANY_BANDS = 45  # more names than this cannot be read


def validation_figures(found: Validation, posteriors: Any = None) -> dict[str, Figure]:
    """Every picture of a validation by name; `posteriors` has two `Agreement`s, if compared."""
    figures = {
        "errors": error_percentiles(found),
        "mean_error": mean_error(found),
        "correlations": correlations(found),
        "tails": tails(found),
        "parameters": against_parameters(found),
        "survey": survey_ratio(found),
    }
    if found.gradients is not None:
        figures["gradients"] = gradients(found)
    if posteriors is not None:
        figures["posteriors"] = discrepancies(posteriors.against_physics, posteriors.repeated)
    return figures


def spectrum_figures(found: PyTree) -> dict[str, Figure]:
    """Pictures of the errors of a spectrum emulator; `found` has `errors`, `wave`, `joints`."""
    return {
        "errors": spectrum_error_percentiles(found.errors, found.wave, found.joints),
        "mean_error": spectrum_mean_error(found.errors),
    }


def _by_wave(found: Validation) -> tuple[np.ndarray, np.ndarray | None]:
    """Order of the bands, and their wavelengths in that order, or None if not known."""
    if not np.isfinite(found.wave).all():
        return np.arange(len(found.wave)), None
    order = np.argsort(found.wave, kind="stable")
    return order, found.wave[order]


def _band_axis(axes: Any, wave: np.ndarray | None, n: int) -> np.ndarray:
    """Wavelengths in micron, or numbers of the bands; sets the axis up."""
    if wave is None:
        axes.set_xlabel("band number")
        return np.arange(n)
    wave_axis(axes, wave)
    return wave / 1e4


@styled
def error_percentiles(found: Validation) -> Figure:
    """|error| that 68 to 99.9 % of unseen galaxies stay within, against the band's wavelength.

    Kwon et al. (2022), figure 1.
    """
    order, wave = _by_wave(found)
    absolute = np.asarray(found.error.absolute, float)[order]
    figure = new_figure(7.2, 3.6)
    axes = figure.add_subplot()
    x = _band_axis(axes, wave, len(order))
    for k, (percent, alpha) in enumerate(zip(ABSOLUTE_PERCENT, _SHADES, strict=True)):
        axes.plot(x, absolute[:, k], "o-", ms=3.5, lw=0.8, color=BLUE, alpha=alpha,
                  label=f"{percent:g} %")  # fmt: skip
    axes.plot(x, np.asarray(found.error.sigma, float)[order], "_", ms=8, color=BLACK, label="σ")
    axes.plot(x, found.sigma_survey[order], ls="--", lw=0.9, color=RED, label="σ of the survey")
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.set_ylabel("|emulated - simulated| [mag]")
    axes.legend(ncols=6, loc="lower left", bbox_to_anchor=(-0.02, 1.0), columnspacing=1.0)
    return figure


@styled
def mean_error(found: Validation) -> Figure:
    """Share of unseen galaxies whose |error|, averaged over the bands, is below a value.

    Kwon et al. (2022), figure 2.
    """
    value = found.mean_absolute
    share = (np.arange(len(value)) + 1.0) / len(value)
    figure = new_figure(4.6, 3.4)
    axes = figure.add_subplot()
    axes.plot(value, 100 * share, color=BLUE)
    for percent in (50.0, 99.0, 99.9):
        at = float(np.quantile(value, percent / 100))
        axes.plot([at, at], [0, percent], color=GREY, lw=0.7, ls=":")
        axes.plot(at, percent, "o", ms=4, color=BLUE)
        axes.annotate(f"{percent:g} %: {at:.2g}", (at, percent), (-6, -3),
                      textcoords="offset points", fontsize=8, ha="right", va="top")  # fmt: skip
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_xlim(value[int(1e-3 * len(value))] / 1.3, value[-1] * 1.5)
    axes.set_ylim(0, 104)
    axes.set_xlabel("mean |emulated - simulated| over the bands [mag]")
    axes.set_ylabel("share of the galaxies below [%]")
    return figure


@styled
def correlations(found: Validation) -> Figure:
    """Correlation between the errors of two bands, and the covariance it comes from.

    Mathews et al. (2023), figure 6.
    """
    order, _ = _by_wave(found)
    correlation = found.correlation[np.ix_(order, order)]
    covariance = np.asarray(found.error.covariance, float)[np.ix_(order, order)]
    n = len(order)
    side = max(3.2, 0.14 * min(n, _MANY_BANDS) + 1.6)
    figure = new_figure(2 * side + 1.6, side + 0.6)
    left, right = figure.subplots(1, 2)
    scaled = 1e3 * np.sign(covariance) * np.sqrt(np.abs(covariance))
    top = float(np.nanmax(np.abs(scaled)))
    for axes, values, limit, words in (
        (left, scaled, top, r"$\pm\sqrt{|\mathrm{covariance}|}$ [mmag]"),
        (right, correlation, 1.0, "correlation of errors"),
    ):
        picture = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
        figure.colorbar(picture, ax=axes, shrink=0.75)
        axes.set_title(words)
        for edge in ("left", "bottom"):
            axes.spines[edge].set_visible(False)
        if n <= _MANY_BANDS:
            names = [found.band_names[i] for i in order]
            axes.set_xticks(np.arange(n), names, rotation=90, fontsize=6.5)
            axes.set_yticks(np.arange(n), names, fontsize=6.5)
        else:
            axes.set_xlabel("band, by wavelength")
    return figure


@styled
def tails(found: Validation) -> Figure:
    """Errors in units of their sigma against four distributions, and the share beyond multiples.

    Mathews et al. (2023), figure 10; all bands together, each shifted and scaled to its own mean
    and sigma, and the distributions of that same variance.
    """
    figure = new_figure(8.6, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    middle = 0.5 * (Z_EDGES[1:] + Z_EDGES[:-1])
    histogram = found.tails.histogram
    left.fill_between(middle, histogram, step="mid", color=GREY, alpha=0.35, lw=0, label="errors")
    for (name, shape), colour in zip(SHAPES.items(), (ORANGE, RED, BLUE, GREEN), strict=True):
        left.plot(middle, np.exp(shape(middle)), color=colour, lw=1.1, label=name)
    left.set_yscale("log")
    positive = histogram[histogram > 0]
    left.set_ylim(0.5 * positive.min() if positive.size else 1e-6, 3)
    left.set_xlim(Z_EDGES[0], Z_EDGES[-1])
    left.set_xlabel("(error - mean) / σ of its band")
    left.set_ylabel("density")
    left.legend(loc="upper left", fontsize=7.5)

    order, wave = _by_wave(found)
    x = _band_axis(right, wave, len(order))
    beyond = 100 * found.tails.beyond[order]
    for k, (multiple, normal, colour) in enumerate(
        ((3, 0.27, BLUE), (4, 6.3e-3, SKY), (5, 5.7e-5, GREEN))
    ):
        right.plot(x, beyond[:, k], "o", ms=3.5, color=colour, label=f"beyond {multiple}σ")
        if k == 0:
            right.axhline(normal, color=colour, lw=0.8, ls="--")
            right.text(0.99, normal, "3σ of a normal", transform=right.get_yaxis_transform(),
                       ha="right", va="top", fontsize=7.5, color=colour)  # fmt: skip
    right.set_yscale("log")
    plain_numbers(right.yaxis)
    right.set_ylabel("share of the galaxies [%]")
    right.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=0.8)
    return figure


@styled
def against_parameters(found: Validation) -> Figure:
    """Errors against each feature: where in the box the emulator is bad."""
    n = len(found.feature_names)
    columns = min(4, n)
    rows = -(-n // columns)
    figure = new_figure(2.3 * columns + 0.4, 1.75 * rows + 0.7)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
    for axes in panels[n:]:
        axes.set_visible(False)
    binned = found.binned
    for i, (name, axes) in enumerate(zip(found.feature_names, panels, strict=False)):
        middle = 0.5 * (binned.edges[i, 1:] + binned.edges[i, :-1])
        shown = np.isfinite(binned.sigma[i]).any(1)
        x = middle[shown]
        sigma, outer = binned.sigma[i][shown], binned.percent99[i][shown]
        axes.plot(x, np.nanmedian(sigma, 1), "-", color=BLUE, label="σ, median band")
        axes.plot(x, np.nanmax(sigma, 1), "-", color=RED, label="σ, worst band")
        axes.plot(x, np.nanmax(outer, 1), ":", color=RED, label="99 %, worst band")
        axes.set_xlim(binned.edges[i, 0], binned.edges[i, -1])
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xlabel(_feature_label(name), labelpad=1)
    for axes in panels[:n:columns]:
        axes.set_ylabel("error [mag]")
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside upper left", ncols=3)
    return figure


def _feature_label(name: str) -> str:
    if name.startswith("log10_"):
        return rf"$\log_{{10}}$ {label(name[6:])}"
    stem, _, index = name.rpartition("_stick_")
    return f"{label(stem)} stick {index}" if stem else label(name)


@styled
def gradients(found: Validation) -> Figure:
    """Derivatives by each coordinate of the prior: the physics' size, and the emulator's error."""
    errors = found.gradients
    if errors is None:
        raise ValueError("no derivatives were compared")
    n = len(errors.names)
    figure = new_figure(6.4, 0.26 * n + 1.2)
    axes = figure.add_subplot()
    y = np.arange(n)
    for values, colour, words, offset in (
        (errors.size, GREY, "|derivative| of the physics", 0.14),
        (errors.error, BLUE, "|emulator - physics|", -0.14),
    ):
        axes.hlines(y + offset, values[:, 0], values[:, -1], color=colour, lw=1.2)
        axes.plot(values[:, 0], y + offset, "|", ms=6, color=colour)
        axes.plot(values[:, 1], y + offset, "o", ms=4.5, color=colour,
                  label=f"{words}: {', '.join(f'{p:g}' for p in GRADIENT_PERCENT)} %")  # fmt: skip
        axes.plot(values[:, -1], y + offset, "|", ms=6, color=colour)
    axes.set_yticks(y, errors.names)
    axes.set_ylim(n - 0.4, -0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.set_xlabel("change of a band per σ of the prior (per unit of redshift) [mag]")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=1)
    return figure


@styled
def survey_ratio(found: Validation) -> Figure:
    """Sigma of the emulator over that of the survey, per band."""
    order, wave = _by_wave(found)
    ratio = found.ratio[order]
    figure = new_figure(7.2, 3.0)
    axes = figure.add_subplot()
    x = _band_axis(axes, wave, len(order))
    axes.vlines(x, min(np.nanmin(ratio) / 2, 0.05), ratio, color=SKY, lw=1.0)
    axes.plot(x, ratio, "o", ms=4, color=BLUE)
    axes.axhline(1.0, color=RED, lw=0.9, ls="--")
    axes.axhline(0.2, color=GREY, lw=0.8, ls=":")
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.set_ylabel("σ of the emulator / σ of the survey")
    return figure


@styled
def discrepancies(against_physics: Any, repeated: Any) -> Figure:
    """Cumulative distribution of Q per parameter: emulator against physics, and two runs.

    Mathews et al. (2023), figures 11 and 12: where the curves agree, differences are those of
    sampling. In the corners the share of the galaxies with |Q| of `OUTLIER` or more.

    Args:
        against_physics: `Agreement` of the emulator with the physics.
        repeated: of two runs with the emulator.
    """
    from scipy.stats import norm

    names = against_physics.names
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(2.3 * columns + 0.4, 1.9 * rows + 0.7)
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    share = (np.arange(against_physics.q.shape[1]) + 0.5) / against_physics.q.shape[1]
    for name, axes in zip(names, panels, strict=False):
        limit = 0.0
        for result, colour, words, height in (
            (against_physics, BLUE, "emulator against physics", 0.97),
            (repeated, ORANGE, "two runs of the emulator", 0.86),
        ):
            q = np.sort(result.q[result.names.index(name)])
            axes.step(q, share, where="mid", color=colour, lw=1.1, label=words)
            axes.text(0.03, height, f"{np.mean(np.abs(q) >= OUTLIER):.1%}", color=colour,
                      transform=axes.transAxes, va="top", fontsize=7.5)  # fmt: skip
            limit = max(limit, float(np.abs(q).max()))
        limit = 1.2 * max(limit, 0.05)
        wide = np.linspace(-limit, limit, 200)
        axes.plot(wide, norm.cdf(wide), color=GREY, lw=0.8, ls=":", label="normal of unit width")
        axes.set_xlim(-limit, limit)
        axes.set_xlabel(f"Q of {label(name, short=True)}", labelpad=1)
        axes.set_ylim(0, 1)
    for axes in panels[: len(names) : columns]:
        axes.set_ylabel("share below")
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside upper left", ncols=3)
    return figure
