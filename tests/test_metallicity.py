"""Metallicity weights against the averages they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.sps.populations import metallicity

NODES = np.array([-3.0, -2.4, -2.1, -1.7, -1.3])
CENTRES = np.array([-4.0, -3.0, -2.41, -2.25, -1.9, -1.3, -0.5])


@pytest.mark.parametrize("scatter", [0.02, 0.2, 0.6])
def test_is_the_gaussian_average_of_linear_interpolation(scatter):
    e = np.linspace(-6, 6, 4001)
    w = np.exp(-0.5 * e**2)
    z = np.clip(CENTRES[:, None] + scatter * e, NODES[0], NODES[-1])
    hats = [np.interp(z, NODES, row) @ w / w.sum() for row in np.eye(NODES.size)]
    ours = jax.jit(metallicity.weights)(jnp.asarray(CENTRES), jnp.asarray(NODES), scatter)
    np.testing.assert_allclose(ours, hats, atol=1e-5)


def test_weights_are_positive_and_sum_to_one():
    z = jnp.linspace(-6, 1, 200)
    w = metallicity.weights(z, jnp.asarray(NODES))
    assert w.shape == (NODES.size, 200)
    assert float(w.min()) > -1e-5
    np.testing.assert_allclose(w.sum(0), 1.0, atol=1e-5)


def test_small_scatter_is_linear_interpolation_and_the_ends_hold():
    w = metallicity.weights(jnp.asarray(CENTRES), jnp.asarray(NODES), 1e-3)
    expected = [np.interp(CENTRES, NODES, row) for row in np.eye(NODES.size)]
    np.testing.assert_allclose(w, expected, atol=2e-3)


def test_smooth_where_linear_interpolation_has_kinks(x64):
    slope = jax.jacfwd(lambda z: metallicity.weights(z[None], jnp.asarray(NODES))[:, 0])
    z = NODES[1] + np.array([-1e-4, 0.0, 1e-4])
    d = jax.jit(jax.vmap(slope))(jnp.asarray(z))
    np.testing.assert_allclose(d[0], d[2], atol=2e-3)
    step = 1e-5
    f = metallicity.weights(jnp.asarray(NODES[1] + np.array([-step, step])), jnp.asarray(NODES))
    np.testing.assert_allclose(d[1], (f[:, 1] - f[:, 0]) / (2 * step), atol=1e-8)


def test_gradients_are_finite_far_outside_the_grid():
    z = jnp.array([-30.0, 30.0])
    slope = jax.jit(jax.grad(lambda z: metallicity.weights(z, jnp.asarray(NODES))[1].sum()))(z)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
