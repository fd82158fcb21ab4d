"""Flows made exact: weights against analytic posteriors, fallback, simulations, files."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from flax import struct
from toys import Quadratic, Toy, method_of, prior

from jaxsed import infer
from jaxsed.infer import amortised as am
from jaxsed.infer.amortised import flow
from jaxsed.infer.amortised.context import photometric_context
from jaxsed.infer.amortised.importance import KHAT_MAX, weighted
from jaxsed.infer.amortised.simulator import NoiseModel, Simulator, noise_model
from jaxsed.infer.amortised.support import Support, reasons
from jaxsed.learn import FitSettings
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem

MATRIX = np.array([[1.0, 0.5], [0.2, -1.0], [2.0, 1.9]])
ERROR = np.array([0.5, 0.3, 0.2])
SAMPLER = method_of("hmc")


def problems(n, seed=0):
    """A batch of Gaussian posteriors, their means [n, 2], covariance and log evidences [n]."""
    rng = np.random.default_rng(seed)
    flux = 0.3 * rng.normal(size=(n, 2)) @ MATRIX.T + ERROR * rng.normal(size=(n, 3))
    scaled = MATRIX / ERROR[:, None]
    covariance = np.linalg.inv(np.eye(2) + scaled.T @ scaled)
    mean = (flux / ERROR) @ scaled @ covariance
    data = photometry(flux, np.tile(ERROR, (n, 1)), error_floor=0.0)
    ones = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *jnp.shape(a))), prior(0.1))
    # Of the likelihood without its constants, as nested sampling has it.
    chi2 = np.sum((flux / ERROR) ** 2, axis=1) - np.einsum(
        "ni,ij,nj->n", mean, np.linalg.inv(covariance), mean
    )
    log_evidence = -0.5 * chi2 + 0.5 * np.linalg.slogdet(covariance)[1]
    return (
        Problem(ones, Quadratic(jnp.asarray(MATRIX, float), jnp.zeros(3)), data),
        mean,
        covariance,
        log_evidence,
    )


@functools.cache
def untrained():
    context = photometric_context(np.ones(3))
    return context, flow.create(jax.random.key(0), 2, context.size, blocks=2, width=8)


def guess(mean, scale):
    """An amortised posterior that says the same Gaussian for every galaxy."""
    context, net = untrained()
    quiet = net.blocks._replace(output=0 * net.blocks.output)
    scaled = net.replace(blocks=quiet, x_shift=jnp.asarray(mean, float), x_scale=jnp.full(2, scale))
    record = am.Record(
        model="toy", emulator="none", bands=("x", "y", "z"), parameters=("a", "b"),
        redshift=(0, 1), anchor="x", magnitudes=(0, 30), error_floor=0.0, missing=0.0, text="",
    )  # fmt: skip
    nodes = jnp.tile(jnp.array([-100.0, 100.0]), (3, 1))
    anywhere = Support(
        magnitude=nodes, ln_sigma=0 * nodes, spread=1 + 0 * nodes, brightness=nodes.T,
        colours=jnp.tile(jnp.array([[-100.0], [100.0]]), (1, 2)), redshift=jnp.array([0.0, 1.0]),
    )  # fmt: skip
    return am.Amortised(scaled, context, anywhere, NoiseModel(nodes, nodes, nodes), record, prior)


draw_by_weight = jax.jit(weighted, static_argnums=(3, 4))


def one_of(problem, row):
    take = lambda a: a[row]  # noqa: E731
    return Problem(
        jax.tree.map(take, problem.prior), problem.forward, jax.tree.map(take, problem.data)
    )


def test_weighted_draws_have_the_moments_and_evidence_of_the_posterior():
    problem, mean, covariance, log_evidence = problems(1)
    found = draw_by_weight(
        jax.random.key(3), one_of(problem, 0), guess(mean[0] + 0.1, 0.6), 20_000, 8000
    )
    x, effective = np.asarray(found.x), float(found.effective)
    assert float(found.khat) < KHAT_MAX
    assert 1000 < effective < 20_000
    error = np.sqrt(np.diag(covariance) / effective)
    assert np.all(np.abs(x.mean(0) - mean[0]) < 5 * error)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=6 * covariance.max() / effective**0.5)
    gap = float(found.log_evidence) - log_evidence[0]
    assert abs(gap) < 5 * float(found.log_evidence_error) < 0.2


def test_auto_weighs_good_draws_and_samples_where_they_are_bad():
    problem, mean, covariance, _ = problems(6)
    keys = jax.random.split(jax.random.key(1), 6)
    # Good for galaxies near the middle of the six, hopeless for one that is moved far away.
    far = problem.data.replace(
        scaled=problem.data.scaled.at[0].add(jnp.asarray([40.0, 9.0, 190.0]))
    )
    problem = problem.replace(data=far)
    method = infer.FlowImportance(flow=guess(mean.mean(0), 0.7), sampler=SAMPLER)
    samples = infer.sample(keys, problem, method, slots=8)
    found = samples.diagnostics
    assert found.passes().all()
    assert list(found.method) == ["hmc", *["flow+is"] * 5]
    assert not found.khat[0] < KHAT_MAX or found.importance_ess[0] < 400
    assert list(found.support) == ["inside"] * 6
    assert np.all(found.importance_ess[1:] >= 400)
    x = samples.x[1:].reshape(5, -1, 2)
    width = np.sqrt(np.diag(covariance))
    assert np.abs((x.mean(1) - mean[1:]) / width).max() < 0.3
    shifted = np.asarray(far.scaled[0]) @ (MATRIX / ERROR[:, None]) @ covariance
    assert np.abs((samples.x[0].reshape(-1, 2).mean(0) - shifted) / width).max() < 0.3


def test_another_prior_needs_no_other_flow():
    problem, mean, *_ = problems(1)
    known = guess(mean[0], 0.8)
    own = problem.prior
    assert not known.replace(prior=lambda z: prior(z)).suited(problem).another_prior
    other = own._replace(
        a=dist.Normal(jnp.full(1, 0.4), 0.5), b=dist.Uniform(jnp.full(1, -2.0), jnp.full(1, 0.2))
    )
    changed = problem.replace(prior=other)
    suited = known.suited(changed)
    assert suited.another_prior
    one = one_of(changed, 0)
    found = draw_by_weight(jax.random.key(3), one, suited, 40_000, 8000)
    theta = jax.jit(jax.vmap(one.constrain))(found.x)
    # The posterior on a grid of the parameters themselves.
    a, b = np.meshgrid(np.linspace(-3, 3, 801), np.linspace(-2, 0.2, 801), indexing="ij")
    residual = np.asarray(one.data.scaled) - np.stack([a, b], -1) @ (MATRIX / ERROR[:, None]).T
    weight = np.exp(-0.5 * (residual**2).sum(-1) - 0.5 * ((a - 0.4) / 0.5) ** 2)
    for grid, draws in ((a, theta.a), (b, theta.b)):
        expected = np.average(grid, weights=weight)
        width = np.average((grid - expected) ** 2, weights=weight) ** 0.5
        assert abs(np.mean(draws) - expected) < 5 * width / float(found.effective) ** 0.5
        assert abs(np.std(draws) / width - 1) < 0.05
    cell = (a[1, 0] - a[0, 0]) * (b[0, 1] - b[0, 0])
    log_evidence = np.log(weight.sum() * cell / (0.5 * (2 * np.pi) ** 0.5 * 2.2))
    assert abs(float(found.log_evidence) - log_evidence) < 0.05
    assert reasons(suited.outside(one)) == "inside"


def test_a_prior_that_allows_more_is_outside():
    problem, mean, *_ = problems(1)
    narrow = guess(mean[0], 0.8).replace(
        prior=lambda z: Toy(dist.Uniform(-1.0, 1.0), dist.Normal(0.0, 1.0), 0.0, z)
    )
    assert reasons(narrow.suited(problem).outside(one_of(problem, 0))) == "prior"


@pytest.mark.parametrize(("row", "reason"), [(0, "magnitude"), (1, "noise")])
def test_what_is_not_a_number_is_outside(row, reason):
    problem, mean, *_ = problems(1)
    where = guess(mean[0], 0.8).support
    one, at = one_of(problem, 0), jnp.array([True, True, False])
    raw = jnp.zeros((2, 3))
    assert reasons(where(one, raw, at)) == "inside"
    assert reason in reasons(where(one, raw.at[row, 0].set(jnp.nan), at))
    assert reasons(where(one, raw.at[row, 2].set(jnp.nan), at)) == "inside"  # it is missing
    lost = one.replace(prior=prior(jnp.nan))
    assert reasons(where(lost, raw, at)) == "redshift"


def test_a_flow_is_given_with_the_method():
    problem, *_ = problems(1)
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match=r"FlowImportance\(flow=...\)"):
        infer.sample(keys, problem, "auto")
    free = jax.vmap(lambda z: dist.Uniform(0.0 * z, 1.0 + z))(jnp.zeros(1))
    other = problem.replace(prior=problem.prior._replace(redshift=free))
    with pytest.raises(ValueError, match="the flow has 2 parameters, the problem 3"):
        infer.sample(keys, other, infer.FlowImportance(flow=guess(np.zeros(2), 1.0)))


def test_densities_that_are_nowhere_finite_end_in_no_posterior():
    problem, mean, *_ = problems(1)
    broken = problem.replace(forward=Quadratic(jnp.full((3, 2), jnp.nan), jnp.zeros(3)))
    found = draw_by_weight(jax.random.key(0), one_of(broken, 0), guess(mean[0], 1.0), 20_000, 8000)
    assert float(found.effective) == 0
    assert np.isinf(float(found.khat))
    assert np.isfinite(np.asarray(found.x)).all()


def simulator(**changes):
    rng = np.random.default_rng(2)
    flux = 10 ** rng.uniform(-2, 2, size=(3000, 3))
    error = 0.05 * flux * np.exp(0.2 * rng.normal(size=flux.shape)) + 0.01
    parts = {
        "forward": Bright(), "noise": noise_model(flux, error), "emulator_sigma": jnp.zeros(3),
        "redshift": jnp.array([0.0, 1.0]), "magnitudes": jnp.array([-3.0, 3.0]),
        "prior": prior, "model": "toy", "emulator": "none", "bands": ("x", "y", "z"), "anchor": 0,
    }  # fmt: skip
    return Simulator(**(parts | changes))


@struct.dataclass
class Bright:
    """Positive fluxes."""

    def __call__(self, theta):
        return jnp.exp(jnp.stack([theta.a, theta.b, theta.a + theta.b]))


def test_noise_model_gives_back_the_noise_of_its_catalogue():
    rng = np.random.default_rng(5)
    flux = 10 ** rng.uniform(-2, 2, size=(20_000, 2))
    error = np.hypot(0.03 * flux, 0.1) * np.exp(0.25 * rng.normal(size=flux.shape))
    model = noise_model(flux, error)
    for brightness in (0.1, 1.0, 10.0):
        keys = jax.random.split(jax.random.key(0), 4000)
        drawn = np.log(jax.vmap(model, (0, None))(keys, jnp.full(2, brightness)))
        expected = np.log(np.hypot(0.03 * brightness, 0.1))
        np.testing.assert_allclose(drawn.mean(0), expected, atol=0.1)
        np.testing.assert_allclose(drawn.std(0), 0.25, atol=0.08)
    # Beyond the faintest of the catalogue the sky rules.
    faint = jax.vmap(model, (0, None))(keys, jnp.full(2, 1e-6))
    np.testing.assert_allclose(np.log(faint).mean(0), np.log(0.1), atol=0.1)


def test_too_few_galaxies_make_no_noise_model():
    with pytest.raises(ValueError, match="band 0: 50 detections"):
        noise_model(np.ones((50, 1)), np.ones((50, 1)))


def test_simulations_keep_to_the_range_and_to_their_key():
    def look(x, problem):
        return {"x": x, "scaled": problem.data.scaled, "inverse": problem.data.inverse_sigma}

    first = am.simulate(jax.random.key(0), simulator(), 5000, look)
    again = am.simulate(jax.random.key(0), simulator(), 5000, look)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert first["x"].shape == (5000, 2)
    magnitude = -2.5 / np.log(10) * first["x"][:, 0]  # of exp(a)
    assert magnitude.min() > -3
    assert magnitude.max() < 3
    # The pulls of the truth are those of the noise.
    flux = np.exp(np.stack([*first["x"].T, first["x"].sum(1)], axis=1))
    pull = first["scaled"] - flux * first["inverse"]
    np.testing.assert_allclose(pull.std(), 1.0, atol=0.03)


def test_missing_bands_are_simulated_and_are_zeros_to_the_flow():
    context = photometric_context(np.ones(3))

    def look(x, problem):
        return context(problem), problem.data.inverse_sigma

    features, inverse = am.simulate(jax.random.key(1), simulator(missing=0.5), 4000, look)
    gone = inverse == 0
    assert 0.15 < gone.mean() < 0.3
    assert not gone.all(axis=1).any()
    assert np.all(features[:, :3][gone] == 0)
    assert np.all(features[:, 3:6][gone] == 0)
    np.testing.assert_array_equal(features[:, 6:9], ~gone)


def test_a_range_without_galaxies_is_refused():
    with pytest.raises(ValueError, match="widen the range"):
        am.simulate(
            jax.random.key(0), simulator(magnitudes=jnp.array([50.0, 51.0])), 10, lambda x, p: x
        )


def test_training_learns_the_posterior_and_a_file_keeps_it(tmp_path):
    settings = FitSettings(learning_rates=(3e-3, 3e-4), batch_size=256, epochs=3)
    trained, history = am.train(
        jax.random.key(0), simulator(), blocks=3, width=24, pairs=16_384, settings=settings,
        progress=False,
    )  # fmt: skip
    assert history.validation_loss[-1] < history.validation_loss[0]

    def look(x, problem):
        return x, problem.data, problem.prior.redshift

    x, data, z = am.simulate(jax.random.key(9), simulator(), 300, look)
    ones = jax.tree.map(lambda a: jnp.broadcast_to(a, (300, *jnp.shape(a))), prior(0.0))
    problem = Problem(
        ones._replace(redshift=jnp.asarray(z)), Bright(), jax.tree.map(jnp.asarray, data)
    )
    keys = jax.random.split(jax.random.key(4), 300)
    draw = jax.jit(jax.vmap(lambda k, p: trained.sample(k, p, 200)[0], in_axes=(0, problem.axes)))
    draws = np.asarray(draw(keys, problem))
    ranks = (draws < x[:, None]).mean(axis=1)
    assert np.abs(ranks.mean(axis=0) - 0.5).max() < 0.08
    # Far better informed than the prior, whose deviation is one.
    assert draws.std(axis=1).mean() < 0.3
    trained.save(tmp_path / "flow.h5")
    loaded = am.load(tmp_path / "flow.h5", prior)
    assert loaded.record == trained.record
    same = jax.vmap(lambda k, p: loaded.sample(k, p, 200)[0], in_axes=(0, problem.axes))
    np.testing.assert_allclose(jax.jit(same)(keys, problem), draws, rtol=1e-5, atol=1e-6)

    further, later = am.train(
        jax.random.key(1), simulator(), pairs=16_384, begin=loaded, progress=False,
        settings=dataclasses.replace(settings, epochs=1, clip_norm=1.0),
    )  # fmt: skip
    assert later.validation_loss[0] < history.validation_loss[0]
    assert further.flow.orders == trained.flow.orders

    problem = problem_at(x[0] * 0, 0.05, 0.4)
    assert reasons(trained.outside(problem)) == "inside"
    assert "noise" in reasons(trained.outside(problem_at(x[0] * 0, 1.5, 0.4)))
    assert "colour" in reasons(trained.outside(problem_at(np.array([2.0, -9.0]), 0.1, 0.4)))
    assert "redshift" in reasons(trained.outside(problem_at(x[0] * 0, 0.05, 1.4)))
    assert "magnitude" in reasons(trained.outside(problem_at(np.array([9.0, 9.0]), 0.05, 0.4)))


def problem_at(x, relative, redshift):
    """A galaxy of `Bright` without noise."""
    flux = np.exp([x[0], x[1], x[0] + x[1]])
    data = photometry(flux, relative * flux + 0.01, error_floor=0.0)
    return Problem(prior(redshift), Bright(), data)
