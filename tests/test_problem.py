"""The posterior against one written out with scipy, with its Jacobian by finite differences."""

import os
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from flax import struct
from scipy import special, stats

from jaxsed import params
from jaxsed.emulators import PhotometricEmulator, StitchedEmulator
from jaxsed.likelihood import (
    DETECTION,
    MISSING,
    UPPER_LIMIT,
    MassShear,
    WithRedshift,
    photometry,
)
from jaxsed.problem import PriorCoordinates, Problem, stack
from jaxsed.sps.models.galaxy import GalaxyModel
from jaxsed.sps.spectra.pixels import SpectrumModel
from jaxsed.workflows.spectra import JointModel

LN10 = np.log(10.0)


class Toy(NamedTuple):
    log_mass_formed: Any
    slope: Any
    time: Any
    part: Any


class Line(NamedTuple):
    log_mass_formed: Any
    slope: Any


WAVE = np.array([0.5, 1.0, 2.0, 4.0, 5.0])
KIND = np.array([DETECTION, DETECTION, UPPER_LIMIT, MISSING, DETECTION])
PRIOR = Toy(
    dist.Uniform(8.0, 12.0),
    dist.TruncatedNormal(0.0, 1.0, low=-2.0, high=3.0),
    params.Recoordinated(dist.LogUniform(0.1, 10.0), dist.Uniform(0.1, 10.0)),
    params.Recoordinated(dist.Uniform(0.0, 1.0), shift=lambda t: 0.4 * jnp.log(t.time)),
)


def forward(theta):
    wave = jnp.asarray(WAVE)
    shape = wave**theta.slope * (1 + theta.part * jnp.exp(-wave * theta.time))
    return 10.0 ** (theta.log_mass_formed - 19.5) * shape


def line(theta):
    return 10.0 ** (theta.log_mass_formed - 19.5) * jnp.asarray(WAVE) ** theta.slope


def _data(kind=KIND, **options):
    flux = np.array([2.1e-10, 3.0e-10, 4.0e-10, np.nan, 9e-10])
    error = np.array([2e-11, 1e-11, 1e-10, -99.0, 1e-10])
    return photometry(flux, error, kind, **options), flux, error


def _log_prior(theta):
    return (
        stats.uniform(8, 4).logpdf(theta.log_mass_formed)
        + stats.truncnorm(-2, 3).logpdf(theta.slope)
        + stats.uniform(0.1, 9.9).logpdf(theta.time)
        + stats.uniform(0, 1).logpdf(theta.part)
    )


def _flux(theta):
    shape = WAVE**theta.slope * (1 + theta.part * np.exp(-WAVE * theta.time))
    return 10.0 ** (theta.log_mass_formed - 19.5) * shape


def _log_likelihood(model, flux, error):
    """Detections with 5 % model error and 0.02 mag emulator error; one upper limit."""
    total = 0.0
    for m, f, e, kind in zip(model, flux, error, KIND, strict=True):
        if kind == DETECTION:
            s = np.sqrt(e**2 + (0.05 * f) ** 2 + (0.4 * LN10 * 0.02 * f) ** 2)
            total += -0.5 * ((m - f) / s) ** 2
        elif kind == UPPER_LIMIT:
            total += special.log_ndtr((f - m) / e)
    return total


@pytest.mark.parametrize("transform", [MassShear(), None])
def test_density_is_prior_times_likelihood_times_jacobian(x64, transform):
    data, flux, error = _data(error_floor=0.05, emulator_sigma=0.02)
    problem = Problem(PRIOR, forward, data, transform)
    assert problem.dimension == 4
    density, constrain = jax.jit(problem.logdensity), jax.jit(problem.constrain)

    def reference(x):
        h = 1e-5
        columns = []
        for step in h * np.eye(4):
            up, down = (np.array(constrain(x + s)) for s in (step, -step))
            columns.append((up - down) / (2 * h))
        theta = Toy(*(float(t) for t in constrain(x)))
        ours = _log_likelihood(_flux(theta), flux, error) + _log_prior(theta)
        return ours + np.linalg.slogdet(np.stack(columns, 1))[1]

    points = np.random.default_rng(1).normal(size=(6, 4)) * 0.9
    gap = [float(density(jnp.asarray(x))) - reference(x) for x in points]
    np.testing.assert_allclose(gap, gap[0], atol=1e-5)  # one constant for all points


def test_shear_leaves_the_posterior_the_same(x64):
    """Normalised density of (mass, slope) with and without the shear, on one grid."""
    prior = Line(dist.Uniform(8.0, 12.0), dist.Normal(0.0, 1.0))
    data, _, _ = _data(error_floor=0.2)
    mass, slope = jnp.linspace(9.6, 10.4, 81), jnp.linspace(-0.5, 2.0, 81)
    grid = jnp.stack(jnp.meshgrid(mass, slope, indexing="ij"), -1).reshape(-1, 2)
    densities = []
    for transform in (MassShear(), PriorCoordinates()):
        problem = Problem(prior, line, data, transform)

        def at(row, problem=problem):
            theta = Line(*row)
            x = problem.unconstrain(theta)
            back = problem.constrain(x)
            jacobian = jax.jacfwd(lambda x: jnp.stack(problem.constrain(x)))(x)
            return problem.logdensity(x) - jnp.linalg.slogdet(jacobian)[1], jnp.stack(back)

        log_density, back = jax.jit(jax.vmap(at))(grid)
        np.testing.assert_allclose(back, grid, atol=1e-8)
        density = np.exp(log_density - log_density.max())
        densities.append(density / density.sum())
    np.testing.assert_allclose(densities[0], densities[1], rtol=1e-6, atol=1e-15)
    # The grid holds the posterior: its edges are empty.
    shaped = densities[0].reshape(81, 81)
    assert max(shaped[0].max(), shaped[-1].max()) < 1e-3 * shaped.max()


def test_shear_takes_the_degeneracy_away(x64):
    """At fixed mass coordinate the model fits about as well whatever the slope."""
    prior = Line(dist.Uniform(8.0, 12.0), dist.Uniform(-3.0, 3.0))
    data, _, _ = _data(kind=np.ones(5, int) * np.array([1, 0, 0, 0, 1]))
    problem = Problem(prior, line, data, MassShear())
    at = jax.jit(jax.vmap(lambda s: problem.evaluate(jnp.array([0.0, s])).prediction))
    flux = at(jnp.linspace(-2, 2, 9))
    scaled = np.asarray(flux * data.inverse_sigma)
    best = scaled @ np.asarray(data.scaled) / np.sum(scaled**2, 1)
    np.testing.assert_allclose(best, 1.0, atol=0.02)


def test_a_forward_model_names_the_transform_of_its_problems():
    @struct.dataclass
    class Light:
        transform = MassShear()

        def __call__(self, theta):
            return line(theta)

    prior = Line(dist.Uniform(8.0, 12.0), dist.Normal(0.0, 1.0))
    data, _, _ = _data()
    x = jnp.array([0.3, -0.4])
    named, given = Problem(prior, Light(), data), Problem(prior, line, data, MassShear())
    np.testing.assert_array_equal(jnp.stack(named.constrain(x)), jnp.stack(given.constrain(x)))
    plain = Problem(prior, Light(), data, PriorCoordinates())
    assert abs(plain.constrain(x).log_mass_formed - named.constrain(x).log_mass_formed) > 0.01
    for model in (GalaxyModel, PhotometricEmulator, StitchedEmulator, SpectrumModel, JointModel):
        assert model.transform == MassShear()
    assert WithRedshift(Light()).transform == MassShear()


def test_a_function_is_a_forward_model_that_compiled_code_takes():
    data, _, _ = _data()
    problem = Problem(Line(dist.Uniform(8.0, 12.0), dist.Normal(0.0, 1.0)), line, data)
    x = jnp.array([0.3, -0.4])
    given = jax.jit(lambda problem, x: problem.logdensity(x))(problem, x)
    np.testing.assert_allclose(given, jax.jit(problem.logdensity)(x), rtol=1e-6)
    again = problem.replace(forward=lambda theta: 2.0 * line(theta))
    np.testing.assert_allclose(again.evaluate(x).prediction, 2 * problem.evaluate(x).prediction)


def test_missing_bands_have_no_say():
    data, flux, error = _data()
    problem = Problem(PRIOR, forward, data)
    x = jnp.array([0.1, 0.2, -0.3, 0.4])
    more = problem.replace(forward=lambda theta: forward(theta).at[3].multiply(7.0))
    before, after = jax.jit(lambda x: (problem.logdensity(x), more.logdensity(x)))(x)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_upper_limits():
    data, flux, error = _data()
    problem = Problem(PRIOR, forward, data)
    at_limit = jnp.asarray(np.where(KIND == UPPER_LIMIT, flux, 0.0))
    faint, bright = at_limit * 0.0, at_limit + 5 * jnp.asarray(error)
    base = -0.5 * float(problem.chi2(faint))
    assert float(problem.log_likelihood(faint)) - base == pytest.approx(0.0, abs=1e-3)
    half = problem.log_likelihood(at_limit) - base
    np.testing.assert_allclose(half, np.log(0.5), rtol=2e-3)
    above = problem.log_likelihood(bright) + 0.5 * problem.chi2(bright)
    np.testing.assert_allclose(above, special.log_ndtr(-5.0), rtol=1e-3)
    # Far above a limit the gradient still points down: no flat or undefined region.
    slope = jax.grad(lambda f: problem.log_likelihood(at_limit * f))(100.0)
    assert np.isfinite(slope) and slope < 0


def test_whitener_is_the_inverse_of_the_correlated_covariance(x64):
    flux, error = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.02, 0.05, 0.03, 1.0])
    kind = np.array([1, 1, 1, 0])
    correlation = np.array([[1, 0.9, 0.5, 0], [0.9, 1, 0.6, 0], [0.5, 0.6, 1, 0], [0, 0, 0, 1.0]])
    sigma = np.array([0.03, 0.04, 0.05, 0.06])
    data = photometry(
        flux, error, kind, error_floor=0.05, emulator_sigma=sigma, emulator_correlation=correlation
    )
    model = np.array([1.1, 1.9, 3.2, 9.0])
    relative = 0.4 * LN10 * sigma * flux
    covariance = np.diag(error**2 + (0.05 * flux) ** 2) + correlation * np.outer(relative, relative)
    used = slice(0, 3)
    r = (model - flux)[used]
    expected = r @ np.linalg.solve(covariance[used, used], r)
    problem = Problem(Line(dist.Uniform(0.0, 1.0), 0.0), line, data)
    np.testing.assert_allclose(problem.chi2(jnp.asarray(model)), expected, rtol=1e-9)


def test_galaxy_without_detections_has_a_finite_posterior():
    both = jax.jit(lambda data: jax.value_and_grad(Problem(PRIOR, forward, data).logdensity)(x))
    x = jnp.zeros(4)
    for flux in (0.0, -1e-10):
        value, slope = both(photometry(np.full(5, flux), np.full(5, 1e-10)))
        assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_known_redshift_and_conversions_round_trip():
    data, _, _ = _data()
    problem = Problem(PRIOR._replace(slope=1.0), forward, data)
    assert problem.dimension == 3
    theta = Toy(10.2, 1.0, 2.0, 0.3)
    back = jax.jit(lambda: problem.constrain(problem.unconstrain(theta)))()
    np.testing.assert_allclose([float(t) for t in back], theta, rtol=1e-4)


def test_stacked_problems_are_mapped_over_data_and_prior():
    first, flux, error = _data()
    second = photometry(2 * np.nan_to_num(flux), np.abs(error), KIND)
    one = Problem(PRIOR._replace(slope=0.5), forward, first)
    two = Problem(PRIOR._replace(slope=1.5), forward, second)
    batch = stack([one, two])
    x = jnp.array([[0.1, 0.2, 0.3], [0.3, -0.4, 0.0]])
    over = jax.vmap(lambda p, x: p.logdensity(x), in_axes=(batch.axes, 0))
    together = jax.jit(lambda x: over(batch, x))(x)
    alone = [jax.jit(one.logdensity)(x[0]), jax.jit(two.logdensity)(x[1])]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("flux", "error", "message"),
    [
        ([1.0, np.nan], [0.1, 0.1], r"element \(1,\): flux nan.*set kind to 0"),
        ([1.0, 1.0], [0.1, 0.0], r"element \(1,\).*an error above zero"),
        ([1.0, 1.0], [0.1, np.inf], "expected a finite"),
        ([1.0, 1.0], [0.1], "shapes differ"),
    ],
)
def test_bad_photometry(flux, error, message):
    with pytest.raises(ValueError, match=message):
        photometry(np.array(flux), np.array(error))


@pytest.mark.parametrize("sigma", [[0.01, np.nan], [0.01, np.inf], [0.01, -0.1]])
def test_an_emulator_error_that_is_not_known_is_refused_where_it_is_used(sigma):
    flux, error = np.ones((3, 2)), np.full((3, 2), 0.1)
    with pytest.raises(ValueError, match="emulator errors that are finite"):
        photometry(flux, error, emulator_sigma=np.array(sigma))
    kind = np.tile([1, 0], (3, 1))
    data = photometry(flux, error, kind, error_floor=0.0, emulator_sigma=np.array(sigma))
    total = np.hypot(0.1, 0.01 * 0.4 * np.log(10))
    np.testing.assert_allclose(data.inverse_sigma, np.tile([1 / total, 0], (3, 1)), rtol=1e-5)


def test_the_error_floor_is_a_fraction_of_the_observed_flux():
    flux, error = np.array([2.0, -3.0]), np.array([0.1, 0.2])
    data = photometry(flux, error, error_floor=0.05)
    sigma = np.sqrt(error**2 + (0.05 * flux) ** 2)
    np.testing.assert_allclose(data.inverse_sigma, 1 / sigma, rtol=1e-6)
    model = np.array([50.0, 40.0])  # which does not enter the uncertainty
    np.testing.assert_allclose(data.residuals(model), (model - flux) / sigma, rtol=1e-5)


def shapes_of_every_prior():
    """A prior whose distributions hold arrays, others, and what is no array."""
    given = params.Recoordinated(
        base=dist.Uniform(8.0, 12.0), prior=dist.TruncatedNormal(10.0, low=8.0)
    )
    fields = ("uniform", "vector", "shifted", "given", "known")
    vector = dist.Normal(jnp.arange(3.0), jnp.arange(1.0, 4.0)).to_event(1)
    shifted = dist.TransformedDistribution(
        dist.Normal(1.0, 2.0), dist.transforms.AffineTransform(3.0, 0.5)
    )
    return params.theta_type("Every", fields)(
        dist.LogUniform(1.0, 5.0), vector, shifted, given, 0.3
    )


def test_leaves_of_a_prior_have_an_order_of_their_own(monkeypatch):
    """NumPyro's is that of a set, which changes with the hash seed of the process."""
    problem = Problem(
        shapes_of_every_prior(), lambda theta: theta.uniform, photometry([1.0], [0.1])
    )
    leaves, structure = jax.tree.flatten(problem)
    for kind in ("gather_pytree_data_fields", "gather_pytree_aux_fields"):
        before = getattr(dist.Distribution, kind).__func__
        monkeypatch.setattr(
            dist.Distribution, kind, classmethod(lambda cls, f=before: tuple(sorted(f(cls))))
        )
        ordered = jax.tree.leaves(problem)
        monkeypatch.setattr(
            dist.Distribution, kind, classmethod(lambda cls, f=before: tuple(sorted(f(cls)))[::-1])
        )
        for one, two, three in zip(leaves, ordered, jax.tree.leaves(problem), strict=True):
            assert one is two is three
    again = jax.tree.unflatten(structure, leaves)
    x = jnp.linspace(-1.0, 1.0, problem.dimension)
    before, after = params.constrain(problem.prior, x), params.constrain(again.prior, x)
    assert jax.tree.structure(before.theta) == jax.tree.structure(after.theta)
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, two)


LOWERED = """
import hashlib
import jax, numpyro.distributions as dist
import jaxsed
from jaxsed import params
a, b = dist.LogUniform(1.0, 5.0), dist.TruncatedNormal(0.0, 1.0, low=-1.0)
prior = params.theta_type("P", ("a", "b"))(a, b)
problem = jaxsed.Problem(prior, lambda theta: theta.a + theta.b, jaxsed.photometry([1.0], [0.1]))
text = jax.jit(lambda p, x: p.logdensity(x)).lower(problem, jax.numpy.zeros(2)).as_text()
print(hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.slow
def test_every_process_makes_the_same_program():
    """Whatever its hash seed."""
    found = {
        subprocess.run(
            [sys.executable, "-c", LOWERED], env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in range(1, 5)
    }  # fmt: skip
    assert len(found) == 1
