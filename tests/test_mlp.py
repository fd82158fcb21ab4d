"""The multilayer perceptron: its equation, its scale, its checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.nets import mlp

KEY = jax.random.key(3)
SIZES = (4, 16, 16, 3)


def numpy_gelu(a):
    return a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


@pytest.mark.parametrize("activation", sorted(mlp.ACTIVATIONS))
def test_equation(activation):
    layers = mlp.init(KEY, SIZES, activation)
    x = np.array([0.3, -1.0, 2.0, 0.1])
    h = x
    for w, b, *rest in layers[:-1]:
        a = h @ np.asarray(w, float) + np.asarray(b, float)
        if activation == "gelu_tanh":
            h = numpy_gelu(a)
        elif activation == "relu":
            h = np.maximum(a, 0.0)
        else:
            alpha, beta = (np.asarray(v, float) for v in rest)
            h = (beta + (1 - beta) / (1 + np.exp(-alpha * a))) * a
    w, b = (np.asarray(v, float) for v in layers[-1])
    got = mlp.apply(layers, jnp.asarray(x), activation)
    np.testing.assert_allclose(got, h @ w + b, rtol=1e-4, atol=1e-5)


def test_published_speculator_network(shared_data):
    """A published PROVABGS network runs as it is, against the same sums in float64."""
    path = shared_data / "emulators/provabgs/nmf.v0.1.seed0_99.w5500_7410.pca50.8x256.nbatch250.npz"
    with np.load(path, allow_pickle=False) as file:
        hidden = [[file[f"{k}{i}"] for k in ("W", "b", "alpha", "beta")] for i in range(8)]
        last = [file["W8"], file["b8"]]
    layers = tuple(tuple(jnp.asarray(p, float) for p in layer) for layer in (*hidden, last))
    mlp.check_layers(layers, "speculator")
    x = np.linspace(-1, 1, 9)
    h = x
    for w, b, alpha, beta in hidden:
        a = h @ w.astype(float) + b
        h = (beta + (1 - beta) / (1 + np.exp(-alpha.astype(float) * a))) * a
    expected = h @ last[0].astype(float) + last[1]
    got = mlp.apply(layers, jnp.asarray(x), "speculator")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("activation", sorted(mlp.ACTIVATIONS))
def test_contract(activation):
    layers = mlp.init(KEY, SIZES, activation)
    mlp.check_layers(layers, activation)
    assert mlp.layer_sizes(layers) == SIZES
    x = jax.random.normal(KEY, (5, 4))
    one = lambda v: mlp.apply(layers, v, activation)  # noqa: E731
    looped = jnp.stack([one(v) for v in x])
    np.testing.assert_allclose(jax.vmap(one)(x), looped, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(one)(x[0]), looped[0], rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda layers: mlp.apply(layers, x[0], activation).sum())(layers)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(gradient))


def test_signal_keeps_its_size():
    layers = mlp.init(KEY, (11, 128, 128, 128, 128, 128, 5))
    y = jax.vmap(lambda v: mlp.apply(layers, v))(jax.random.normal(KEY, (500, 11)))
    assert 0.2 < float(y.std()) < 5.0


def test_same_key_same_network():
    a, b = mlp.init(KEY, SIZES), mlp.init(KEY, SIZES)
    assert all(bool(jnp.all(x == y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_float64(x64):
    layers = mlp.init(KEY, SIZES)
    assert mlp.apply(layers, jnp.ones(4)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: mlp.init(KEY, (3,)), "two or more"),
        (lambda: mlp.init(KEY, (3, 0, 2)), "positive"),
        (lambda: mlp.init(KEY, (3, 2), "step"), "unknown activation 'step'"),
        (lambda: mlp.check_layers(()), "one or more layers"),
        (lambda: mlp.check_layers(mlp.init(KEY, SIZES)[::-1]), "layer 1"),
        (lambda: mlp.check_layers(mlp.init(KEY, SIZES), "speculator"), "expected 4 arrays"),
        (lambda: mlp.check_layers(((jnp.ones((2, 3)), jnp.ones(2)),)), "vectors of"),
    ],
)
def test_errors(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
