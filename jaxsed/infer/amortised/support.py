"""Is a galaxy like any that a flow was trained on?

A flow answers for every input, also where it never saw one.  As in SEDflow (Hahn & Melchior 2022,
appendix A) a galaxy is outside where an uncertainty is not one that the survey has at this flux, or
a colour is not one that the model has; further where its redshift or magnitude is out of range,
or its prior allows what that of the training set does not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.core.types import Prior
from jaxsed.infer.amortised.trend import trend
from jaxsed.problem import Problem

TAIL = 0.001
"""Share of the training set beyond the limits of each colour, on either side."""

MARGIN = 0.05
"""mag by which colours may be beyond these limits."""

NOISE_SIGMAS = 4.0
"""Deviations from the training set's mean ln uncertainty at this magnitude that are still usual."""

LEAST_SPREAD = 0.05
"""Of ln uncertainty: where an error floor rules, uncertainties are all alike, and a little more or
less of it makes no other posterior."""

NODES = 16

REASONS = ("noise", "colour", "redshift", "magnitude", "limit", "prior")
"""What each bit says: uncertainties, colours, redshift, brightness; upper limits, which the flow
does not know; a prior that is wider than its own."""

PRIOR_DRAWS = 256
"""Galaxies of a prior that are looked up in that of the training set."""


@struct.dataclass
class Support:
    """Where the training set of a flow was."""

    magnitude: Array
    """[band, node] increasing arsinh magnitudes."""
    ln_sigma: Array
    """[band, node] mean ln of the uncertainty over the softening, and its `spread`."""
    spread: Array
    colours: Array
    """[2, band - 1] limits of the differences between neighbouring bands."""
    brightness: Array
    """[2, band] limits of arsinh magnitudes."""
    redshift: Array
    """[2]."""

    def __call__(self, problem: Problem, raw: Array, at: Array) -> Array:
        """Bits of `REASONS` for one galaxy; zero is inside.

        Args:
            problem: the galaxy.
            raw: [2, band] as `PhotometricContext.raw`, in the bands of the training set.
            at: [band] whether each is there.
        """
        magnitude, ln_sigma = raw
        interpolate = jax.vmap(jnp.interp)
        usual = interpolate(magnitude, self.magnitude, self.ln_sigma)
        spread = interpolate(magnitude, self.magnitude, self.spread)
        spread = jnp.maximum(spread, LEAST_SPREAD)
        # What is not a number is outside.
        noisy = at & ~(jnp.abs(ln_sigma - usual) <= NOISE_SIGMAS * spread)
        colour = jnp.diff(magnitude)
        both = at[1:] & at[:-1]
        # Noise moves the colours of faint galaxies, and the training set has no more of it.
        odd = both & ~_within(colour, self.colours[0] - MARGIN, self.colours[1] + MARGIN)
        dim = at & ~_within(magnitude, *self.brightness)
        z = problem.prior.redshift
        far = jnp.asarray(False)
        if params.is_fixed(z):
            far = ~_within(z, *self.redshift)
        data: Any = problem.data
        limited = jnp.any(data.limit_inverse_sigma > 0)
        bits = jnp.stack([jnp.any(noisy), jnp.any(odd), far, jnp.any(dim), limited])
        return jnp.sum(bits * 2 ** jnp.arange(bits.size))


def _within(value: Array, low: Array, high: Array) -> Array:
    return (value >= low) & (value <= high)


def wider(prior: Prior, own: Any) -> Array:
    """Whether a prior reaches beyond the support of another."""
    u = jax.random.normal(jax.random.key(0), (PRIOR_DRAWS, params.dimension(prior)))
    inside = jax.vmap(lambda u: params.within(own, params.constrain(prior, u)[0]))(u)
    return ~jnp.all(inside)


def support(raw: np.ndarray, at: np.ndarray, redshift: np.ndarray) -> Support:
    """From a training set.

    Args:
        raw: [galaxy, 2, band] as `PhotometricContext.raw`.
        at: [galaxy, band] whether each band is there.
        redshift: [galaxy].
    """
    magnitude, mean, spread, bright = [], [], [], []
    for band in range(raw.shape[2]):
        m, s = raw[at[:, band], :, band].T
        where, middle, wide = trend(m, s, NODES)
        magnitude.append(where)
        mean.append(middle)
        spread.append(np.maximum(wide, 1e-3))
        bright.append([m.min(), m.max()])
    colours = []
    for band in range(raw.shape[2] - 1):
        both = at[:, band] & at[:, band + 1]
        colours.append(np.quantile(np.diff(raw[both, 0, band : band + 2])[:, 0], [TAIL, 1 - TAIL]))
    arrays = (magnitude, mean, spread, np.reshape(colours, (-1, 2)).T, np.transpose(bright))
    limits = np.array([redshift.min(), redshift.max()])
    return Support(*(jnp.asarray(a, float) for a in (*map(np.asarray, arrays), limits)))


def reasons(bits: int) -> str:
    """In words; "inside" for zero."""
    found = [reason for k, reason in enumerate(REASONS) if int(bits) >> k & 1]
    return ", ".join(found) or "inside"
