"""The residual network over cubes, against the library's convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.nets import resnet3d
from jaxsed.nets.resnet3d import HALVE, KEEP, Architecture, Step


def whole_kernel(weight, n, step):
    """[tap, tap, tap, in, out] with zeros for the taps that only meet zeros."""
    taps = list(step.taps(n))
    k = len(taps)
    kernel = jnp.zeros((3, 3, 3, *weight.shape[1:]))
    return kernel.at[np.ix_(taps, taps, taps)].set(weight.reshape(k, k, k, *weight.shape[1:]))


@partial(jax.jit, static_argnames="step")
def library(weight, x, step):
    kernel = whole_kernel(weight, x.shape[0], step)
    return jax.lax.conv_general_dilated(
        x[None], kernel, (step.stride,) * 3, [(step.padding,) * 2] * 3,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )[0]  # fmt: skip


@pytest.mark.parametrize(
    ("n", "step", "live"),
    [(9, Step(2, 3), 27), (8, HALVE, 27), (4, KEEP, 27), (4, HALVE, 27), (2, KEEP, 27),
     (2, HALVE, 8), (1, KEEP, 1)],
)  # fmt: skip
@pytest.mark.parametrize("ours", [resnet3d.convolve_by_matrix, resnet3d.convolve_by_library])
def test_convolution_and_its_gradient_are_the_librarys(n, step, live, ours):
    assert len(step.taps(n)) ** 3 == live
    weight = jax.random.normal(jax.random.key(0), (live, 2, 3))
    x = jax.random.normal(jax.random.key(1), (n, n, n, 2))

    @partial(jax.jit, static_argnames="convolve")
    def all_of(convolve, weight, x):
        def energy(w, x):
            h = convolve(w, x, step)
            return jnp.sum(jnp.sin(h)), h

        slopes, h = jax.grad(energy, argnums=(0, 1), has_aux=True)(weight, x)
        return h, slopes

    (h, slopes), (expected, theirs) = (all_of(f, weight, x) for f in (ours, library))
    np.testing.assert_allclose(h, expected, atol=2e-5)
    for a, b in zip(slopes, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize(("n", "step"), [(9, Step(2, 3)), (8, HALVE), (4, KEEP), (2, HALVE)])
def test_wide_convolutions_are_the_librarys(n, step):
    weight = jax.random.normal(jax.random.key(0), (len(step.taps(n)) ** 3, 3, resnet3d.WIDE))
    x = jax.random.normal(jax.random.key(1), (n, n, n, 3))
    ours = jax.jit(lambda weight, x: resnet3d.convolve_by_matrix(weight, x, step))
    np.testing.assert_allclose(ours(weight, x), library(weight, x, step), atol=5e-5)


@pytest.mark.parametrize(("width", "published"), [(20, 859_142), (100, 20_255_862)])
def test_the_weights_are_the_published_ones_less_the_taps_that_meet_nothing(width, published):
    sizes = Architecture(width=width, norm=True, pool="max", wrap=False)
    net = jax.eval_shape(lambda: resnet3d.init(jax.random.key(0), 25, 1, 14, architecture=sizes))
    # the stages see 8, 4, 2 and 1 voxels; those kernels of the last stage lack taps
    left_out = 19 * 2 * width * 4 * width + 3 * 26 * (4 * width) ** 2
    # the batch norm of a dense layer, the last included, has a factor and an offset, ours none
    batch_norms = 2 * (320 + 80 + 14)
    # the biases of the convolutions are the offsets of their normalisations
    assert resnet3d.parameter_count(net) == published - left_out - batch_norms


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pooling(kind):
    x = jax.random.uniform(jax.random.key(0), (15, 15, 15, 2))
    init, reduce = (-jnp.inf, jax.lax.max) if kind == "max" else (0.0, jax.lax.add)
    expected = jax.lax.reduce_window(
        x, init, reduce, (3, 3, 3, 1), (2, 2, 2, 1), [(1, 1)] * 3 + [(0, 0)]
    )
    expected = expected / (27 if kind == "mean" else 1)
    np.testing.assert_allclose(resnet3d.pool(x, kind), expected, rtol=1e-5)


def test_a_periodic_field_has_no_edge():
    sizes = Architecture(width=4, pool="mean")
    net = resnet3d.init(jax.random.key(0), 9, 1, 2, architecture=sizes)
    x = jax.random.uniform(jax.random.key(1), (9, 9, 9, 1))

    @jax.jit
    def convolved(x):
        around = jnp.pad(x, [(3, 3)] * 3 + [(0, 0)], "wrap")
        return resnet3d.convolve(net.first.weight, around, Step(2, 0))

    # two voxels are one step of the stride
    np.testing.assert_allclose(
        convolved(jnp.roll(x, 2, axis=0))[1:], convolved(x)[:-1], atol=1e-5
    )


def test_untrained_branches_are_silent_without_a_norm():
    x = jax.random.uniform(jax.random.key(1), (9, 9, 9, 1))
    net = resnet3d.init(jax.random.key(0), 9, 1, 3, architecture=Architecture(width=4))
    last = (jax.random.normal(jax.random.key(2), (80, 3)), jnp.zeros(3))
    net = net.replace(dense=(*net.dense[:2], last))
    stages = tuple(
        tuple(b._replace(first=b.first._replace(weight=5 * b.first.weight)) for b in stage)
        for stage in net.stages
    )
    run = jax.jit(lambda net: net(x))
    assert float(jnp.abs(run(net)).min()) > 0
    np.testing.assert_allclose(run(net), run(net.replace(stages=stages)), rtol=1e-6)


def test_dropout_has_the_right_mean():
    x = jax.random.uniform(jax.random.key(1), (9, 9, 9, 1))
    sizes = Architecture(width=4, dropout=0.3, dense=(64, 1))
    net = resnet3d.init(jax.random.key(0), 9, 1, 1, architecture=sizes)
    # a linear network: what is dropped after the first dense layer averages out
    one = (jnp.ones((1, 1)), jnp.zeros(1))
    net = net.replace(dense=(net.dense[0], (jnp.ones((64, 1)) / 64, jnp.ones(1)), one))
    keys = jax.random.split(jax.random.key(2), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: net(x, key=k)))(keys))
    assert draws.std() > 0
    assert abs(draws.mean() - float(jax.jit(lambda: net(x))()[0])) < 5 * draws.std() / 4000**0.5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"width": 0}, "one or more"), ({"dropout": 1.0}, "dropout"), ({"pool": "min"}, "pool")],
)
def test_impossible_sizes_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Architecture(**change)


def test_a_field_needs_some_voxels():
    with pytest.raises(ValueError, match="3 or more"):
        resnet3d.init(jax.random.key(0), 2, 1, 1)
