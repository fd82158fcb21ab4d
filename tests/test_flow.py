"""The flow: inversion, log-determinants, draws against densities, distrax, degrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.infer.amortised import flow
from jaxsed.nets import made

FORWARD = jax.jit(jax.vmap(lambda net, z, c: net.forward(z, c), (None, 0, None)))
INVERSE = jax.jit(jax.vmap(lambda net, x, c: net.inverse(x, c), (None, 0, None)))
LOG_PROB = jax.jit(jax.vmap(lambda net, x, c: net.log_prob(x, c), (None, 0, None)))
JACOBIAN = jax.jit(jax.jacfwd(lambda z, net, c: net.forward(z, c)[0]))


@pytest.fixture(scope="module", params=[(4, 3, 32), (5, 0, 3)])
def case(request):
    """A small flow far from the identity, a context and draws."""
    dimension, features, width = request.param
    net = flow.create(jax.random.key(0), dimension, features, blocks=3, width=width)
    louder = net.blocks._replace(
        output=40 * net.blocks.output,
        output_bias=0.5 * jax.random.normal(jax.random.key(1), net.blocks.output_bias.shape),
    )
    net = net.replace(
        blocks=louder, x_scale=jnp.linspace(0.5, 2.0, dimension), x_shift=net.x_shift + 1
    )
    context = jax.random.normal(jax.random.key(2), (features,))
    z = jax.random.normal(jax.random.key(3), (20, dimension))
    return net, context, z


def test_inverse_undoes_forward(case):
    net, context, z = case
    x, log_det = FORWARD(net, z, context)
    back, log_det_back = INVERSE(net, x, context)
    assert np.abs(np.asarray(x) - z).max() > 0.3
    np.testing.assert_allclose(back, z, atol=2e-4)
    np.testing.assert_allclose(log_det_back, -log_det, atol=2e-4)


def test_log_determinant_is_that_of_the_jacobian(case):
    net, context, z = case
    _, log_det = FORWARD(net, z, context)
    for k, row in enumerate(z[:3]):
        sign, expected = np.linalg.slogdet(JACOBIAN(row, net, context))
        assert abs(sign) == 1
        np.testing.assert_allclose(log_det[k], expected, atol=1e-4)


def test_draws_of_one_pass_are_those_of_one_pass_per_variable(case):
    net, context, z = case
    block = jax.tree.map(lambda a: a[0], net.blocks)
    conditional, x = jax.jit(made.conditional), np.zeros(z.shape[1], np.float32)
    for _ in range(z.shape[1]):
        mean, log_scale = map(np.asarray, conditional(block, x, context))
        x = mean + np.exp(log_scale) * z[0]
    found, log_det = jax.jit(made.ancestral)(block, z[0], context)
    np.testing.assert_allclose(found, x, atol=1e-5)
    np.testing.assert_allclose(log_det, log_scale.sum(), atol=1e-5)


def test_a_variable_depends_on_those_before_it_and_the_context_alone(case):
    net, context, z = case
    block = jax.tree.map(lambda a: a[0], net.blocks)
    slopes = jax.jit(jax.jacfwd(made.conditional, argnums=(1, 2)))(block, z[0], context)
    for jacobian, _ in slopes:
        assert np.all(np.triu(np.asarray(jacobian)) == 0)
    if context.size and block.bias.size >= z.shape[1]:
        assert np.all(np.abs(slopes[0][1]).max(axis=1) > 0)


def test_samples_come_with_their_density(case):
    net, context, _ = case
    x, log_prob = jax.jit(net.sample, static_argnums=2)(jax.random.key(5), context, 50)
    np.testing.assert_allclose(log_prob, LOG_PROB(net, x, context), rtol=1e-4, atol=2e-4)


def test_distrax_distribution_is_the_same(case):
    net, context, z = case
    distribution = net.distribution(context)
    assert distribution.event_shape == (net.dimension,)
    draw = jax.jit(lambda key: distribution.sample(seed=key, sample_shape=(6, 2)))
    x = draw(jax.random.key(0))
    assert x.shape == (6, 2, net.dimension)
    expected = LOG_PROB(net, x.reshape(-1, net.dimension), context)
    found = jax.jit(distribution.log_prob)(x).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)


def test_size_of_sedflow():
    # 7.9 million parameters (Hahn & Melchior 2022); counted without building the arrays.
    shapes = jax.eval_shape(lambda key: made.init(key, 12, 11, 500), jax.random.key(0))
    assert 15 * made.size(shapes) == 15 * (12 * 500 + 11 * 500 + 500 + 2 * 250_500 + 24 * 501)
    assert 7.8e6 < 15 * made.size(shapes) < 8.0e6


@pytest.mark.parametrize("variables", [1, 3, 12])
def test_degrees_are_shared_out(variables):
    degree = made.degrees(variables, 50)
    counts = np.bincount(degree, minlength=variables)
    assert np.all(np.diff(degree) >= 0)
    assert counts.max() - counts.min() <= 1


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="positive"):
        made.init(jax.random.key(0), 0, 3, 8)
