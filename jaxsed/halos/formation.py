"""Star formation of the galaxies of a box: how many are quiescent, and how fast the others form
stars, in bins of stellar mass."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Numbers
from jaxsed.halos.boxes import bin_of
from jaxsed.halos.catalogue import Halos

QUENCHED = -11.0
"""log10 of star formation per stellar mass in 1/yr below which a galaxy is quiescent."""

FEWEST = 0.5
"""Galaxies added to both kinds, so that no share is zero or one."""


class Formation(NamedTuple):
    """What is learned, counted [box, bin]."""

    quiescent: Any
    """Galaxies that are quiescent."""
    forming: Any
    """Galaxies that are not."""
    log_sfr: Numbers
    """Mean log10 of the star formation rate in Msun/yr of the latter; zero where there is none."""


class Typical(NamedTuple):
    """Of the galaxies of a training, from which a network tells the differences."""

    logit: Annotated[Array, "bin"]
    """ln of quiescent galaxies over the others."""
    log_sfr: Annotated[Array, "bin"]
    """Mean log10 star formation rate in Msun/yr of those that form stars."""
    scatter: Annotated[Array, ""]
    """dex of one galaxy about it."""


class Shares(NamedTuple):
    """What a network says of a box, [bin]."""

    quiescent: Any
    """Share of the galaxies that are quiescent."""
    quiescent_std: Any
    """How far the share in a box lies from it."""
    log_sfr: Numbers
    """Mean log10 star formation rate in Msun/yr of the others."""
    log_sfr_std: Any
    """dex that the mean in a box lies from it."""


def formation(halos: Halos, edges: Numbers) -> Formation:
    """Count quiescent and star-forming galaxies in bins of log10 stellar mass in Msun.

    Raises ValueError where stellar masses or star formation rates are not known.
    """
    if halos.sfr is None:
        raise ValueError("the halos have no sfr to learn from")
    number, inside = bin_of(halos, edges)
    mass, rate = halos.stellar_mass, halos.sfr
    assert mass is not None
    forms = rate > 10**QUENCHED * mass
    shape = (len(halos), len(edges) - 1)
    out = Formation(*(np.zeros(shape, np.float32) for _ in Formation._fields))
    for total, rows, what in (
        (out.quiescent, inside & ~forms, np.ones_like(mass)),
        (out.forming, inside & forms, np.ones_like(mass)),
        (out.log_sfr, inside & forms, np.log10(np.where(forms, rate, 1.0))),
    ):
        np.add.at(total, (halos.box[rows], number[rows]), what[rows])
    return out._replace(log_sfr=out.log_sfr / np.maximum(out.forming, 1.0))


def typical(known: Formation) -> Typical:
    """Means over the boxes of a training."""
    quiescent, forming = known.quiescent.sum(axis=0), known.forming.sum(axis=0)
    total = (known.forming * known.log_sfr).sum(axis=0)
    overall = total.sum() / max(forming.sum(), 1.0)
    log_sfr = np.where(forming > 0, total / np.maximum(forming, 1.0), overall)
    # the variance of a mean of n, n times over, is that of one
    squares = (known.forming * (known.log_sfr - log_sfr) ** 2).sum()
    scatter = np.sqrt(squares / max(np.sum(known.forming > 0), 1.0))
    as_32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    logit = np.log((quiescent + FEWEST) / (forming + FEWEST))
    return Typical(as_32(logit), as_32(log_sfr), as_32(max(scatter, 0.05)))


def misfit(logit: Array, log_sfr: Array, known: Formation, usual: Typical) -> Array:
    """Minus the log likelihood of one box's galaxies: binomial for the quiescent, normal for the
    mean rate of the others.  Outputs are differences from the typical."""
    odds = usual.logit + logit
    binomial = known.quiescent * jax.nn.softplus(-odds) + known.forming * jax.nn.softplus(odds)
    gap = (known.log_sfr - usual.log_sfr - log_sfr) / usual.scatter
    return jnp.sum(binomial + 0.5 * known.forming * gap**2)


def shares(logit: Array, log_sfr: Array, count: Array, usual: Typical) -> Shares:
    """Of one box in which `count` galaxies [bin] are expected."""
    share = jax.nn.sigmoid(usual.logit + logit)
    return Shares(
        share, jnp.sqrt(share * (1 - share) / jnp.maximum(count, 1.0)),
        usual.log_sfr + log_sfr,
        usual.scatter / jnp.sqrt(jnp.maximum(count * (1 - share), 1.0)),
    )  # fmt: skip


def off(found: Shares, known: Formation) -> tuple[np.ndarray, np.ndarray]:
    """[box, bin] differences in units of the uncertainty, of shares and of rates; NaN where no
    galaxy tells."""
    n = known.quiescent + known.forming
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (known.quiescent / n - found.quiescent) / found.quiescent_std
        rate = (known.log_sfr - found.log_sfr) / found.log_sfr_std
    return np.where(n > 0, share, np.nan), np.where(known.forming > 0, rate, np.nan)
