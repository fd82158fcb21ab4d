"""Are posteriors calibrated?  Ranks of known truths among their draws (Talts+ 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsed.plots.style import BLUE, GREY, RED, label, new_figure, styled
from jaxsed.workflows.calibrate import KEEP, KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COVERAGE = 0.99
"""Of the grey band: how often a bin of uniform ranks stays inside."""

ALARM = 0.01
"""A p-value below this is written in red."""


@styled
def rank_histograms(
    ranks: Mapping[str, Any],
    n_draws: int,
    *,
    p_values: Mapping[str, float] | None = None,
    bins: int = 20,
) -> Figure:
    """Histogram of the ranks of the truths for every parameter; uniform if all is right.

    A slope is a bias, a valley in the middle a posterior that is too narrow, a hill one too wide.

    Args:
        ranks: [mock] by parameter, from 0 to `n_draws`; see `checks.rank_statistics`.
        n_draws: draws among which the truth was ranked.
        p_values: by parameter, to be written above; see `checks.rank_pvalue`.
        bins: of the histogram.

    Raises ValueError if there are no ranks.
    """
    from scipy.stats import binom

    if not ranks:
        raise ValueError("no ranks to draw")
    columns = min(4, len(ranks))
    rows = -(-len(ranks) // columns)
    figure = new_figure(2.2 * columns, 1.7 * rows)
    for number, (name, values) in enumerate(ranks.items()):
        values = np.asarray(values)
        axes = figure.add_subplot(rows, columns, number + 1)
        low, high = binom.interval(COVERAGE, values.size, 1 / bins)
        axes.axhspan(low, high, color=GREY, alpha=0.25, lw=0)
        axes.axhline(values.size / bins, color=GREY, lw=0.8)
        edges = np.linspace(-0.5, n_draws + 0.5, bins + 1).tolist()
        axes.hist(values, edges, color=BLUE, histtype="step", lw=1.2)
        if p_values is not None:
            p = p_values[name]
            color = RED if p < ALARM else "black"
            axes.set_title(f"p = {p:.2f}", fontsize=8, color=color, loc="right")
        axes.set_title(label(name, short=True).replace("\n", " "), fontsize=8, loc="left")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_yticks([])
        axes.set_xticks([0, n_draws])
        if number >= len(ranks) - columns:
            axes.set_xlabel("rank of the truth", fontsize=8)
    return figure


def calibration_figures(found: Mapping[str, Any]) -> dict[str, Figure]:
    """Rank histograms of what `jaxsed.workflows.calibrate.calibrate` found, by file name."""
    return {
        f"ranks_{kind.replace('+', '_')}": rank_histograms(
            found[kind]["ranks"], KEEP, p_values=found[kind]["sbc_pvalue"]
        )
        for kind in KINDS
        if kind in found
    }
