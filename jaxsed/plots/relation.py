"""The relation of stellar to halo mass, and the mass function of galaxies that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.plots.style import BLACK, BLUE, GREEN, ORANGE, RED, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxsed.halos.connection import GalaxyHalo, Relation

LOW, HIGH = 10.5, 15.0
"""log10 peak masses in Msun that are drawn."""
MOST = 1000
"""Draws that the bands are made of."""
BANDS = ((2.5, 97.5, 0.2), (16.0, 84.0, 0.35))
"""Percentiles, and how dark what is between them."""
COLOURS = (ORANGE, GREEN, RED)
MASS = r"$\log_{10}\,(M_\star\,/\,M_\odot)$"


@styled
def stellar_halo_relation(
    model: GalaxyHalo, draws: Relation, phi: np.ndarray, error: np.ndarray, *,
    others: Mapping[str, Relation] | None = None,
) -> Figure:  # fmt: skip
    """A posterior of the relation, and its mass function on what was observed.

    Left the median ratio of stellar to halo mass with its 68 and 95 % bands, right the mass
    functions, and below them what they are over the posterior's median.

    Args:
        model: as in the posterior's problem.
        draws: a `Relation` of draws, each field an array of the same shape, such as
            [galaxy, chain, draw].
        phi: [bin] observed, in Mpc^-3 dex^-1.
        error: [bin] its uncertainty.
        others: single relations to draw as lines, by name.

    Raises ValueError if phi or its uncertainties are not of the model's bins.
    """
    from jaxsed.halos.connection import stellar_mass

    phi, error, edges = np.asarray(phi), np.asarray(error), np.asarray(model.edges)
    if phi.shape != (edges.size - 1,) or error.shape != phi.shape:
        raise ValueError(
            f"expected phi and errors of {edges.size - 1} bins, got {phi.shape} and {error.shape}"
        )
    flat = jax.tree.map(lambda a: np.ravel(a), draws)
    rows = np.unique(np.linspace(0, flat[0].size - 1, MOST).round().astype(int))
    taken = jax.tree.map(lambda a: jnp.asarray(a[rows], float), flat)
    mass = np.linspace(LOW, HIGH, 181)

    def curves(theta: Relation) -> tuple[Any, Any]:
        return stellar_mass(theta, jnp.asarray(mass)) - mass, model(theta)

    ratio, predicted = jax.tree.map(np.asarray, jax.lax.map(curves, taken, batch_size=50))
    figure = new_figure(7.6, 3.6)
    axes = figure.subplot_mosaic(
        [["relation", "phi"], ["relation", "residual"]], height_ratios=(2.4, 1)
    )
    left, right, below = axes["relation"], axes["phi"], axes["residual"]
    middle, centre = 0.5 * (edges[1:] + edges[:-1]), np.median(predicted, axis=0)
    _band(left, mass, ratio)
    _band(right, middle, predicted)
    _band(below, middle, predicted / centre)
    for k, (name, theta) in enumerate((others or {}).items()):
        curve, other = curves(jax.tree.map(lambda a: jnp.asarray(a, float), theta))
        style: dict[str, Any] = {"ls": "--", "color": COLOURS[k % len(COLOURS)], "label": name}
        left.plot(mass, curve, **style)
        right.plot(middle, other, **style)
        below.plot(middle, other / centre, **style)
    for ax, scale in ((right, 1.0), (below, 1 / centre)):
        ax.errorbar(
            middle, phi * scale, error * scale, fmt="o", ms=2.5, lw=0.8, color=BLACK,
            label="observed", zorder=3,
        )  # fmt: skip
    left.set_xlabel(r"$\log_{10}\,(M_\mathrm{peak}\,/\,M_\odot)$")
    left.set_ylabel(r"$\log_{10}\,(M_\star\,/\,M_\mathrm{peak})$")
    left.set_xlim(LOW, HIGH)
    left.legend()
    right.set_yscale("log")
    right.set_ylim(0.3 * phi[phi > 0].min(), 2 * phi.max())
    right.set_ylabel(r"$\phi$ [Mpc$^{-3}$ dex$^{-1}$]")
    right.tick_params(labelbottom=False)
    right.legend()
    below.set_xlim(right.get_xlim())
    spread = np.abs(phi / centre - 1)[error < 0.3 * phi].max(initial=0.1)
    below.set_ylim(1 - 3 * spread, 1 + 3 * spread)
    below.set_ylabel(r"$\phi$ / median")
    below.set_xlabel(MASS)
    return figure


def _band(ax: Axes, x: np.ndarray, draws: np.ndarray) -> None:
    """Median and bands of draws [draw, x]."""
    for low, high, alpha in BANDS:
        ends = np.percentile(draws, [low, high], axis=0)
        ax.fill_between(x, *ends, color=BLUE, alpha=alpha, lw=0)
    ax.plot(x, np.median(draws, axis=0), color=BLUE, label="posterior, 68 and 95 %")
