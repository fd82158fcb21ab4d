"""Convolutions along a spectrum, max pooling, and the dense layers behind them.

Written for one spectrum [pixel, channel]; the caller vmaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Key

Layer = tuple[Array, Array]
"""(weights, bias): [tap, channel in, channel out] of a convolution, [in, out] of a dense layer."""

BLOCK = 32
"""Output pixels of one matrix product; see `convolve`."""


def init_convolutions(
    key: Key, filters: Sequence[int], taps: int, channels: int = 1, scale: float | None = None
) -> tuple[Layer, ...]:
    """One layer for each of `filters`, the numbers of channels that go out.

    Weights are normal with a standard deviation of `scale`, or that of He et al. (2015) where it
    is None; biases are zero.
    """
    return _init_convolutions(key, tuple(filters), taps, channels, scale)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _init_convolutions(
    key: Key, filters: tuple[int, ...], taps: int, channels: int, scale: float | None
) -> tuple[Layer, ...]:
    layers = []
    for k, out in zip(jax.random.split(key, len(filters)), filters, strict=True):
        spread = scale or (2.0 / (taps * channels)) ** 0.5
        layers.append((spread * jax.random.normal(k, (taps, channels, out)), jnp.zeros(out)))
        channels = out
    return tuple(layers)


@partial(jax.jit, static_argnames=("inputs", "outputs", "scale", "gain"))
def init_dense(
    key: Key, inputs: int, outputs: int, scale: float | None = None, gain: float = 2.0
) -> Layer:
    """A dense layer, with weights as in `init_convolutions`."""
    spread = scale or (gain / inputs) ** 0.5
    return spread * jax.random.normal(key, (inputs, outputs)), jnp.zeros(outputs)


def dense(layer: Layer, x: Array) -> Array:
    """``x W + b``."""
    w, b = layer
    return x @ w + b


def convolve(layer: Layer, x: Array) -> Array:
    """[pixel, channel out] of x [pixel, channel in], zero beyond the ends ("same" padding).

    out_po = b_o + sum_tc w_tco x_(p+t-l)c, with l = (taps - 1) // 2.

    A block of output pixels is one product with a banded matrix that holds the taps: for a few
    channels this is several times faster on CPUs, gradients included, than the convolution of the
    library, although most of the matrix is zero.
    """
    w, b = layer
    taps, channels, out = w.shape
    pixels, before = x.shape[0], (taps - 1) // 2
    blocks = -(-pixels // BLOCK)
    padded = jnp.pad(x, ((before, blocks * BLOCK - pixels + taps - 1 - before), (0, 0)))
    body = padded[: blocks * BLOCK].reshape(blocks, BLOCK, channels)
    # the first pixels of the next block, which the last taps of this one see
    rest = padded[blocks * BLOCK :].reshape(1, taps - 1, channels)
    overlap = jnp.concatenate([body[1:, : taps - 1], rest])
    seen = jnp.concatenate([body, overlap], axis=1).reshape(blocks, -1)
    found = seen @ _banded(w).reshape((BLOCK + taps - 1) * channels, BLOCK * out)
    return found.reshape(blocks * BLOCK, out)[:pixels] + b


def _banded(w: Array) -> Array:
    """[pixel in, channel in, pixel out, channel out] the taps of a block's pixels."""
    taps = w.shape[0]
    lag = np.arange(BLOCK + taps - 1)[:, None] - np.arange(BLOCK)
    lag = np.where((lag >= 0) & (lag < taps), lag, taps)
    return jnp.concatenate([w, jnp.zeros_like(w[:1])])[lag].transpose(0, 2, 1, 3)


def max_pool(x: Array, size: int) -> Array:
    """[pixel // size, channel] the largest of every `size` pixels; a remainder is left out."""
    pixels, channels = x.shape
    return x[: pixels // size * size].reshape(-1, size, channels).max(axis=1)
