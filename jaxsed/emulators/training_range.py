"""The training range of an emulator: the box of inputs that it was trained in."""

import jax.numpy as jnp
from jax import Array

# A theta on the edge of the box may round to just outside it.
_SLACK = 1e-5


def outside(x: Array, low: Array, high: Array) -> Array:
    """Whether each input [input] lies out of its range; a NaN always does.

    Args:
        x: [input] of one theta.
        low: [input] lowest training value; -inf where unknown.
        high: [input] highest training value; inf where unknown.
    """
    width = high - low
    slack = _SLACK * jnp.where(jnp.isfinite(width), width, 0.0)
    return ~((x >= low - slack) & (x <= high + slack))
