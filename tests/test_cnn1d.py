"""Convolutions along a spectrum, against the library's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.nets import cnn1d


def library(layer, x):
    w, b = layer
    return (
        jax.lax.conv_general_dilated(
            x[None], w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )[0]
        + b
    )


@pytest.mark.parametrize(
    ("pixels", "taps", "channels", "out"),
    [(5, 8, 1, 2), (32, 3, 2, 1), (100, 8, 2, 4), (257, 8, 1, 2), (64, 1, 1, 1)],
)
def test_convolution_and_its_gradient_are_the_librarys(pixels, taps, channels, out):
    layer = cnn1d.init_convolutions(jax.random.key(0), (out,), taps, channels)[0]
    layer = (layer[0], jnp.arange(1.0, out + 1))
    x = jax.random.normal(jax.random.key(1), (pixels, channels))
    np.testing.assert_allclose(cnn1d.convolve(layer, x), library(layer, x), atol=3e-6)

    def energy(convolve):
        total = lambda layer, x: jnp.sum(jnp.sin(convolve(layer, x)))  # noqa: E731
        return jax.jit(jax.grad(total, argnums=(0, 1)))

    ours, theirs = energy(cnn1d.convolve)(layer, x), energy(library)(layer, x)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_pooling_takes_the_largest_and_leaves_a_remainder_out():
    x = jnp.array([[1.0, 5.0], [3.0, 2.0], [0.0, 0.0], [7.0, 1.0], [9.0, 9.0]])
    np.testing.assert_array_equal(cnn1d.max_pool(x, 2), [[3, 5], [7, 1]])
