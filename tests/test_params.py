"""Priors as standard-normal coordinates: inversion, the density they imply, and their edges."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from jaxsed import params
from jaxsed.sps.models import continuity, provabgs

# name: (prior, distribution function of one value by scipy or by hand)
SCALARS = {
    "uniform": (dist.Uniform(-2.0, 1.0), stats.uniform(-2.0, 3.0).cdf),
    "log-uniform": (dist.LogUniform(4.5e-5, 1.5e-2), stats.loguniform(4.5e-5, 1.5e-2).cdf),
    "normal": (dist.Normal(1.0, 0.5), stats.norm(1.0, 0.5).cdf),
    "truncated normal": (
        dist.TruncatedNormal(0.3, 1.0, low=0.0, high=4.0),
        stats.truncnorm(-0.3, 3.7, loc=0.3).cdf,
    ),
    "narrow truncated normal": (
        dist.TruncatedNormal(1.0, 0.3, low=0.0, high=2.0),
        stats.truncnorm(-1 / 0.3, 1 / 0.3, loc=1.0, scale=0.3).cdf,
    ),
    "by its support": (dist.Gamma(3.0, 2.0), stats.gamma(3.0, scale=0.5).cdf),
}
VECTORS = {
    "student t2": params.student_t2(0.3, 5.0, 6),
    "dirichlet": dist.Dirichlet(jnp.ones(4)),
    "independent normal": dist.Normal(jnp.zeros(3), 2.0).to_event(1),
}
U = jnp.linspace(-3.5, 3.5, 29)


class Pair(NamedTuple):
    a: Any
    b: Any


def _as_theta(prior):
    return Pair(prior, 0.0)


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_coordinates_invert(name):
    prior, _ = SCALARS[name]
    value, _ = jax.jit(jax.vmap(lambda u: params.from_normal(prior, u)))(U)
    assert np.all(np.diff(value) > 0)
    back = jax.jit(jax.vmap(lambda v: params.to_normal(prior, v)))(value)
    np.testing.assert_allclose(back, U, atol=2e-3)


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_coordinates_carry_the_prior(name):
    """The distribution function at value(u) is the integral of the density of u up to there."""
    prior, cdf = SCALARS[name]
    u = jnp.linspace(-7, 7, 4001)
    value, excess = jax.jit(jax.vmap(lambda u: params.from_normal(prior, u)))(u)
    density = np.exp(np.asarray(excess)) * stats.norm.pdf(u)
    below = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(u))])
    np.testing.assert_allclose(below, cdf(np.asarray(value, float)), atol=2e-3)


@pytest.mark.parametrize("name", VECTORS)
def test_vector_coordinates_invert(name):
    prior = VECTORS[name]
    n = params.dimension(_as_theta(prior))
    u = 3 * jax.random.uniform(jax.random.key(1), (200, n), minval=-1)
    value, excess = jax.jit(jax.vmap(lambda u: params.from_normal(prior, u)))(u)
    back = jax.jit(jax.vmap(lambda v: params.to_normal(prior, v)))(value)
    np.testing.assert_allclose(back, u, atol=2e-2)
    np.testing.assert_allclose(excess, 0.0, atol=1e-5)


def test_inverse_is_tight_in_64_bit(x64):
    for prior in (dist.Dirichlet(jnp.ones(4)), params.student_t2(0.3, 5.0, 6)):
        n = params.dimension(_as_theta(prior))
        u = 5 * jax.random.uniform(jax.random.key(1), (50, n), minval=-1)
        value, _ = jax.jit(jax.vmap(lambda u, p=prior: params.from_normal(p, u)))(u)
        back = jax.jit(jax.vmap(lambda v, p=prior: params.to_normal(p, v)))(value)
        np.testing.assert_allclose(back, u, atol=1e-5)


def test_dirichlet_is_flat():
    u = jax.random.normal(jax.random.key(2), (8000, 3))
    prior = dist.Dirichlet(jnp.ones(4))
    beta = np.asarray(jax.jit(jax.vmap(lambda u: params.from_normal(prior, u)[0]))(u))
    np.testing.assert_allclose(beta.sum(1), 1.0, atol=1e-5)
    assert beta.min() >= 0
    for k in range(4):
        assert stats.kstest(beta[:, k], stats.beta(1, 3).cdf).pvalue > 1e-3
    # Any share of a partial sum is uniform or Beta as well: no hidden dependence.
    assert stats.kstest(beta[:, 0] / (beta[:, 0] + beta[:, 3]), "uniform").pvalue > 1e-3
    assert stats.kstest(beta[:, 1] + beta[:, 2], stats.beta(2, 2).cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.cov(beta.T)[0, 1], -1 / 80, rtol=0.1)


def test_student_t2_follows_its_distribution():
    u = jax.random.normal(jax.random.key(3), (5000, 6))
    prior = params.student_t2(0.3, 5.0, 6)
    x = jax.jit(jax.vmap(lambda u: params.from_normal(prior, u)[0]))(u)
    x = np.asarray(x, float).ravel()
    t = stats.t(2, scale=0.3)
    cdf = lambda v: (t.cdf(v) - t.cdf(-5)) / (t.cdf(5) - t.cdf(-5))  # noqa: E731
    assert stats.kstest(x, cdf).pvalue > 1e-3
    assert np.abs(x).max() <= 5.0


def _marginal(prior, n_grid=601, limit=7.0):
    """Grid of x of a two-parameter prior, the parameters and the density on it."""
    x = jnp.linspace(-limit, limit, n_grid)
    grid = jnp.stack(jnp.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    theta, u, excess = jax.jit(jax.vmap(lambda x: params.constrain(prior, x)))(grid)
    density = np.exp(-0.5 * np.sum(np.asarray(u, float) ** 2, 1) + np.asarray(excess)) / (2 * np.pi)
    return theta, density * float(x[1] - x[0]) ** 2


def _weighted_distance(value, weight, cdf):
    """Largest difference between a weighted sample's distribution function and `cdf`."""
    order = np.argsort(value)
    return np.abs(np.cumsum(weight[order]) - cdf(value[order])).max()


def test_other_coordinates_keep_the_prior():
    """A uniform prior moved in log-uniform coordinates, and a fraction in sheared ones."""
    prior = Pair(
        params.Recoordinated(dist.LogUniform(0.01, 13.0), dist.Uniform(0.01, 13.0)),
        params.Recoordinated(dist.Uniform(0.0, 1.0), shift=lambda t: 0.5 * jnp.log(t.a / 2.0)),
    )
    theta, weight = _marginal(prior)
    a, b = np.asarray(theta.a, float), np.asarray(theta.b, float)
    assert weight.sum() == pytest.approx(1.0, abs=2e-3)
    assert _weighted_distance(a, weight, stats.uniform(0.01, 12.99).cdf) < 0.01
    assert _weighted_distance(b, weight, stats.uniform().cdf) < 0.01
    # ... and the two are independent of each other.
    half = a < 6.505
    young = weight[half] / weight[half].sum()
    assert _weighted_distance(b[half], young, stats.uniform().cdf) < 0.01


def test_prior_that_follows_another_parameter():
    def given(theta):
        return dist.TruncatedNormal(0.5 * theta.a, 0.4, low=-1.0, high=1.0)

    prior = Pair(
        dist.Uniform(-1.0, 1.0), params.Recoordinated(dist.Uniform(-1.0, 1.0), given=given)
    )
    theta, weight = _marginal(prior)
    a, b = np.asarray(theta.a, float), np.asarray(theta.b, float)
    assert _weighted_distance(a, weight, stats.uniform(-1, 2).cdf) < 0.01
    near = np.abs(a - 0.6) < 0.02
    expected = stats.truncnorm(-1.3 / 0.4, 0.7 / 0.4, loc=0.3, scale=0.4).cdf
    assert _weighted_distance(b[near], weight[near] / weight[near].sum(), expected) < 0.02

    # Draws: b about its own mean is what the width says, whatever a is.
    u = jax.random.normal(jax.random.key(0), (4000, 2))
    drawn = jax.jit(jax.vmap(lambda u: params.draw(prior, u)))(u)
    a, b = np.asarray(drawn.a, float), np.asarray(drawn.b, float)
    low, high = ((end - 0.5 * a) / 0.4 for end in (-1.0, 1.0))
    assert stats.kstest(a, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    quantile = stats.truncnorm.cdf(b, low, high, loc=0.5 * a, scale=0.4)
    assert stats.kstest(quantile, "uniform").pvalue > 1e-3


PRIORS = {
    "provabgs": provabgs.prior(dist.Uniform(0.01, 4.0)),
    "provabgs at known redshift": provabgs.prior(0.5),
    "continuity": continuity.prior(dist.Uniform(0.01, 4.0)),
    "continuity training": continuity.training_distribution(dist.Uniform(0.01, 4.0)),
}


FEW = [
    name if name in ("provabgs", "continuity") else pytest.param(name, marks=pytest.mark.slow)
    for name in PRIORS
]
"""The others are made of the same distributions."""


@pytest.mark.parametrize("name", FEW)
def test_theta_inverts(name):
    prior = PRIORS[name]
    n = params.dimension(prior)
    assert n == len(params.coordinate_names(prior)) == sum(params.widths(prior))
    x = jax.random.normal(jax.random.key(4), (64, n))

    def there_and_back(x):
        theta, u, excess = params.constrain(prior, x)
        return params.unconstrain(prior, theta), u, excess

    back, u, excess = jax.jit(jax.vmap(there_and_back))(x)
    np.testing.assert_allclose(back, x, atol=2e-2)
    assert np.all(np.isfinite(u)) and np.all(np.isfinite(excess))


@pytest.mark.parametrize("name", FEW)
def test_gradients_are_finite_at_the_edges(name):
    """Far out in any coordinate, one at a time and all together."""
    prior = PRIORS[name]
    n = params.dimension(prior)
    corners = jnp.concatenate([8 * jnp.eye(n), -8 * jnp.eye(n), 8 * jnp.ones((1, n))])
    corners = jnp.concatenate([corners, -8 * jnp.ones((1, n))])

    def scalar(x):
        theta, u, excess = params.constrain(prior, x)
        return sum(jnp.sum(jnp.asarray(v)) for v in theta) + jnp.sum(u) + excess

    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(scalar)))(corners)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient)), np.argwhere(~np.isfinite(gradient))


@pytest.mark.parametrize("name", PRIORS)
def test_no_coordinate_leaves_the_support(name):
    prior = PRIORS[name]
    x = 4 * jax.random.normal(jax.random.key(5), (256, params.dimension(prior)))
    theta = jax.jit(jax.vmap(lambda x: params.constrain(prior, x)[0]))(x)
    for field, leaf in zip(prior._fields, prior, strict=True):
        if params.is_fixed(leaf):
            continue
        base = leaf.base if isinstance(leaf, params.Recoordinated) else leaf
        value = np.asarray(getattr(theta, field), float)
        if isinstance(base, dist.Dirichlet):
            np.testing.assert_allclose(value.sum(-1), 1.0, atol=1e-5)
            assert value.min() >= 0
        else:
            inner = getattr(base, "base_dist", base) if base.event_shape else base
            low, high = inner.support.lower_bound, inner.support.upper_bound
            slack = 1e-5 * (float(high) - float(low))
            assert value.min() >= float(low) - slack and value.max() <= float(high) + slack, field


def test_known_parameters_are_not_sampled():
    prior = PRIORS["provabgs at known redshift"]
    assert "redshift" not in params.coordinate_names(prior)
    n = params.dimension(prior)
    theta = jax.jit(lambda x: params.constrain(prior, x)[0])(jnp.zeros(n))
    assert theta.redshift == 0.5


def test_names_and_features():
    theta = provabgs.ProvabgsTheta(
        log_mass_formed=10.0, beta=jnp.array([0.1, 0.2, 0.3, 0.4]), f_burst=0.1, t_burst=0.5,
        gamma1=1e-3, gamma2=1e-2, dust1=0.5, dust2=0.3, dust_index=-0.7, redshift=0.2,
    )  # fmt: skip
    names = params.flat_names(theta)
    assert names[:6] == ("log_mass_formed", "beta_1", "beta_2", "beta_3", "beta_4", "f_burst")
    got = params.features(
        theta, ["beta_2", "beta_stick_1", "beta_stick_2", "beta_stick_3", "log10_gamma1", "dust1"]
    )
    np.testing.assert_allclose(got, [0.2, 0.1, 0.2 / 0.9, 0.3 / 0.7, -3.0, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="unknown feature 'mass'.*log10_<field>"):
        params.features(theta, ["mass"])


def test_sticks_of_a_vanishing_remainder_are_finite():
    beta = jnp.array([1.0, 0.0, 0.0, 0.0])
    assert np.all(np.isfinite(jax.jacfwd(params.sticks)(beta)))


def test_objects_that_are_no_continuous_prior():
    for wrong in (dist.Poisson(3.0), "uniform"):
        with pytest.raises(TypeError, match="expected a continuous numpyro distribution"):
            params.from_normal(wrong, jnp.zeros(()))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("uniform", (0.0, 2.0)), ("log_uniform", (0.1, 2.0)), ("normal", (0.0, 1.0)),
        ("truncated_normal", (0.5, 1.0, 0.0, 2.0)), ("student_t", (2.0, 0.0, 1.0)),
    ],
)  # fmt: skip
def test_a_prior_may_be_made_inside_of_a_trace(name, args):
    """As priors that depend on the redshift are; what is known there is still checked."""

    def value(u):
        return params.from_normal(params.distribution(name, *args), u)[0]

    np.testing.assert_allclose(jax.jit(value)(0.3), value(jnp.asarray(0.3)), rtol=1e-5)
    with pytest.raises(ValueError, match="out of its range|low < high"):
        jax.jit(lambda u: params.from_normal(params.distribution("uniform", 1.0, 0.0), u)[0])(0.3)
