"""Halos: a box of them, mass functions of galaxies, and what a forest makes of halos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxsed.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, RED, GREY)


@styled
def box_of_halos(position: np.ndarray, v_peak: np.ndarray, *, title: str = "") -> Figure:
    """A box seen from three sides, the more massive halos larger.

    Args:
        position: [halo, 3] in Mpc/h.
        v_peak: [halo] in km/s.
        title: above it.
    """
    figure = new_figure(9.0, 3.2)
    order = np.argsort(-v_peak)
    size = (v_peak[order] / 60.0) ** 2
    for k, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        ax = figure.add_subplot(1, 3, k + 1, aspect="equal")
        drawn = ax.scatter(
            position[order, a], position[order, b], s=size, c=np.log10(v_peak[order]),
            cmap="viridis", lw=0, alpha=0.7,
        )  # fmt: skip
        ax.set_xlabel(f"{'xyz'[a]} [Mpc/h]")
        ax.set_ylabel(f"{'xyz'[b]} [Mpc/h]")
        if k == 0:
            ax.set_title(title)
    figure.colorbar(
        drawn, ax=figure.axes, label=r"$\log_{10}\,(V_\mathrm{peak}\,/\,\mathrm{km\,s^{-1}})$"
    )
    return figure


@styled
def mass_functions(
    edges: np.ndarray, truth: np.ndarray, predicted: Mapping[str, np.ndarray]
) -> Figure:
    """Means over boxes of true and predicted mass functions, and the scatter of the predictions.

    After Nadler & To (2018), figure 6, with the differences from the truth box by box below.

    Args:
        edges: [bin + 1] log10 stellar mass in Msun.
        truth: [box, bin] phi in Mpc^-3 dex^-1.
        predicted: the same by name.
    """
    middle = 0.5 * (np.asarray(edges)[1:] + np.asarray(edges)[:-1])
    step = np.diff(edges).mean() / (len(predicted) + 2)
    figure = new_figure(5.5, 5.0)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top.plot(middle, truth.mean(axis=0), "--", color=GREY, label="true")
    for k, (name, phi) in enumerate(predicted.items()):
        at = middle + step * (k - (len(predicted) - 1) / 2)
        mean, gap = phi.mean(axis=0), phi - truth
        for ax, y, std in ((top, mean, phi.std(axis=0)), (low, gap.mean(axis=0), gap.std(axis=0))):
            scale = 1.0 if ax is top else 1.0 / truth.mean(axis=0)
            ax.errorbar(
                at, y * scale, std * scale, fmt="o", ms=3, lw=0.8, color=COLOURS[k % 5], label=name
            )
    top.set_yscale("log")
    top.set_ylim(0.2 * truth.mean(axis=0).min(), None)
    top.set_ylabel(r"$\phi$ [Mpc$^{-3}$ dex$^{-1}$]")
    top.legend()
    low.axhline(0, color=BLACK, lw=0.7)
    low.set_ylabel("difference / mean")
    low.set_xlabel(r"$\log_{10}\,(M_\star\,/\,M_\odot)$")
    return figure


@styled
def stellar_masses(truth: np.ndarray, found: np.ndarray) -> Figure:
    """Predicted against true log10 stellar masses [halo] (Nadler & To 2018, figure 2)."""
    figure = new_figure(4.2, 3.8)
    ax = figure.add_subplot()
    ends = np.quantile(truth, [0.001, 0.999])
    drawn = ax.hexbin(truth, found, gridsize=50, bins="log", cmap="Blues", mincnt=1)
    ax.plot(ends, ends, color=BLACK, lw=0.8)
    ax.set_xlabel(r"true $\log_{10}\,(M_\star\,/\,M_\odot)$")
    ax.set_ylabel(r"predicted $\log_{10}\,(M_\star\,/\,M_\odot)$")
    ax.set_title(f"scatter {np.std(found - truth):.3f} dex")
    figure.colorbar(drawn, label="halos")
    return figure


@styled
def importances(impurity: Mapping[str, float], permuted: Mapping[str, float]) -> Figure:
    """Importances of features over the largest (Nadler & To 2018, figure 3), of both kinds."""
    names = sorted(impurity, key=lambda name: -impurity[name])
    figure = new_figure(5.0, 0.4 * len(names) + 1.2)
    ax = figure.add_subplot()
    y = np.arange(len(names))
    for k, (label, values) in enumerate((("of impurity", impurity), ("by permutation", permuted))):
        shares = np.array([values[name] for name in names]) / max(values.values())
        ax.barh(y + 0.4 * (k - 0.5), shares, 0.38, color=COLOURS[k], label=label)
    ax.set_yticks(y, names)
    ax.invert_yaxis()
    ax.set_xlabel("importance over the largest")
    ax.legend(loc="lower right")
    return figure
