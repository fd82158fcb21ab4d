"""How wrong a spectrum emulator is (after Kwon et al. 2022, figures 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxsed.emulators.validation.spectral import MEAN_RANGE, PERCENT, QUANTILES
from jaxsed.plots.style import BLACK, BLUE, GREY, RED, new_figure, plain_numbers, styled, wave_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxsed.emulators import SpectrumErrors

GOAL = 0.01
"""Fractional error that the published networks stay within."""

_SHADES = (0.9, 0.55, 0.32, 0.16)


def _measured(errors: SpectrumErrors) -> np.ndarray:
    percentiles = np.asarray(errors.percentiles, float)
    if not np.isfinite(percentiles).any():
        raise ValueError("the errors of this emulator were not measured: see spectral_errors")
    return percentiles


@styled
def spectrum_error_percentiles(
    errors: SpectrumErrors, wave: np.ndarray, joints: Sequence[float] = ()
) -> Figure:
    """|emulated / true - 1| that 68 to 99.9 % of unseen spectra stay within, against wavelength.

    Args:
        errors: from `spectral_errors`.
        wave: [wave] of the emulator, Angstrom at rest.
        joints: wavelengths where its windows meet.

    Raises ValueError if the errors were not measured.
    """
    percentiles = 100 * _measured(errors)
    figure = new_figure(7.2, 3.6)
    axes = figure.add_subplot()
    x = np.asarray(wave, float) / 1e4
    floor = percentiles[:, 0].min() / 3
    lower = np.full(x.size, floor)
    for k, (percent, alpha) in enumerate(zip(PERCENT, _SHADES, strict=True)):
        axes.fill_between(
            x, lower, percentiles[:, k], color=BLUE, alpha=alpha, lw=0, label=f"{percent:g} %"
        )
        lower = percentiles[:, k]
    axes.axhline(100 * GOAL, color=RED, lw=0.9, ls="--")
    axes.text(x[0], 100 * GOAL, " 1 %", color=RED, va="bottom", fontsize=8)
    for joint in joints:
        axes.axvline(joint / 1e4, color=GREY, lw=0.7, ls=":")
    axes.set_yscale("log")
    axes.set_ylim(floor, max(2 * percentiles.max(), 200 * GOAL))
    plain_numbers(axes.yaxis)
    wave_axis(axes, wave)
    axes.set_xlim(x[0], x[-1])
    axes.set_xlabel("rest-frame wavelength [µm]")
    axes.set_ylabel("|emulated / true - 1| [%]")
    if len(joints):
        axes.plot([], [], color=GREY, lw=0.7, ls=":", label="windows meet")
    axes.set_title("share of unseen spectra within", pad=22)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=5, borderaxespad=0.2)
    return figure


@styled
def spectrum_mean_error(errors: SpectrumErrors) -> Figure:
    """Share of unseen spectra whose error, averaged over wavelength, is below a value.

    Raises ValueError if the errors were not measured.
    """
    _measured(errors)
    mean, share = 100 * np.asarray(errors.mean, float), np.asarray(QUANTILES)
    figure = new_figure(4.6, 3.4)
    axes = figure.add_subplot()
    axes.plot(mean, 100 * share, color=BLUE)
    levels = np.array([0.5, 0.99, 0.999])
    values = np.interp(levels, share, mean)
    axes.plot(values, 100 * levels, "o", ms=4, color=BLACK)
    words = [f"{100 * k:g} % below {v:.2g} %" for k, v in zip(levels, values, strict=True)]
    axes.text(0.97, 0.05, "\n".join(words), transform=axes.transAxes, ha="right", fontsize=8)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_ylim(0, 104)
    axes.set_xlabel(f"mean |emulated / true - 1|, {MEAN_RANGE[0]:g} to {MEAN_RANGE[1]:g} Å [%]")
    axes.set_ylabel("share of unseen spectra below [%]")
    return figure
