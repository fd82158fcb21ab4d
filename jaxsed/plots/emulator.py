"""How wrong an emulator is, band by band (after Mathews et al. 2023, figures 5 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsed.emulators.validation.errors import SIGMA_LEVELS
from jaxsed.emulators.validation.photometric import mean_waves
from jaxsed.plots.style import BLACK, BLUE, GREY, SKY, new_figure, plain_numbers, styled, wave_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxsed.emulators import PhotometricEmulator


@styled
def emulator_errors(emulator: PhotometricEmulator) -> Figure:
    """Percentiles of the error per band, its standard deviation, and its correlations.

    Errors are AB magnitudes, emulated minus simulated, on pairs the emulator has not seen.  Bands
    are in the order of their wavelengths.  Raises ValueError if the errors were not measured.
    """
    error = emulator.error_ab
    sigma = np.asarray(error.sigma, float)
    if not np.isfinite(sigma).any():
        raise ValueError("this emulator's errors were not measured: see measure_error")
    wave = mean_waves(emulator) if emulator.record.curves else None
    order = np.arange(len(sigma)) if wave is None else np.argsort(wave, kind="stable")
    names = [emulator.band_names[i] for i in order]
    sigma = sigma[order]
    percentiles = 1e3 * np.asarray(error.percentiles, float)[order]
    mean = 1e3 * np.asarray(error.mean, float)[order]
    covariance = np.asarray(error.covariance, float)[np.ix_(order, order)]

    n = len(names)
    width, side = max(4.6, 0.19 * n + 1.0), max(3.6, 0.16 * n + 1.0)
    figure = new_figure(width + side + 1.4, max(6.2, side + 1.2))
    grid = figure.add_gridspec(2, 2, width_ratios=[width, side + 1.4])
    spread = figure.add_subplot(grid[0, 0])
    by_wave = figure.add_subplot(grid[1, 0])
    heat = figure.add_subplot(grid[:, 1])

    x = np.arange(n)
    half = len(SIGMA_LEVELS) // 2
    for k, (alpha, words) in enumerate(
        ((0.18, r"4$\sigma$: 99.994 %"), (0.3, r"3$\sigma$: 99.7 %"),
         (0.5, r"2$\sigma$: 95 %"), (0.85, r"1$\sigma$: 68 %"))
    ):  # fmt: skip
        low, high = percentiles[:, k], percentiles[:, 2 * half - 1 - k]
        spread.bar(
            x, high - low, bottom=low, width=0.75, color=BLUE, alpha=alpha, lw=0, label=words
        )
    spread.plot(x, mean, ls="", marker="_", ms=7, color=BLACK, label="mean")
    spread.axhline(0, color=GREY, lw=0.7)
    spread.set_yscale("symlog", linthresh=max(float(np.nanmedian(1e3 * sigma)), 1e-3))
    spread.set_xticks(x, names, rotation=90)
    spread.set_xlim(-0.6, n - 0.4)
    spread.set_ylabel("emulated - simulated [mmag]")
    spread.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    spread.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=5, columnspacing=0.8,
                  handlelength=1.2)  # fmt: skip

    _sigma_panel(by_wave, None if wave is None else wave[order], 1e3 * sigma)

    scale = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = covariance / np.outer(scale, scale)
    picture = heat.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    heat.set_xticks(x, names, rotation=90)
    heat.set_yticks(x, names)
    for edge in ("left", "bottom"):
        heat.spines[edge].set_visible(False)
    figure.colorbar(picture, ax=heat, shrink=0.6)
    heat.set_title("correlation of errors between bands")
    return figure


def _sigma_panel(axes, wave, sigma) -> None:
    """Standard deviation [mmag] against wavelength, or band number without curves."""
    if wave is None:
        axes.plot(np.arange(len(sigma)), sigma, "o", ms=4, color=BLUE)
        axes.set_xlabel("band number")
    else:
        axes.plot(wave / 1e4, sigma, "o-", ms=4, color=BLUE, mec="white", mew=0.5, lw=0.8,
                  markerfacecolor=SKY)  # fmt: skip
        wave_axis(axes, wave)
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.set_ylabel(r"$\sigma$ of the error [mmag]")
