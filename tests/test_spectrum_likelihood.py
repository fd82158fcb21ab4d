"""Marginalised likelihoods of spectra against dense covariances written out with numpy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import sparse, stats

from jaxsed.core import linear_algebra
from jaxsed.likelihood import (
    Joint,
    JointPrediction,
    LineProfiles,
    Lines,
    MassShear,
    SpectrumPrediction,
    photometry,
    spectrum,
)
from jaxsed.problem import Problem

N_PIXEL, N_LINE, N_TERM = 60, 3, 2
OFFSETS = (-2, -1, 0, 1, 2)
LN_WAVE = np.log(5000.0) + 1e-4 * np.arange(N_PIXEL)
CENTRES = LN_WAVE[[15, 33, 35]]
LINE_PIXELS = np.r_[7:24, 25:44]
"""Two stretches, each with as much darkness at its ends as the resolution matrix reaches."""


RESIDUALS = jax.jit(lambda data, prediction: data.residuals(prediction))
LIKELIHOOD = jax.jit(lambda data, prediction: data.log_likelihood(prediction))
NORMAL = jax.jit(lambda data, prediction: data.normal_equation(prediction))
PROFILES = jax.jit(lambda lines: lines.profiles(lines.shift, lines.dispersion))


class Toy(NamedTuple):
    log_mass_formed: Any
    slope: Any


def _lines(shift, dispersion, some=True):
    """Three Gaussian lines of 30 km/s, two of them blended."""
    pixels = LINE_PIXELS if some else LINE_PIXELS[:0]
    centres = CENTRES if some else CENTRES[:0]
    first = [0, 17, 17] if some else []
    windows = np.array([pixels[f : f + 19] for f in first], int).reshape(len(first), 19 * some)
    profiles = LineProfiles(
        low=jnp.asarray(LN_WAVE[windows] - 5e-5 - centres[:, None]),
        high=jnp.asarray(LN_WAVE[windows] + 5e-5 - centres[:, None]),
        per_width=jnp.full(windows.shape, 2.0),
        instrument=jnp.zeros(windows.shape),
        windows=jnp.asarray(windows),
        pixels=jnp.asarray(pixels),
        places=tuple(enumerate(first)),
        n_lines=centres.size,
    )
    return Lines(profiles, jnp.asarray(shift, float), jnp.asarray(dispersion, float))


def _profiles(lines):
    """[line, pixel] with all pixels, in numpy."""
    out = np.zeros((lines.profiles.n_lines, N_PIXEL))
    out[:, np.asarray(lines.profiles.pixels)] = PROFILES(lines)
    return out


def _scene(seed=0, *, resolution=True, lines=True, polynomials=True):
    """Data, its inputs in numpy, and a prediction."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, N_PIXEL)
    flux, sigma = 3.0 + rng.normal(size=N_PIXEL), rng.uniform(0.2, 0.6, N_PIXEL)
    ivar = 1 / sigma**2
    ivar[[5, 17]] = 0.0
    kernel = np.array([0.1, 0.2, 0.5, 0.15, 0.05])[:, None] * rng.uniform(0.9, 1.1, N_PIXEL)
    inside = (np.arange(N_PIXEL) + np.array(OFFSETS)[:, None] >= 0) & (
        np.arange(N_PIXEL) + np.array(OFFSETS)[:, None] < N_PIXEL
    )
    kernel = kernel * inside
    parts = {
        "polynomials": 0.2 * np.stack([x, 2 * x**2 - 1]) if polynomials else None,
        "line_sigma": np.array([3.0, 5.0, 50.0]) if lines else None,
        "line_pixels": LINE_PIXELS if lines else np.zeros(0, int),
        "resolution": kernel if resolution else None,
        "offsets": OFFSETS if resolution else (),
    }
    data = spectrum(flux, ivar, error_floor=0.05, **parts)
    prediction = SpectrumPrediction(jnp.asarray(2.8 + 0.4 * x), _lines(0.0, 30.0, lines))
    return data, flux, ivar, parts, prediction


def _dense(flux, ivar, parts, prediction):
    """Mean, covariance and data of the used pixels, with the nuisances in the covariance."""
    matrix = np.eye(N_PIXEL)
    if parts["resolution"] is not None:
        matrix = np.zeros((N_PIXEL, N_PIXEL))
        for row, offset in zip(parts["resolution"], OFFSETS, strict=True):
            for i in range(N_PIXEL):
                if 0 <= i + offset < N_PIXEL:
                    matrix[i, i + offset] = row[i]
    used = ivar > 0
    model = matrix @ np.asarray(prediction.continuum)
    covariance = np.diag(1 / ivar[used] + (0.05 * flux[used]) ** 2)
    if parts["polynomials"] is not None:
        a = (parts["polynomials"] * model)[:, used]
        covariance += a.T @ a
    if parts["line_sigma"] is not None:
        a = (parts["line_sigma"][:, None] * (_profiles(prediction.lines) @ matrix.T))[:, used]
        covariance += a.T @ a
    return model[used], covariance, flux[used]


@pytest.mark.parametrize(
    ("resolution", "lines", "polynomials"),
    [(True, True, True), (False, True, False), (True, False, True), (False, False, False)],
)
def test_marginal_likelihood_is_that_of_the_dense_covariance(x64, resolution, lines, polynomials):
    options = {"resolution": resolution, "lines": lines, "polynomials": polynomials}
    values = []
    for factor in (1.0, 1.1):
        data, flux, ivar, parts, prediction = _scene(**options)
        prediction = prediction._replace(continuum=prediction.continuum * factor)
        mean, covariance, measured = _dense(flux, ivar, parts, prediction)
        expected = stats.multivariate_normal(mean, covariance).logpdf(measured)
        r = measured - mean
        chi2 = np.sum(RESIDUALS(data, prediction) ** 2)
        np.testing.assert_allclose(chi2, r @ np.linalg.solve(covariance, r), rtol=1e-10)
        norm, _ = NORMAL(data, prediction)
        if not polynomials:
            np.testing.assert_allclose(norm, mean @ np.linalg.solve(covariance, mean), rtol=1e-9)
        values.append(float(LIKELIHOOD(data, prediction)) - expected)
    # The same constant of the data whatever the model: also the determinant follows it.
    assert values[1] == pytest.approx(values[0], abs=1e-9)


def test_float32_agrees_with_float64():
    data, *_, prediction = _scene()
    single = float(LIKELIHOOD(data, prediction))
    with jax.enable_x64(True):
        data, *_, prediction = _scene()
        double = float(LIKELIHOOD(data, prediction))
    assert single == pytest.approx(double, abs=2e-3)


def test_residuals_and_likelihood_have_the_same_gradient(x64):
    """-1/2 chi2 - 1/2 ln det by finite differences, and the residuals' own Jacobian."""
    data, *_, prediction = _scene()
    slope = jnp.linspace(-0.3, 0.5, N_PIXEL)

    def at(t):
        return prediction._replace(continuum=prediction.continuum + t * slope)

    def value(t):
        return data.log_likelihood(at(t))

    def residuals(t):
        return data.residuals(at(t))

    both = jax.jit(lambda t: (value(t), residuals(t)))
    derivatives = jax.jit(
        lambda t: (jax.grad(value)(t), jax.hessian(value)(t), jax.jacfwd(residuals)(t))
    )
    gradient, hessian, jacobian = derivatives(0.0)
    h = 1e-5
    (value_up, up), (value_down, down) = both(h), both(-h)
    np.testing.assert_allclose(gradient, (value_up - value_down) / (2 * h), rtol=1e-7)
    far = 1e-3
    second = (both(far)[0] - 2 * both(0.0)[0] + both(-far)[0]) / far**2
    np.testing.assert_allclose(hessian, second, rtol=1e-4)
    np.testing.assert_allclose(jacobian, (up - down) / (2 * h), rtol=1e-5, atol=1e-8)


def test_gradient_follows_the_line_profiles(x64):
    data, *_, prediction = _scene()

    def value(q):
        return data.log_likelihood(prediction._replace(lines=_lines(q[0] * 1e-4, 30 + q[1])))

    got = jax.jit(jax.grad(value))(jnp.array([0.3, 2.0]))
    value = jax.jit(value)
    for k, step in enumerate(1e-5 * np.eye(2)):
        at = np.array([0.3, 2.0])
        numeric = (value(jnp.asarray(at + step)) - value(jnp.asarray(at - step))) / 2e-5
        np.testing.assert_allclose(got[k], numeric, rtol=1e-6)


def test_small_matrices_invert_and_differentiate(x64):
    rng = np.random.default_rng(3)
    half = rng.normal(size=(8, 12)) * 10.0 ** rng.uniform(-3, 3, (8, 1))
    a = jnp.asarray(half @ half.T)
    inverse = np.asarray(jax.jit(linear_algebra.inverse_positive)(a))
    np.testing.assert_allclose(inverse @ a, np.eye(8), atol=1e-6)
    value, slope = jax.jit(jax.value_and_grad(linear_algebra.log_determinant))(a)
    np.testing.assert_allclose(value, np.linalg.slogdet(a)[1], rtol=1e-10)
    np.testing.assert_allclose(slope, np.linalg.inv(a), rtol=1e-6)


def test_resolution_matrix_is_the_sparse_product(x64):
    data, _, _, parts, prediction = _scene()
    matrix = sparse.lil_matrix((N_PIXEL, N_PIXEL))
    for row, offset in zip(parts["resolution"], OFFSETS, strict=True):
        for i in range(max(0, -offset), min(N_PIXEL, N_PIXEL - offset)):
            matrix[i, i + offset] = row[i]
    expected = matrix.tocsr() @ np.asarray(prediction.continuum)
    np.testing.assert_allclose(data.observe(prediction.continuum), expected, rtol=1e-12)


def test_masked_pixels_have_no_say():
    data, flux, ivar, parts, prediction = _scene(resolution=False)
    flux = flux.copy()
    flux[[5, 17]] = [np.nan, 1e20]
    other = spectrum(flux, ivar, error_floor=0.05, **parts)
    wild = prediction._replace(continuum=prediction.continuum.at[5].multiply(40.0))
    assert float(LIKELIHOOD(other, wild)) == float(LIKELIHOOD(data, prediction))


def test_fit_recovers_lines_and_calibration(x64):
    _, _, ivar, parts, prediction = _scene()
    truth = np.array([2.0, -1.0, 4.0])
    coefficients = np.array([0.5, -0.8])
    quiet = spectrum(np.ones(N_PIXEL), ivar * 1e8, **parts)
    calibration = 1 + coefficients @ parts["polynomials"]
    observe = jax.jit(quiet.observe)
    profiles = np.stack([observe(p) for p in _profiles(prediction.lines)])
    measured = np.asarray(observe(prediction.continuum)) * calibration + truth @ profiles
    fit = jax.jit(lambda data: data.fit(prediction))(spectrum(measured, ivar * 1e8, **parts))
    np.testing.assert_allclose(fit.line_flux, truth, atol=1e-3)
    np.testing.assert_allclose(fit.calibration, calibration, atol=1e-4)
    np.testing.assert_allclose(fit.total[ivar > 0], measured[ivar > 0], atol=1e-4)
    assert np.all((fit.line_error > 0) & (fit.line_error < 1e-3))


def _forward(theta):
    x = jnp.linspace(-1, 1, N_PIXEL)
    amount = 10.0 ** (theta.log_mass_formed - 10.0)
    pixels = SpectrumPrediction(3 * amount * jnp.exp(theta.slope * x), _lines(0.0, 30.0))
    return JointPrediction(amount * jnp.exp(theta.slope * jnp.array([-1.0, 2.0])), pixels)


def _joint():
    bands = photometry(np.array([1.0, 1.2]), np.array([0.1, 0.1]))
    return Joint(bands, _scene()[0])


def test_joint_is_the_sum_of_its_parts(x64):
    data, prediction = _joint(), jax.jit(_forward)(Toy(10.02, 0.1))
    apart = LIKELIHOOD(data.photometry, prediction.photometry)
    apart += LIKELIHOOD(data.spectrum, prediction.spectrum)
    np.testing.assert_allclose(LIKELIHOOD(data, prediction), apart, rtol=1e-12)
    residuals = RESIDUALS(data, prediction)
    assert residuals.shape == (2 + N_PIXEL + N_TERM + N_LINE,)
    np.testing.assert_allclose(data.kept(prediction), prediction.photometry)


def test_mass_shear_of_a_joint_problem_leaves_the_posterior_the_same(x64):
    prior = Toy(dist.Uniform(8.0, 12.0), dist.Uniform(-1.0, 1.0))
    sheared = Problem(prior, _forward, _joint(), MassShear())
    plain = Problem(prior, _forward, _joint())

    def across(x):
        y = plain.unconstrain(sheared.constrain(x))
        return y, y

    @jax.jit
    def all_of(x):
        slopes, y = jax.jacfwd(across, has_aux=True)(x)
        gap = sheared.logdensity(x) - plain.logdensity(y)
        return sheared.unconstrain(sheared.constrain(x)), slopes, gap

    for x in np.random.default_rng(2).normal(size=(4, 2)) * 0.7:
        again, slopes, gap = all_of(jnp.asarray(x))
        np.testing.assert_allclose(again, x, atol=1e-7)
        np.testing.assert_allclose(np.linalg.det(slopes), 1.0, atol=1e-6)
        np.testing.assert_allclose(gap, 0.0, atol=1e-7)


def test_sheared_mass_is_the_best_one(x64):
    """At mass coordinate zero the likelihood is at its maximum over the mass."""
    prior = Toy(dist.Uniform(8.0, 12.0), 0.1)
    data = Joint(_joint().photometry, _scene(polynomials=False)[0])
    problem = Problem(prior, _forward, data, MassShear())
    value = lambda x: problem.log_likelihood(problem.evaluate(x).prediction)  # noqa: E731
    slope_of = jax.jacfwd(value)
    slope, curvature = jax.jit(lambda x: (slope_of(x), jax.jacfwd(slope_of)(x)))(jnp.zeros(1))
    assert abs(slope[0]) < 0.05 * np.sqrt(-curvature[0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ivar": -np.ones(4)}, "not negative"),
        ({"ivar": np.zeros(4)}, "no pixel is used"),
        ({"ivar": np.ones(3)}, "expected flux and ivar"),
        ({"flux": np.array([1, np.nan, 1, 1])}, r"pixel 1: flux nan"),
        ({"polynomials": np.ones((2, 3))}, "expected polynomials"),
        ({"resolution": np.ones((2, 4))}, "an offset for every diagonal"),
    ],
)
def test_bad_spectra(change, message):
    inputs = {"flux": np.ones(4), "ivar": np.ones(4)} | change
    with pytest.raises(ValueError, match=message):
        spectrum(inputs.pop("flux"), inputs.pop("ivar"), **inputs)
