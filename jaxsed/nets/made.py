"""Masked autoencoder for distribution estimation (Germain et al. 2015): means and log scales of
one variable after another, each given those before it and a context.

Hidden units carry degrees in increasing order: one of degree d sees the first d variables and the
context, and feeds only outputs from the d-th on (counted from zero).  Units of one degree lie side
by side, so the network can be evaluated degree by degree, each hidden unit once: `ancestral` draws
all variables for the price of one pass, where the usual way takes one pass per variable.  Written
for one vector; the caller vmaps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Key

LOG_SCALE_LIMIT = 5.0
"""Log scales stay within this, smoothly: no start or odd context can overflow."""

FIRST_OUTPUT = 1e-2
"""Size of the last layer's first weights: an untrained network is nearly the identity."""


class Made(NamedTuple):
    """Weights of one network, or with a leading axis of several."""

    inputs: Array
    """[variable, width]."""
    context: Array
    """[context, width]."""
    bias: Array
    """[width]."""
    hidden: tuple[tuple[Array, Array], ...]
    """(weights [width, width], bias [width]) of each further layer."""
    output: Array
    """[width, 2, variable]: means, then log scales."""
    output_bias: Array
    """[2, variable]."""


def init(key: Key, variables: int, context: int, width: int, depth: int = 2) -> Made:
    """Random weights; `depth` is the number of layers between hidden units.

    Raises ValueError for sizes below one.
    """
    if min(variables, width) < 1 or min(context, depth) < 0:
        raise ValueError(f"expected positive sizes, got {(variables, context, width, depth)}")
    return _init(key, variables, context, width, depth)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _init(key: Key, variables: int, context: int, width: int, depth: int) -> Made:
    keys = jax.random.split(key, depth + 3)

    def normal(key: Key, n_in: int, *shape: int, gain: float = 2.0) -> Array:
        return (gain / max(n_in, 1)) ** 0.5 * jax.random.normal(key, shape)

    seen = variables + context
    return Made(
        inputs=normal(keys[0], seen, variables, width),
        context=normal(keys[1], seen, context, width),
        bias=jnp.zeros(width),
        # Half of the weights are masked.
        hidden=tuple(
            (normal(k, width, width, width, gain=4.0), jnp.zeros(width)) for k in keys[3:]
        ),
        output=FIRST_OUTPUT * normal(keys[2], width, width, 2, variables, gain=1.0),
        output_bias=jnp.zeros((2, variables)),
    )


def degrees(variables: int, width: int) -> np.ndarray:
    """[width] from 0 to variables - 1, in order and in shares as equal as can be."""
    return np.arange(width) * variables // width


def masked(made: Made) -> Made:
    """The weights with those that would look ahead set to zero."""
    variables, width = made.inputs.shape
    degree = degrees(variables, width)
    variable = np.arange(variables)
    forward = jnp.asarray(degree[:, None] <= degree, made.bias.dtype)
    return made._replace(
        inputs=made.inputs * (variable[:, None] < degree),
        hidden=tuple((w * forward, b) for w, b in made.hidden),
        output=made.output * (degree[:, None, None] <= variable),
    )


def _limited(log_scale: Array) -> Array:
    return LOG_SCALE_LIMIT * jnp.tanh(log_scale / LOG_SCALE_LIMIT)


def conditional(made: Made, x: Array, context: Array) -> tuple[Array, Array]:
    """Mean and log scale [variable] of each variable given those of x [variable] before it."""
    seen = masked(made)
    h = _act(x @ seen.inputs + context @ seen.context + seen.bias)
    for weights, bias in seen.hidden:
        h = _act(h @ weights + bias)
    out = jnp.einsum("h,hkv->kv", h, seen.output) + seen.output_bias
    return out[0], _limited(out[1])


def ancestral(made: Made, z: Array, context: Array) -> tuple[Array, Array]:
    """x [variable] with x_i = mean_i + exp(log scale_i) z_i, and the sum of the log scales."""
    variables, width = made.inputs.shape
    edges = np.searchsorted(degrees(variables, width), np.arange(variables + 1))
    first = context @ made.context + made.bias
    layers: list[list[Array]] = [[] for _ in range(len(made.hidden) + 1)]
    x: list[Array] = []
    total = jnp.zeros((), z.dtype)
    for i in range(variables):
        own, seen = slice(int(edges[i]), int(edges[i + 1])), slice(0, int(edges[i + 1]))
        # Where width < variables some degrees have no units, and nothing new to compute.
        h = first[own]
        if x:
            h = h + jnp.stack(x) @ made.inputs[:i, own]
        layers[0].append(_act(h))
        for before, after, (weights, bias) in zip(
            layers[:-1], layers[1:], made.hidden, strict=True
        ):
            after.append(_act(jnp.concatenate(before) @ weights[seen, own] + bias[own]))
        out = jnp.concatenate(layers[-1]) @ made.output[seen, :, i] + made.output_bias[:, i]
        log_scale = _limited(out[1])
        x.append(out[0] + jnp.exp(log_scale) * z[i])
        total = total + log_scale
    return jnp.stack(x), total


_act: Callable[[Array], Array] = jax.nn.gelu


def size(made: Made) -> int:
    """Number of weights, masked ones included."""
    return sum(leaf.size for leaf in jax.tree.leaves(made))
