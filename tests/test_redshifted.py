"""Photometry at a free redshift, where dust that the model lacks may shine in the red bands."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsed.likelihood import (
    DUST_LIMIT,
    STARLIGHT_LIMIT,
    BandPrediction,
    RedshiftedPhotometry,
    WithRedshift,
    photometry,
)
from jaxsed.likelihood.redshifted import dust_share
from jaxsed.params import distribution
from jaxsed.problem import Problem

PIVOT = np.array([8000.0, 16_000.0, 36_000.0, 80_000.0])
FLUX = np.array([1.0, 2.0, 3.0, 4.0]) * 1e-9
ERROR = np.array([0.05, 0.1, 0.2, 0.4]) * 1e-9
MODEL = np.array([1.03, 1.9, 2.5, 2.0]) * 1e-9


@pytest.fixture
def data():
    plain = photometry(FLUX, ERROR, np.array([1, 1, 1, 1]))
    return RedshiftedPhotometry(plain, jnp.asarray(PIVOT))


def test_dust_has_no_share_of_starlight_and_may_have_all_beyond():
    share = np.asarray(dust_share(jnp.array([912.0, STARLIGHT_LIMIT, DUST_LIMIT, 1e6])))
    np.testing.assert_allclose(share, [0, 0, 1, 1], atol=1e-6)
    middle = np.sqrt(STARLIGHT_LIMIT * DUST_LIMIT)
    assert float(dust_share(jnp.asarray(middle))) == pytest.approx(0.5, abs=1e-6)


def test_the_share_and_its_slope_are_continuous():
    wave = jnp.linspace(2e4, 6e4, 4001)
    share, slope = jax.jit(jax.vmap(jax.value_and_grad(dust_share)))(wave)
    assert np.all(np.diff(share) >= 0)
    assert np.max(np.abs(np.diff(share))) < 1e-3
    assert np.max(np.abs(np.diff(slope * wave))) < 0.02


@pytest.mark.parametrize("redshift", [0.05, 0.8, 1.3, 2.0, 5.2])
def test_likelihood_is_that_of_grown_errors(x64, redshift):
    """Independent normal densities in numpy, with the dust's share added in quadrature."""
    data = RedshiftedPhotometry(photometry(FLUX, ERROR), jnp.asarray(PIVOT))
    floor = np.hypot(ERROR, 0.05 * FLUX)
    x = np.clip(np.log(PIVOT / (1 + redshift) / 2.5e4) / np.log(2.0), 0, 1)
    grown = np.hypot(floor, (3 * x**2 - 2 * x**3) * FLUX)
    expected = stats.norm.logpdf(FLUX, MODEL, grown).sum() - stats.norm.logpdf(0, 0, floor).sum()
    got = data.log_likelihood(BandPrediction(jnp.asarray(MODEL), jnp.asarray(redshift)))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_at_a_high_redshift_it_is_the_plain_likelihood(data):
    prediction = BandPrediction(jnp.asarray(MODEL), jnp.asarray(3.0))
    plain = data.photometry
    np.testing.assert_allclose(data.residuals(prediction), plain.residuals(prediction.flux))
    np.testing.assert_allclose(
        data.log_likelihood(prediction), plain.log_likelihood(prediction.flux), rtol=1e-6
    )
    np.testing.assert_allclose(
        data.normal_equation(prediction), plain.normal_equation(prediction.flux), rtol=1e-6
    )


def test_red_bands_are_kept_where_they_are_starlight(data):
    """The same bands: of full weight at z = 5.2, of next to none nearby."""
    weight = np.asarray(jax.vmap(data.weight)(jnp.array([0.19, 5.2])))
    np.testing.assert_allclose(weight[1], 1.0)
    np.testing.assert_allclose(weight[0, :2], 1.0)
    assert weight[0, 2] < 0.5 and weight[0, 3] < 0.15


def test_best_mass_is_that_of_the_residuals(data):
    prediction = BandPrediction(jnp.asarray(MODEL), jnp.asarray(0.3))
    norm, overlap = data.normal_equation(prediction)
    factors = jnp.linspace(0.5, 2.0, 3001)
    chi2 = jax.jit(
        jax.vmap(lambda f: jnp.sum(data.residuals(data.rescaled(prediction, f)) ** 2))
    )(factors)
    assert float(overlap / norm) == pytest.approx(float(factors[jnp.argmin(chi2)]), abs=1e-3)


def test_limits_keep_their_say_at_any_redshift():
    kind = np.array([1, 1, 1, 2])
    data = RedshiftedPhotometry(photometry(FLUX, ERROR, kind), jnp.asarray(PIVOT))
    bright = jnp.asarray(MODEL).at[3].set(8e-9)
    for z in (0.1, 3.0):
        fall = data.log_likelihood(BandPrediction(jnp.asarray(MODEL), jnp.asarray(z)))
        fall -= data.log_likelihood(BandPrediction(bright, jnp.asarray(z)))
        assert float(fall) == pytest.approx(-stats.norm.logcdf(-10.0), rel=1e-4)


class Theta(NamedTuple):
    log_mass_formed: Any
    redshift: Any


def test_a_problem_takes_it_with_finite_gradients(data):
    def forward(theta):
        colour = jnp.asarray(MODEL) * (1 + theta.redshift) ** jnp.array([-2.0, -1.0, 0.0, 1.0])
        return colour * 10.0 ** (theta.log_mass_formed - 10.0)

    prior = Theta(distribution("uniform", 8.0, 12.0), distribution("uniform", 0.01, 6.0))
    problem = Problem(prior, WithRedshift(forward), data)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(200, 2)) * 2.5)

    @jax.jit
    @jax.vmap
    def all_of(x):
        back = problem.unconstrain(problem.constrain(x))
        return *jax.value_and_grad(problem.logdensity)(x), back

    value, slope, back = all_of(x)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(slope))
    near = np.all(np.abs(x) < 2, axis=1)  # where a uniform's quantile is not at its ends
    np.testing.assert_allclose(back[near], x[near], atol=1e-3)
